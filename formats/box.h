// Boxes of a logical tensor: start and extent per dim. A checkpoint chunk is a box, so that any
// layout can load what any other wrote by intersecting boxes. Tensors are dense and row-major; a
// tensor of rank r is seen as rank 4 with trailing dims of extent 1, which changes no address.
// Nothing here allocates or throws; tiling is proved by a sum over corners, not by sorting, so the
// proof is one pass in any order and adds up over files and ranks.
// Path: hot.
#pragma once

#include "runtime/base/hash.h"
#include "runtime/base/types.h"
#include "runtime/base/view.h"

namespace plumb {

struct Box {
    int64_t start[kMaxRank] = {0, 0, 0, 0};
    int64_t extent[kMaxRank] = {1, 1, 1, 1};
    bool operator==(const Box&) const = default;
};

// A flat span of a rank-n tensor is at most 2n-1 boxes.
inline constexpr int kMaxSpanBoxes = 2 * kMaxRank - 1;

Box whole_box(const Shape& shape) noexcept;

// Number of elements; the box must be inside some valid shape (no overflow).
int64_t box_elements(const Box& box) noexcept;

// True when every extent is >= 1 and the box lies inside [0, dim) of every dim of the shape. Safe
// for any values: no arithmetic overflows.
bool box_inside(const Box& box, const Shape& shape) noexcept;

// The common part of a and b in *common; false (and *common untouched) when there is none.
bool intersect(const Box& a, const Box& b, Box* common) noexcept;

// Boxes that cover the flat elements [first, first + count) of a row-major tensor, in flat order,
// each contiguous in the tensor. Returns their number (at most 2 * rank - 1).
int span_boxes(const Shape& shape, int64_t first, int64_t count,
               Box (&boxes)[kMaxSpanBoxes]) noexcept;

// Splits a box into chunks of at most chunk_elements, in row-major order and each contiguous in the
// dense box: one index in the leading dims, a range of the split dim, the whole of the trailing
// dims. The ranges are of nearly equal size. `offset_elements` is where the chunk starts in the
// dense box.
class ChunkCursor {
  public:
    ChunkCursor(const Box& box, int64_t chunk_elements) noexcept;
    bool next(Box* chunk, int64_t* offset_elements) noexcept;
    int64_t chunk_count() const noexcept;

  private:
    Box box_;
    int split_dim_;
    int64_t rows_;   // extent of a chunk in the split dim
    int64_t inner_;  // elements of one index of the split dim
    int64_t offset_ = 0;
    int64_t end_;
};

// Where the element at `at` stands in a dense array of `box`, in elements.
inline int64_t offset_in(const Box& box, const int64_t (&at)[kMaxRank]) noexcept {
    int64_t offset = 0;
    for (int d = 0; d < kMaxRank; ++d) offset = offset * box.extent[d] + at[d] - box.start[d];
    return offset;
}

// Elements of `region` that lie next to each other in dense arrays of both boxes: all of the
// trailing dims that both share, times the range of the dim before.
int64_t run_elements(const Box& region, const Box& a, const Box& b) noexcept;

// Calls visit(offset in a, offset in b, elements) for each such run of `region`, in order.
template <typename Visit>
void for_each_run(const Box& region, const Box& a, const Box& b, Visit visit) {
    const int64_t run = run_elements(region, a, b);
    const int64_t elements = box_elements(region);
    for (int64_t first = 0; first < elements; first += run) {
        int64_t at[kMaxRank];
        int64_t rest = first;
        for (int d = kMaxRank - 1; d >= 0; --d) {
            at[d] = region.start[d] + rest % region.extent[d];
            rest /= region.extent[d];
        }
        visit(offset_in(a, at), offset_in(b, at), run);
    }
}

// Copies the elements of `region` (inside both boxes) from a dense array of from_box to a dense
// array of to_box.
void copy_region(const Box& region, const Box& from_box, const void* from, const Box& to_box,
                 void* to, int64_t element_bytes) noexcept;

// Proof that boxes tile a tensor, without storing them. The sum of the boxes' indicator functions
// equals that of the tensor exactly when their mixed differences agree, and the mixed difference of
// a box is +-1 at its corners. So the signed sum modulo 2^128 of a hash of (tensor, corner) over
// all boxes equals the same sum over the whole tensor if there is no hole and no overlap, and
// otherwise only with probability 2^-128.
Hash128 tiling_sum(uint64_t tensor_key, const Box& box) noexcept;

}  // namespace plumb
