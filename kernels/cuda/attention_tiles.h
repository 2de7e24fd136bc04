// Products of attention on tensor-core tiles, of bf16 and f16. A warp owns 16 rows of scores (of
// queries, or of keys for dk and dv) and makes two kinds of products: scores a b^T of rows in
// shared memory, and sums p b of weights that it has in registers. Weights are fp32 and stay so:
// the CPU's are, and a weight rounded to 8 or 11 bits would be seen in the result. They are split
// into parts that the tiles take, whose products are summed in fp32: a float is exactly three bf16
// (8 bits each), and two f16 hold 22 bits of it once it is scaled into their range. The price is
// 4 units of tensor work where 2 would do.
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
#else
#define TILES_UNROLL
#define TILES_UNROLL_TWO
#endif

namespace plumb::cuda::tiles {

// Scores or sums of a warp's 16 rows and `columns` columns, as multiply_tiles_* lays them: of tile
// n, lane (g, t) holds row g, columns 8n + 2t and the next, then the same of row g + 8.
template <int columns>
using Fragments = float[static_cast<size_t>(columns / 8)][4];

constexpr int kPadding = 8;
template <int depth>
constexpr int kRow = depth + kPadding;

struct LanePlace {
    int g;
    int t;
};
__device__ __forceinline__ int lane_index() {
    return static_cast<int>(threadIdx.x) % kWarp;
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

// Two neighbouring weights as pairs of parts.
template <typename T>
struct Split;
template <>
struct Split<Bf16> {
    static constexpr size_t kParts = 3;
    static __device__ __forceinline__ void of(float x, float y, uint32_t (&part)[kParts]) {
        for (uint32_t& pair : part) {
            const uint32_t high = bits_of(y) & 0xFFFF0000U;
            pair = bits_of(x) >> 16 | high;
            x -= float_of(bits_of(x) & 0xFFFF0000U);
            y -= float_of(high);
        }
    }
};
template <>
struct Split<F16> {
    static constexpr size_t kParts = 2;
    static __device__ __forceinline__ void of(float x, float y, uint32_t (&part)[kParts]) {
        for (uint32_t& pair : part) {
            const F16 low = narrow<F16>(x), high = narrow<F16>(y);
            pair = low.bits | static_cast<uint32_t>(high.bits) << 16;
            x -= widen(low);
            y -= widen(high);
        }
    }
};
// Probabilities times this lie well in f16's range, and 1 + a few ulps does too.
template <typename T>
constexpr float kProbabilityScale = 1.0F;
template <>
inline constexpr float kProbabilityScale<F16> = 16384.0F;

// Rows first .. first + count of `from` (row 0 at `from`), those beyond `valid` as zeros; by all
// threads of the block. Heads that are whole packs come asynchronously.
template <int depth, int threads, typename T>
__device__ __forceinline__ void load_rows(T* to, const T* from, int64_t row, int count,
                                          int64_t valid, int size) {
    if (size % kPack<T> == 0) {
        constexpr int kPacks = depth / kPack<T>;
        for (int i = static_cast<int>(threadIdx.x); i < count * kPacks; i += threads) {
            const int r = i / kPacks, d = i % kPacks * kPack<T>;
            const bool inside = r < valid && d < size;
            copy_async_16(to + r * kRow<depth> + d, inside ? from + r * row + d : from, inside);
        }
    } else {
        for (int i = static_cast<int>(threadIdx.x); i < count * depth; i += threads) {
            const int r = i / depth, d = i % depth;
            const bool inside = r < valid && d < size;
            to[r * kRow<depth> + d] = inside ? from[r * row + d] : T{0};
        }
    }
}

// scores = a b^T: the warp's 16 rows at a, `columns` rows at b.
template <int depth, int columns, typename T>
__device__ __forceinline__ void multiply_rows(Fragments<columns>& scores, const T* a, const T* b) {
    const int l = lane_index();
    const T* a_row = a + l % 16 * kRow<depth> + l / 16 * 8;
    const T* b_row = b + (l / 16 * 8 + l % 8) * kRow<depth> + l / 8 % 2 * 8;
    TILES_UNROLL
    for (auto& tile : scores)
        for (float& s : tile) s = 0.0F;
    TILES_UNROLL_TWO
    for (int d = 0; d < depth; d += 16) {
        uint32_t x[4];
        load_matrices(x, a_row + d);
        TILES_UNROLL
        for (int n = 0; n < columns; n += 16) {
            uint32_t y[4];
            load_matrices(y, b_row + n * kRow<depth> + d);
            multiply(scores[n / 8], x, {y[0], y[1]}, T{});
            multiply(scores[n / 8 + 1], x, {y[2], y[3]}, T{});
        }
    }
}

// sums += scale * weights b: the `rows` rows of `columns` values at b, or of a part of longer ones.
template <int columns, int rows, int depth = columns, typename T>
__device__ __forceinline__ void add_product(Fragments<columns>& sums,
                                            const Fragments<rows>& weights, const T* b,
                                            float scale) {
    constexpr size_t kParts = Split<T>::kParts;
    const int l = lane_index();
    const T* b_row = b + l % 16 * kRow<depth> + l / 16 * 8;
    TILES_UNROLL
    for (int j = 0; j < rows; j += 16) {
        uint32_t x[kParts][4];
        TILES_UNROLL
        for (int i = 0; i < 4; ++i) {
            const float* pair = weights[j / 8 + i / 2] + i % 2 * 2;
            uint32_t part[kParts];
            Split<T>::of(pair[0] * scale, pair[1] * scale, part);
            for (size_t k = 0; k < kParts; ++k) x[k][i] = part[k];
        }
        TILES_UNROLL
        for (int n = 0; n < columns; n += 16) {
            uint32_t y[4];
            load_matrices_transposed(y, b_row + j * kRow<depth> + n);
            for (size_t k = kParts; k-- > 0;) {
                multiply(sums[n / 8], x[k], {y[0], y[1]}, T{});
                multiply(sums[n / 8 + 1], x[k], {y[2], y[3]}, T{});
            }
        }
    }
}

// Rows g and g + 8 of the warp (row 0 at `to`), those below `valid`, from column `column` of a head
// of `size`: sums * factor of its row.
template <int columns, typename T>
__device__ __forceinline__ void store_rows(T* to, int64_t row, int64_t valid, int column, int size,
                                           const Fragments<columns>& sums,
                                           const float (&factor)[2]) {
    const LanePlace at = lane_place();
    TILES_UNROLL
    for (int half = 0; half < 2; ++half) {
        const int r = at.g + 8 * half;
        if (r >= valid) continue;
        T* line = to + r * row + column;
        TILES_UNROLL
        for (int n = 0; n < columns / 8; ++n) {
            const int d = 8 * n + 2 * at.t;
            const T x = narrow<T>(sums[n][2 * half] * factor[half]);
            const T y = narrow<T>(sums[n][2 * half + 1] * factor[half]);
            if (size % 2 == 0 && column + d < size) {
                *reinterpret_cast<uint32_t*>(line + d) = x.bits + (uint32_t{y.bits} << 16);
            } else {
                if (column + d < size) line[d] = x;
                if (column + d + 1 < size) line[d + 1] = y;
            }
        }
    }
}

// Whether a warp, whose rows g and g + 8 stand for queries that see these keys, has anything to do
// with keys [key, key + count), and whether it must look at each. Uniform over the warp.
struct TileUse {
    bool any;
    bool masked;
};
__device__ __forceinline__ TileUse tile_use(const KeyRange (&keys)[2], int64_t key, int count) {
    bool any = false, masked = false;
    for (const KeyRange& k : keys) {
        any = any || (k.low <= k.high && k.low < key + count && k.high >= key);
        masked = masked || k.low > key || k.high < key + count - 1;
    }
    return {__any_sync(kAllLanes, any ? 1 : 0) != 0, __any_sync(kAllLanes, masked ? 1 : 0) != 0};
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
