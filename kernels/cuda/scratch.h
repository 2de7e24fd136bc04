// The layout of the CUDA kernels' scratch, shared by the kernels and the traits. It depends on
// shapes only, never on the GPU, so that the bits of a result do not either.
// Path: hot.
#pragma once

#include "runtime/base/dtype.h"
#include "runtime/base/types.h"

namespace plumb::cuda {

// What a matrix product may use for itself: NVIDIA's advice for Hopper, enough for any older GPU.
constexpr int64_t kGemmWorkspaceBytes = 32 * kMiB;

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

}  // namespace plumb::cuda
