// Products of attention on tensor-core tiles, of bf16 and f16. A warp owns 16 or 32 rows of scores
// (of queries, or of keys for dk and dv) and makes two kinds of products: scores a b^T of rows in
// shared memory, and sums p b of weights that it has in registers. Weights enter products rounded
// to the value dtype (op.h); that of f16 has few exponents, so its weights are scaled by powers of
// two.
//
// What bounds these products is shared memory: 128 bytes a cycle, so a load of four matrices takes
// 4 cycles, in which tensor cores multiply two tiles (sm_80) or up to three (sm_90, by
// these instructions). Of 16 columns of b a load serves two tiles for each 16 rows that the warp
// owns: 32 rows halve the cost, where their sums fit into registers. The files that choose shapes
// count cycles of loads per tile multiplied.
//
// Rows in shared memory have `depth` values, zeros from the head's size on, and 16 bytes of padding
// so that the 8 rows that a tile reads at once lie in different banks.
// Path: hot.
#pragma once

#include "kernels/cuda/attention_view.h"

// Loops over fragments must be unrolled, or fragments are no registers.
#ifdef __CUDACC__
#define TILES_UNROLL _Pragma("unroll")
#define TILES_UNROLL_TWO _Pragma("unroll 2")
#define TILES_NO_UNROLL _Pragma("unroll 1")
#else
#define TILES_UNROLL
#define TILES_UNROLL_TWO
#define TILES_NO_UNROLL
#endif

namespace plumb::cuda::tiles {

// Scores or sums of a warp's rows, 16 to a part, and `columns` columns, as multiply_tiles_* lays
// them: lane (g, t) holds of tile n in row g columns 8n + 2t and the next, then the same of row
// g + 8.
template <int parts, int columns>
struct Fragments {
    float of_part[parts][columns / 8][4];
    __device__ __forceinline__ auto& operator[](int part) { return of_part[part]; }
    __device__ __forceinline__ const auto& operator[](int part) const { return of_part[part]; }
};

constexpr int kPadding = 8;
template <int depth>
constexpr int kRow = depth + kPadding;

struct LanePlace {
    int g;
    int t;
};
__device__ __forceinline__ int lane_index() {
    return static_cast<int>(threadIdx.x % kWarp);
}
__device__ __forceinline__ LanePlace lane_place() {
    return {lane_index() / 4, lane_index() % 4};
}

__device__ __forceinline__ void multiply(float (&c)[4], const uint32_t (&a)[4],
                                         const uint32_t (&b)[2], Bf16) {
    multiply_tiles_bf16(c, a, b);
}
__device__ __forceinline__ void multiply(float (&c)[4], const uint32_t (&a)[4],
                                         const uint32_t (&b)[2], F16) {
    multiply_tiles_f16(c, a, b);
}

__device__ __forceinline__ uint32_t round_pair(float x, float y, Bf16) {
    return round_pair_bf16(x, y);
}
__device__ __forceinline__ uint32_t round_pair(float x, float y, F16) {
    return round_pair_f16(x, y);
}

// Probabilities times 2 to this lie well in f16's range, and 1 + a few ulps does too.
template <typename T>
constexpr int kProbabilityBits = 0;
template <>
inline constexpr int kProbabilityBits<F16> = 14;
template <typename T>
constexpr float kProbabilityScale = static_cast<float>(1 << kProbabilityBits<T>);

// `count` rows of `from`, those beyond `valid` as zeros; by all threads of the block. Heads that
// are whole packs come asynchronously: a thread takes one pack of every n-th row. Loops are not
// unrolled where registers are scarce.
template <int depth, int threads, typename T>
__device__ __forceinline__ void load_rows(T* to, const T* from, int64_t row, int count,
                                          int64_t valid, int size) {
    const unsigned thread = threadIdx.x;
    if (size % kPack<T> == 0) {
        constexpr int kPacks = depth / kPack<T>, kStep = threads / kPacks;
        const int first = static_cast<int>(thread / kPacks);
        const int d = static_cast<int>(thread % kPacks) * kPack<T>;
        if (first >= kStep) return;
        to += first * kRow<depth> + d;
        const T* line = from + first * row + d;
        TILES_NO_UNROLL
        for (int r = first; r < count; r += kStep, to += kStep * kRow<depth>, line += kStep * row) {
            const bool inside = r < valid && d < size;
            copy_async_16(to, inside ? line : from, inside);
        }
    } else {
        TILES_NO_UNROLL
        for (int i = static_cast<int>(thread); i < count * depth; i += threads) {
            const int r = i / depth, d = i % depth;
            const bool inside = r < valid && d < size;
            to[r * kRow<depth> + d] = inside ? from[r * row + d] : T{0};
        }
    }
}

// scores = a b^T: the warp's rows at a, `columns` rows at b.
template <int depth, int parts, int columns, typename T>
__device__ __forceinline__ void multiply_rows(Fragments<parts, columns>& scores, const T* a,
                                              const T* b) {
    const int l = lane_index();
    const T* a_row = a + l % 16 * kRow<depth> + l / 16 * 8;
    const T* b_row = b + (l / 16 * 8 + l % 8) * kRow<depth> + l / 8 % 2 * 8;
    TILES_UNROLL
    for (auto& part : scores.of_part)
        for (auto& tile : part)
            for (float& s : tile) s = 0.0F;
    TILES_UNROLL_TWO
    for (int d = 0; d < depth; d += 16) {
        uint32_t x[parts][4];
        TILES_UNROLL
        for (int m = 0; m < parts; ++m) load_matrices(x[m], a_row + 16 * m * kRow<depth> + d);
        TILES_UNROLL
        for (int n = 0; n < columns; n += 16) {
            uint32_t y[4];
            load_matrices(y, b_row + n * kRow<depth> + d);
            TILES_UNROLL
            for (int m = 0; m < parts; ++m) {
                multiply(scores[m][n / 8], x[m], {y[0], y[1]}, T{});
                multiply(scores[m][n / 8 + 1], x[m], {y[2], y[3]}, T{});
            }
        }
    }
}

// sums += scale * weights b, weights rounded: the `rows` rows of `columns` values at b, or of a
// part of longer ones.
template <int depth, int parts, int columns, int rows, typename T>
__device__ __forceinline__ void add_product(Fragments<parts, columns>& sums,
                                            const Fragments<parts, rows>& weights, const T* b,
                                            float scale) {
    const int l = lane_index();
    const T* b_row = b + l % 16 * kRow<depth> + l / 16 * 8;
    TILES_UNROLL
    for (int j = 0; j < rows; j += 16) {
        uint32_t x[parts][4];
        TILES_UNROLL
        for (int m = 0; m < parts; ++m)
            for (int i = 0; i < 4; ++i) {
                const float* pair = weights[m][j / 8 + i / 2] + i % 2 * 2;
                x[m][i] = round_pair(pair[0] * scale, pair[1] * scale, T{});
            }
        TILES_UNROLL
        for (int n = 0; n < columns; n += 16) {
            uint32_t y[4];
            load_matrices_transposed(y, b_row + j * kRow<depth> + n);
            TILES_UNROLL
            for (int m = 0; m < parts; ++m) {
                multiply(sums[m][n / 8], x[m], {y[0], y[1]}, T{});
                multiply(sums[m][n / 8 + 1], x[m], {y[2], y[3]}, T{});
            }
        }
    }
}

// The warp's rows (row 0 at `to`), those below `valid`, from column `column` of a head of `size`
// on: sums * factor of its row (row g + 8 i of the warp: factor[i]). They pass through `stage`,
// shared memory of this warp's rows, so that global memory is written 16 bytes at a time.
template <int depth, int parts, int columns, typename T>
__device__ __forceinline__ void store_rows(T* to, int64_t row, int64_t valid, int column, int size,
                                           const Fragments<parts, columns>& sums,
                                           const float (&factor)[static_cast<size_t>(2 * parts)],
                                           T* stage) {
    const LanePlace at = lane_place();
    __syncwarp();  // all lanes have read what lay there
    TILES_UNROLL
    for (int i = 0; i < 2 * parts; ++i) {
        T* line = stage + (at.g + 8 * i) * kRow<depth> + 2 * at.t;
        TILES_UNROLL
        for (int n = 0; n < columns / 8; ++n) {
            const float* pair = sums[i / 2][n] + i % 2 * 2;
            const T x = narrow<T>(pair[0] * factor[i]), y = narrow<T>(pair[1] * factor[i]);
            *reinterpret_cast<uint32_t*>(line + 8 * n) = x.bits + (uint32_t{y.bits} << 16);
        }
    }
    __syncwarp();
    const int step = size % kPack<T> == 0 ? kPack<T> : 1, across = columns / step;
    for (int i = lane_index(); i < 16 * parts * across; i += kWarp) {
        const int r = i / across, d = i % across * step;
        if (r >= valid || column + d >= size) continue;
        const T* from = stage + r * kRow<depth> + d;
        T* line = to + r * row + column + d;
        if (step == 1)
            *line = *from;
        else
            store_pack(line, load_pack(from));
    }
}

// The keys that any, and that every, query of some sees.
struct SeenKeys {
    KeyRange any;
    KeyRange every;
};
// Of the queries for which each lane calls add; then together, over the warp.
__device__ __forceinline__ SeenKeys seen_nothing() {
    return {{kIndexMax, -1}, {-1, kIndexMax}};
}
__device__ __forceinline__ void add_seen(SeenKeys& seen, const KeyRange& keys) {
    seen.every.low = keys.low > seen.every.low ? keys.low : seen.every.low;
    seen.every.high = keys.high < seen.every.high ? keys.high : seen.every.high;
    if (keys.high < keys.low) return;
    seen.any.low = keys.low < seen.any.low ? keys.low : seen.any.low;
    seen.any.high = keys.high > seen.any.high ? keys.high : seen.any.high;
}
__device__ __forceinline__ SeenKeys seen_by_warp(const SeenKeys& seen) {
    return {{-warp_max(-seen.any.low), warp_max(seen.any.high)},
            {warp_max(seen.every.low), -warp_max(-seen.every.high)}};
}
// Whether some of keys [key, key + count) is seen, and whether each must be looked at.
__device__ __forceinline__ bool uses(const SeenKeys& seen, int32_t key, int count) {
    return seen.any.low < key + count && seen.any.high >= key;
}
__device__ __forceinline__ bool masks(const SeenKeys& seen, int32_t key, int count) {
    return seen.every.low > key || seen.every.high < key + count - 1;
}

// Scores of a query, row g + 8 half of a part, whose keys stand from `key` on: -inf where it does
// not see them.
template <int columns>
__device__ __forceinline__ void mask_row(float (&s)[static_cast<size_t>(columns / 8)][4], int half,
                                         const KeyRange& keys, int32_t key) {
    const int32_t first = key + 2 * lane_place().t;
    const int32_t low = keys.low - first, high = keys.high - first;
    TILES_UNROLL
    for (int n = 0; n < columns / 8; ++n)
        for (int i = 0; i < 2; ++i)
            if (8 * n + i < low || 8 * n + i > high) s[n][2 * half + i] = kMinusInfinity;
}

// Over the 4 lanes of a row.
__device__ __forceinline__ float row_max(float v) {
    for (int step = 2; step > 0; step /= 2) {
        const float other = __shfl_xor_sync(kAllLanes, v, step);
        v = other > v ? other : v;
    }
    return v;
}
__device__ __forceinline__ float row_sum(float v) {
    for (int step = 2; step > 0; step /= 2) v += __shfl_xor_sync(kAllLanes, v, step);
    return v;
}

// run.operator()<depth>(): head sizes are padded to the next that the tiles have. Larger ones than
// kDepthMax go the plain way.
constexpr int kDepthMax = 256;
template <typename Run>
void with_depth(int size, const Run& run) {
    if (size > 128)
        run.template operator()<kDepthMax>();
    else if (size > 96)
        run.template operator()<128>();
    else if (size > 80)
        run.template operator()<96>();
    else if (size > 64)
        run.template operator()<80>();
    else if (size > 32)
        run.template operator()<64>();
    else
        run.template operator()<32>();
}

}  // namespace plumb::cuda::tiles
