// Products of attention in plain fp32, for float and for heads that the tensor-core tiles do not
// take: any dtype, any head size. A block of 256 threads holds a 64 x 64 tile of scores, thread
// (y, x) of 16 x 16 the rows 4y .. 4y + 3 and the columns 4x .. 4x + 3, in registers; operands pass
// through shared memory 32 numbers of the contracted dimension at a time.
// Path: hot.
#pragma once

#include "kernels/cuda/attention_view.h"

namespace plumb::cuda::plain {

constexpr int kThreads = 256;
constexpr int kSide = 64;
constexpr int kDepth = 32;
constexpr int kRow = kSide + 4;  // 16-byte aligned, and not all rows in the same banks
constexpr int kColumnsMax = 128;
constexpr int kStageFloats = 2 * kDepth * kRow;
static_assert(kStageFloats >= kDepth * kColumnsMax);
constexpr int64_t kSharedBytes = (kStageFloats + kSide * kRow) * int64_t{sizeof(float)};

// A thread's part of a result: its four rows, four columns in each 64.
template <int width>
using Sums = float[4][static_cast<size_t>(4 * width)];

struct Place {
    int x;
    int y;
};
__device__ __forceinline__ Place place() {
    return {static_cast<int>(threadIdx.x) % 16, static_cast<int>(threadIdx.x) / 16};
}

// `count` rows of one head in global memory; rows beyond read as zeros.
template <typename T>
struct Rows {
    const T* at;
    int64_t row;
    int64_t count;
};

// to[d][r] = row r, number d0 + d.
template <typename T>
__device__ __forceinline__ void stage_transposed(float* to, const Rows<T>& from, int d0, int size) {
    for (int i = static_cast<int>(threadIdx.x); i < kSide * kDepth; i += kThreads) {
        const int r = i / kDepth, d = i % kDepth;
        const bool valid = r < from.count && d0 + d < size;
        to[d * kRow + r] = valid ? widen(from.at[r * from.row + d0 + d]) : 0.0F;
    }
}

// scores = a b^T over heads of `size`.
template <typename T>
__device__ __forceinline__ void multiply_rows(float (&scores)[4][4], const Rows<T>& a,
                                              const Rows<T>& b, int size, float* stage) {
    const Place at = place();
    for (auto& row : scores)
        for (float& s : row) s = 0.0F;
    for (int d0 = 0; d0 < size; d0 += kDepth) {
        __syncthreads();
        stage_transposed(stage, a, d0, size);
        stage_transposed(stage + kDepth * kRow, b, d0, size);
        __syncthreads();
        for (int d = 0; d < kDepth; ++d) {
            const Pack<float> x = load_pack(stage + d * kRow + 4 * at.y);
            const Pack<float> y = load_pack(stage + (kDepth + d) * kRow + 4 * at.x);
            for (int i = 0; i < 4; ++i)
                for (int j = 0; j < 4; ++j) scores[i][j] += x.value[i] * y.value[j];
        }
    }
}

// p[column][row] = weights, for add_product.
__device__ __forceinline__ void share(float* p, const float (&weights)[4][4]) {
    const Place at = place();
    __syncthreads();
    for (int j = 0; j < 4; ++j)
        store_pack(p + (4 * at.x + j) * kRow + 4 * at.y,
                   Pack<float>{{weights[0][j], weights[1][j], weights[2][j], weights[3][j]}});
}

// sums[row][4w + n] += over j of p[j][row] * b[j][column + 64w + 4x + n].
template <int width, typename T>
__device__ __forceinline__ void add_product(Sums<width>& sums, const float* p, const Rows<T>& b,
                                            int column, int size, float* stage) {
    constexpr int kColumns = kSide * width;
    const Place at = place();
    for (int j0 = 0; j0 < kSide; j0 += kDepth) {
        __syncthreads();
        for (int i = static_cast<int>(threadIdx.x); i < kDepth * kColumns; i += kThreads) {
            const int j = j0 + i / kColumns, d = column + i % kColumns;
            const bool valid = j < b.count && d < size;
            stage[i] = valid ? widen(b.at[j * b.row + d]) : 0.0F;
        }
        __syncthreads();
        for (int j = 0; j < kDepth; ++j) {
            const Pack<float> x = load_pack(p + (j0 + j) * kRow + 4 * at.y);
            for (int w = 0; w < width; ++w) {
                const Pack<float> y = load_pack(stage + j * kColumns + w * kSide + 4 * at.x);
                for (int i = 0; i < 4; ++i)
                    for (int n = 0; n < 4; ++n) sums[i][4 * w + n] += x.value[i] * y.value[n];
            }
        }
    }
}

// Rows 4y .. of `count` of one head become sums[row] * factor[row].
template <int width, typename T>
__device__ __forceinline__ void store_rows(T* to, int64_t row, int64_t count, int column, int size,
                                           const Sums<width>& sums, const float (&factor)[4]) {
    const Place at = place();
    for (int i = 0; i < 4; ++i)
        for (int w = 0; w < width; ++w)
            for (int n = 0; n < 4; ++n) {
                const int r = 4 * at.y + i, d = column + w * kSide + 4 * at.x + n;
                if (r < count && d < size)
                    to[r * row + d] = narrow<T>(sums[i][4 * w + n] * factor[i]);
            }
}

// Over the 16 threads of a row of scores.
__device__ __forceinline__ float row_max(float v) {
    for (int step = 8; step > 0; step /= 2) {
        const float other = __shfl_xor_sync(kAllLanes, v, step);
        v = other > v ? other : v;
    }
    return v;
}
__device__ __forceinline__ float row_sum(float v) {
    for (int step = 8; step > 0; step /= 2) v += __shfl_xor_sync(kAllLanes, v, step);
    return v;
}

// Heads wider than kColumnsMax are done in parts, down the grid's y; scores are made for each.
inline int64_t column_parts(int64_t size) {
    return ceil_div(size, kColumnsMax);
}

}  // namespace plumb::cuda::plain
