// The layout of the CUDA kernels' scratch, shared by the kernels and the traits. It depends on
// shapes only, never on the GPU, so that the bits of a result do not either.
// Path: hot.
#pragma once

#include "runtime/base/types.h"

namespace plumb::cuda {

// norm_backward: the gradients of gamma and beta are summed per block of rows. The blocks fill a
// large GPU twice over, each with at least a few rows.
constexpr int64_t kNormBlocksMax = 256;
constexpr int64_t kNormRowsMin = 8;
constexpr int64_t norm_block_rows(int64_t rows) {
    const int64_t share = ceil_div(rows, kNormBlocksMax);
    return share > kNormRowsMin ? share : kNormRowsMin;
}
// Of `params` (0 to 2) gradients.
constexpr int64_t norm_backward_scratch_bytes(int64_t rows, int64_t size, int params) {
    return align_up(ceil_div(rows, norm_block_rows(rows)) * params * size * 4, kAlignBytes);
}

// embed_backward sorts its rows by token: entries of 8 bytes twice, then the counts of digits per
// tile of entries, then a row of sums for each tile of sorted rows.
constexpr int kSortBits = 9;
constexpr int kSortBins = 1 << kSortBits;
constexpr int kSortTile = kSortBins;  // entries of a block, as many as it has threads
constexpr int kRunRows = 32;          // sorted rows of a block
struct SortedRowsLayout {
    int64_t entries_bytes;  // of each of the two
    int64_t counts_bytes;
    int64_t sums_bytes;
    constexpr int64_t total() const { return 2 * entries_bytes + counts_bytes + sums_bytes; }
};
constexpr SortedRowsLayout sorted_rows_layout(int64_t rows, int64_t size) {
    return {align_up(rows * 8, kAlignBytes), ceil_div(rows, kSortTile) * kSortBins * 4,
            align_up(ceil_div(rows, kRunRows) * size * 4, kAlignBytes)};
}

// sample: the weights (f64) of a row, each row on 64 bytes.
constexpr int64_t sample_row_bytes(int64_t vocabulary) {
    return align_up(vocabulary * 8, kAlignBytes);
}

}  // namespace plumb::cuda
