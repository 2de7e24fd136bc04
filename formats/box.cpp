#include "formats/box.h"

#include <algorithm>
#include <cstring>

#include "runtime/base/check.h"

namespace plumb {

Box whole_box(const Shape& shape) noexcept {
    Box box;
    for (int d = 0; d < shape.rank; ++d) box.extent[d] = shape.dim[d];
    return box;
}

int64_t box_elements(const Box& box) noexcept {
    int64_t n = 1;
    for (const int64_t extent : box.extent) n *= extent;
    return n;
}

bool box_inside(const Box& box, const Shape& shape) noexcept {
    for (int d = 0; d < kMaxRank; ++d) {
        const int64_t dim = d < shape.rank ? shape.dim[d] : 1;
        if (box.start[d] < 0 || box.extent[d] < 1 || box.start[d] >= dim ||
            box.extent[d] > dim - box.start[d])
            return false;
    }
    return true;
}

bool intersect(const Box& a, const Box& b, Box* common) noexcept {
    Box box;
    for (int d = 0; d < kMaxRank; ++d) {
        box.start[d] = std::max(a.start[d], b.start[d]);
        const int64_t end = std::min(a.start[d] + a.extent[d], b.start[d] + b.extent[d]);
        box.extent[d] = end - box.start[d];
        if (box.extent[d] < 1) return false;
    }
    *common = box;
    return true;
}

// Walks from `first` to the end, each time taking the largest aligned piece that fits: pieces grow
// up to the leading dim and shrink again, so every dim but the first gives at most two.
int span_boxes(const Shape& shape, int64_t first, int64_t count,
               Box (&boxes)[kMaxSpanBoxes]) noexcept {
    CHECK(first >= 0 && count >= 0 && first <= shape.elements() - count);
    int box_count = 0;
    const int64_t end = first + count;
    while (first < end) {
        int dim = std::max(shape.rank - 1, 0);  // the dim in which this piece is a range
        int64_t inner = 1;                      // elements of one index of it
        while (dim > 0) {
            const int64_t outer = inner * shape.dim[dim];
            if (first % outer != 0 || outer > end - first) break;
            inner = outer;
            --dim;
        }
        Box box = whole_box(shape);
        int64_t row = first / inner;  // flat index over dims 0..dim
        for (int d = dim; d >= 0; --d) {
            const int64_t extent = d < shape.rank ? shape.dim[d] : 1;
            box.start[d] = row % extent;
            box.extent[d] = 1;
            row /= extent;
        }
        const int64_t dim_extent = dim < shape.rank ? shape.dim[dim] : 1;
        box.extent[dim] = std::min(dim_extent - box.start[dim], (end - first) / inner);
        CHECK(box_count < kMaxSpanBoxes);
        boxes[box_count++] = box;
        first += box.extent[dim] * inner;
    }
    return box_count;
}

ChunkCursor::ChunkCursor(const Box& box, int64_t chunk_elements) noexcept
    : box_(box), split_dim_(kMaxRank - 1), inner_(1), end_(box_elements(box)) {
    CHECK(chunk_elements >= 1);
    while (split_dim_ > 0 && inner_ * box.extent[split_dim_] <= chunk_elements)
        inner_ *= box.extent[split_dim_--];
    const int64_t extent = box.extent[split_dim_];
    const int64_t rows_max = std::min(extent, chunk_elements / inner_);
    rows_ = ceil_div(extent, ceil_div(extent, rows_max));
}

bool ChunkCursor::next(Box* chunk, int64_t* offset_elements) noexcept {
    if (offset_ >= end_) return false;
    *chunk = box_;
    int64_t row = offset_ / inner_;
    for (int d = split_dim_; d >= 0; --d) {
        chunk->start[d] = box_.start[d] + row % box_.extent[d];
        chunk->extent[d] = 1;
        row /= box_.extent[d];
    }
    const int64_t done = chunk->start[split_dim_] - box_.start[split_dim_];
    chunk->extent[split_dim_] = std::min(rows_, box_.extent[split_dim_] - done);
    *offset_elements = offset_;
    offset_ += chunk->extent[split_dim_] * inner_;
    return true;
}

int64_t ChunkCursor::chunk_count() const noexcept {
    const int64_t extent = box_.extent[split_dim_];
    return end_ / (extent * inner_) * ceil_div(extent, rows_);
}

int64_t run_elements(const Box& region, const Box& a, const Box& b) noexcept {
    int dim = kMaxRank - 1;
    int64_t run = region.extent[dim];
    while (dim > 0 && region.extent[dim] == a.extent[dim] && region.extent[dim] == b.extent[dim])
        run *= region.extent[--dim];
    return run;
}

void copy_region(const Box& region, const Box& from_box, const void* from, const Box& to_box,
                 void* to, int64_t element_bytes) noexcept {
    for_each_run(region, from_box, to_box, [&](int64_t from_at, int64_t to_at, int64_t elements) {
        std::memcpy(static_cast<char*>(to) + to_at * element_bytes,
                    static_cast<const char*>(from) + from_at * element_bytes,
                    static_cast<size_t>(elements * element_bytes));
    });
}

Hash128 tiling_sum(uint64_t tensor_key, const Box& box) noexcept {
    Hash128 sum;
    for (unsigned corner = 0; corner < 1u << kMaxRank; ++corner) {
        int64_t at[kMaxRank];
        bool negative = false;
        for (int d = 0; d < kMaxRank; ++d) {
            const bool far = (corner >> d & 1u) != 0;
            at[d] = box.start[d] + (far ? box.extent[d] : 0);
            negative ^= far;
        }
        Hash128 h = hash128(at, sizeof at, tensor_key);
        if (negative) {  // two's complement of 128 bits
            h.low = ~h.low + 1;
            h.high = ~h.high + (h.low == 0 ? 1 : 0);
        }
        const uint64_t low = sum.low + h.low;
        sum.high += h.high + (low < h.low ? 1 : 0);
        sum.low = low;
    }
    return sum;
}

}  // namespace plumb
