#include "formats/box.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "runtime/base/digest.h"
#include "runtime/base/random.h"

namespace plumb {
namespace {

const Shape kShapes[] = {Shape{},
                         make_shape(1),
                         make_shape(7),
                         make_shape(5, 3),
                         make_shape(1, 13),
                         make_shape(4, 1, 6),
                         make_shape(3, 5, 7),
                         make_shape(2, 3, 4, 5),
                         make_shape(3, 1, 1, 2)};

// Flat indices of a box's elements in a tensor, in the box's own order.
std::vector<int64_t> flat_indices(const Box& box, const Shape& shape) {
    std::vector<int64_t> all(static_cast<size_t>(shape.elements()));
    std::iota(all.begin(), all.end(), 0);
    std::vector<int64_t> taken(static_cast<size_t>(box_elements(box)));
    copy_region(box, whole_box(shape), all.data(), box, taken.data(), 8);
    return taken;
}

TEST(Box, EverySpanOfEveryShapeIsAFewBoxesInOrder) {
    for (const Shape& shape : kShapes) {
        const int64_t n = shape.elements();
        for (int64_t first = 0; first <= n; ++first) {
            for (int64_t count = 0; first + count <= n; ++count) {
                Box boxes[kMaxSpanBoxes];
                const int box_count = span_boxes(shape, first, count, boxes);
                EXPECT_LE(box_count, std::max(1, 2 * shape.rank - 1));
                int64_t next = first;
                for (int b = 0; b < box_count; ++b) {
                    ASSERT_TRUE(box_inside(boxes[b], shape));
                    for (const int64_t index : flat_indices(boxes[b], shape))
                        ASSERT_EQ(index, next++);
                }
                ASSERT_EQ(next, first + count);
            }
        }
    }
}

TEST(Box, ChunksAreContiguousInOrderAndNoLargerThanAsked) {
    for (const Shape& shape : kShapes) {
        for (int64_t limit = 1; limit <= shape.elements() + 1; ++limit) {
            ChunkCursor cursor(whole_box(shape), limit);
            Box chunk;
            int64_t offset = 0;
            int64_t next = 0;
            int64_t count = 0;
            for (; cursor.next(&chunk, &offset); ++count) {
                ASSERT_EQ(offset, next);
                ASSERT_LE(box_elements(chunk), limit);
                for (const int64_t index : flat_indices(chunk, shape)) ASSERT_EQ(index, next++);
            }
            ASSERT_EQ(next, shape.elements());
            ASSERT_EQ(count, cursor.chunk_count());
        }
    }
}

TEST(Box, ChunksOfAnInnerBoxStayInsideItAndTileIt) {
    const Shape shape = make_shape(6, 5, 4);
    const Box box = {{2, 1, 1, 0}, {3, 3, 2, 1}};
    Hash128 sum;
    ChunkCursor cursor(box, 4);
    Box chunk;
    Box common;
    for (int64_t offset = 0; cursor.next(&chunk, &offset);) {
        ASSERT_TRUE(box_inside(chunk, shape) && intersect(chunk, box, &common));
        EXPECT_EQ(common, chunk);
        sum = digest_add(sum, tiling_sum(1, chunk));
    }
    EXPECT_EQ(sum, tiling_sum(1, box));
}

TEST(Box, ABoxIsInsideOnlyWhenEveryDimIs) {
    const Shape shape = make_shape(4, 3);
    EXPECT_TRUE(box_inside({{3, 2, 0, 0}, {1, 1, 1, 1}}, shape));
    EXPECT_FALSE(box_inside({{3, 2, 0, 0}, {2, 1, 1, 1}}, shape));
    EXPECT_FALSE(box_inside({{-1, 0, 0, 0}, {1, 1, 1, 1}}, shape));
    EXPECT_FALSE(box_inside({{0, 0, 0, 0}, {1, 0, 1, 1}}, shape));
    EXPECT_FALSE(box_inside({{0, 0, 1, 0}, {1, 1, 1, 1}}, shape));
    EXPECT_FALSE(box_inside({{0, 0, 0, 0}, {1, 1, 1, 2}}, shape));
    EXPECT_FALSE(box_inside({{1, 0, 0, 0}, {INT64_MAX, 1, 1, 1}}, shape));
    EXPECT_FALSE(box_inside({{INT64_MAX, 0, 0, 0}, {INT64_MAX, 1, 1, 1}}, shape));
}

TEST(Box, IntersectionAgreesWithCountingElements) {
    const Shape shape = make_shape(4, 5, 3);
    for (uint64_t i = 0; i < 2000; ++i) {
        Box box[2];
        for (uint64_t b = 0; b < 2; ++b) {
            for (int d = 0; d < 3; ++d) {
                const Philox4 r = philox(i, static_cast<uint64_t>(d), b);
                box[b].start[d] = r.word[0] % shape.dim[d];
                box[b].extent[d] = 1 + r.word[1] % (shape.dim[d] - box[b].start[d]);
            }
        }
        std::vector<int> seen(60);
        for (const Box& b : box)
            for (const int64_t index : flat_indices(b, shape)) ++seen[static_cast<size_t>(index)];
        const int64_t expected = std::count(seen.begin(), seen.end(), 2);
        Box common;
        const bool any = intersect(box[0], box[1], &common);
        ASSERT_EQ(any, expected > 0);
        if (any) {
            ASSERT_EQ(box_elements(common), expected);
            for (const int64_t index : flat_indices(common, shape))
                ASSERT_EQ(seen[static_cast<size_t>(index)], 2);
        }
    }
}

TEST(Box, TilingSumTellsATilingFromAHoleAnOverlapAndAnotherTensor) {
    const Box whole = whole_box(make_shape(4, 6));
    const Box parts[] = {
        {{0, 0, 0, 0}, {2, 3, 1, 1}}, {{2, 0, 0, 0}, {2, 3, 1, 1}}, {{0, 3, 0, 0}, {4, 3, 1, 1}}};
    Hash128 sum;
    for (const Box& part : parts) sum = digest_add(sum, tiling_sum(9, part));
    EXPECT_EQ(sum, tiling_sum(9, whole));
    EXPECT_NE(sum, tiling_sum(8, whole));
    // A hole, an overlap, and both at once with the right number of elements.
    EXPECT_NE(digest_add(tiling_sum(9, parts[0]), tiling_sum(9, parts[1])), tiling_sum(9, whole));
    EXPECT_NE(digest_add(sum, tiling_sum(9, parts[1])), tiling_sum(9, whole));
    const Hash128 doubled = digest_add(tiling_sum(9, parts[0]), tiling_sum(9, parts[0]));
    EXPECT_NE(digest_add(doubled, tiling_sum(9, parts[2])), tiling_sum(9, whole));
}

TEST(Box, TilingSumOfRandomCutsIsThatOfTheWhole) {
    for (uint64_t seed = 0; seed < 50; ++seed) {
        const Box whole = whole_box(make_shape(9, 7, 5, 3));
        std::vector<Box> boxes = {whole};
        for (uint64_t cut = 0; cut < 20; ++cut) {
            const Philox4 r = philox(seed, cut, 0);
            Box& box = boxes[r.word[0] % boxes.size()];
            const uint32_t d = r.word[1] % 4;
            if (box.extent[d] < 2) continue;
            Box rest = box;
            box.extent[d] = 1 + r.word[2] % (box.extent[d] - 1);
            rest.start[d] += box.extent[d];
            rest.extent[d] -= box.extent[d];
            boxes.push_back(rest);
        }
        Hash128 sum;
        for (const Box& box : boxes) sum = digest_add(sum, tiling_sum(seed, box));
        EXPECT_EQ(sum, tiling_sum(seed, whole));
        boxes.back().extent[0] += 1;
        sum = {};
        for (const Box& box : boxes) sum = digest_add(sum, tiling_sum(seed, box));
        EXPECT_NE(sum, tiling_sum(seed, whole));
    }
}

}  // namespace
}  // namespace plumb
