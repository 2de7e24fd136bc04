// The layout of the CUDA kernels' scratch, shared by the kernels and the traits. It depends on
// shapes only, never on the GPU, so that the bits of a result do not either.
// Path: hot.
#pragma once

#include "runtime/base/dtype.h"
#include "runtime/base/types.h"

namespace plumb::cuda {

// What a matrix product may use for itself: NVIDIA's advice for Hopper, enough for any older GPU.
// It has to start on 256 bytes, scratch starts on 64.
constexpr int64_t kGemmWorkspaceAlign = 256;
constexpr int64_t kGemmWorkspaceUsed = 32 * kMiB;
constexpr int64_t kGemmWorkspaceBytes = kGemmWorkspaceUsed + kGemmWorkspaceAlign;

// What a kernel may ask for of a block's shared memory. sm_80 has 163 KiB for a block and sm_90 has
// 227; sm_86 and sm_89 would run sm_80's code, but have 99.
constexpr int64_t kBlockSharedMost = 139 * kKiB;

// Rows up to which x * w^T streams w through dot products.
constexpr int64_t kMatmulStreamRows = 8;

// matmul: the product's own, then its bias rounded to the value dtype.
constexpr int64_t matmul_scratch_bytes(int64_t outputs, bool rounded_bias, Dtype dtype) {
    return kGemmWorkspaceBytes +
           (rounded_bias ? align_up(outputs * dtype_bytes(dtype), kAlignBytes) : 0);
}

// matmul_dw: the product's own and, of the bias, the column sums of blocks of rows.
constexpr int64_t kColumnSumRows = 256;
constexpr int64_t column_sum_bytes(int64_t rows, int64_t columns) {
    return align_up(ceil_div(rows, kColumnSumRows) * columns * 4, kAlignBytes);
}

// head_loss and its backward: the product's own, the fp32 logits of a chunk, each row on 256 bytes,
// which become their gradients from the row's start on, then the loss of each row (f64).
constexpr int64_t logits_stride(int64_t vocabulary) {
    return align_up(vocabulary, 64);
}
constexpr int64_t logits_bytes(int64_t chunk, int64_t vocabulary) {
    return chunk * logits_stride(vocabulary) * 4;
}
constexpr int64_t head_loss_scratch_bytes(int64_t chunk, int64_t vocabulary) {
    return kGemmWorkspaceBytes + logits_bytes(chunk, vocabulary) + align_up(chunk * 8, kAlignBytes);
}

// Sums of integers over a whole tensor (grad_norm, digest): each block leaves kSumParts numbers of
// 64 bits, part p of block b at p * blocks + b, and one block adds them up. A thread has at most
// kSumThreadMax elements, so that it can add numbers of 45 bits in 64.
inline constexpr int kSumThreads = 256;
inline constexpr int kSumParts = 5;
inline constexpr int64_t kSumThreadMax = int64_t{1} << 18;
constexpr int64_t sum_blocks(int64_t count) {
    constexpr int64_t kBlockElements = 16 * kSumThreads, kBlocks = 2048;
    const int64_t useful = ceil_div(count, kBlockElements);
    const int64_t filling = useful < kBlocks ? useful : kBlocks;
    // A thread's share is whole packs of up to 8 elements.
    const int64_t needed = ceil_div(count, (kSumThreadMax - 8) * kSumThreads);
    return filling > needed ? filling : needed;
}
static_assert(sum_blocks(0) == 0 && sum_blocks(1) == 1 && sum_blocks(4097) == 2);
static_assert(sum_blocks(int64_t{1} << 35) == 2048 && sum_blocks(int64_t{1} << 40) == 16385);
constexpr int64_t sum_scratch_bytes(int64_t count) {
    return align_up(sum_blocks(count) * kSumParts * 8, kAlignBytes);
}

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

// o . do of every query of every head.
constexpr int64_t attention_backward_scratch_bytes(int64_t rows) {
    return align_up(rows * 4, kAlignBytes);
}

// A decode, of at most so many tokens of a row, is split over parts of so many positions. Neither
// depends on anything: a row has the same bits in any batch and in a cache of any size. Of each
// query and part: its weighted sum of values, its largest score and its sum of exponentials.
constexpr int64_t kDecodeTokens = 4;
constexpr int64_t kDecodePart = 64;
constexpr int64_t attention_cached_scratch_bytes(int64_t tokens, int64_t rows, int64_t positions,
                                                 int64_t head_size) {
    if (tokens > kDecodeTokens) return 0;
    return align_up(rows * ceil_div(positions, kDecodePart) * (head_size + 2) * 4, kAlignBytes);
}

}  // namespace plumb::cuda
