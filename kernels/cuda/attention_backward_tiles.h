// The gradients of attention on tensor-core tiles: 1 + 1 + 3 units of work for dq and 1 + 1 + 3 + 3
// for dk and dv, where three stands for the parts of fp32 weights (attention_tiles.h; two of f16).
// Path: hot.
#pragma once

#include "kernels/cuda/attention_gradient.h"
#include "kernels/cuda/attention_tiles.h"
#include "kernels/cuda/scratch.h"

namespace plumb::cuda::tiles {

// A block's own rows (16 a warp), the rows that pass by at once, columns of the results (wider
// heads are done in two parts, down the grid's y). Shared memory: the block's rows of two operands,
// and two pairs of passing tiles, of which one is filled while the other is read.
template <int depth, int passing>
struct Backward {
    static constexpr int kThreads = (depth > 128 ? 4 : 8) * kWarp;
    static constexpr int kOwn = kThreads / kWarp * 16;
    static constexpr int kPassing = passing;
    static constexpr int kColumns = depth > 128 ? depth / 2 : depth;
    static constexpr int kOwnTile = kOwn * kRow<depth>;
    static constexpr int kTile = kPassing * kRow<depth>;
    static constexpr int64_t kTilesBytes = (2 * kOwnTile + 4 * kTile) * 2;
};
template <int depth>
using QueryBlock = Backward<depth, (depth > 128 ? 32 : 64)>;
template <int depth>
using KeyBlock = Backward<depth, 32>;

// Gradients of scores have any size, which f16 has not: they are scaled by a power of two that
// brings the largest of this warp so far just below f16's. The sums follow.
template <int rows, int columns>
__device__ __forceinline__ void fit_scale(const Fragments<rows>&, Fragments<columns>&, float&,
                                          Bf16) {}
template <int rows, int columns>
__device__ __forceinline__ void fit_scale(const Fragments<rows>& weights, Fragments<columns>& sums,
                                          float& scale, F16) {
    float peak = 0.0F;
    TILES_UNROLL
    for (const auto& tile : weights)
        for (const float w : tile) {
            const float size = w < 0.0F ? -w : w;
            peak = size > peak ? size : peak;
        }
    const uint32_t exponent = bits_of(warp_max(peak)) >> 23;
    if (exponent == 255) return;  // overflowed already, and stays so
    // 2^(exponent - 127) <= peak < 2^(exponent - 126) becomes less than 2^15.
    const float fitting = float_of((exponent < 21 ? 247 : 268 - exponent) << 23);
    if (fitting >= scale) return;
    const float factor = fitting / scale;
    scale = fitting;
    TILES_UNROLL
    for (auto& tile : sums)
        for (float& s : tile) s *= factor;
}
template <typename T>
constexpr float kScaleMax = 1.0F;
template <>
inline constexpr float kScaleMax<F16> = 0x1p120F;

template <int depth, typename T>
__global__ void __launch_bounds__(QueryBlock<depth>::kThreads, 1) dq_tiles(AttentionGradient<T> g) {
    using F = QueryBlock<depth>;
    constexpr int kKeys = F::kPassing;
    const AttentionView<T>& x = g.x;
    T* q = reinterpret_cast<T*>(block_shared());
    T* d_o = q + F::kOwnTile;
    T* ring = d_o + F::kOwnTile;
    const QueryTask task = query_task(x, F::kOwn);
    const int column = static_cast<int>(blockIdx.y) * F::kColumns;
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    const LanePlace at = lane_place();
    const int64_t row = task.b * x.tokens + task.t, left = x.tokens - task.t;
    const int64_t o_row = static_cast<int64_t>(x.heads) * x.size;
    const int64_t head = static_cast<int64_t>(task.h) * x.size;
    const KeyRange all = keys_of_tile(x, task.b, task.t, F::kOwn);
    const int64_t key_0 = first_key(x, task.b, task.h);
    const auto fetch = [&](int32_t key, T* to) {
        const int64_t from = key_0 + key * x.kv_row, valid = all.high + 1 - key;
        load_rows<depth, F::kThreads>(to, x.k + from, x.kv_row, kKeys, valid, x.size);
        load_rows<depth, F::kThreads>(to + F::kTile, x.v + from, x.kv_row, kKeys, valid, x.size);
    };
    load_rows<depth, F::kThreads>(q, x.q + row * x.q_row + head, x.q_row, F::kOwn, left, x.size);
    load_rows<depth, F::kThreads>(d_o, g.d_o + row * o_row + head, o_row, F::kOwn, left, x.size);
    const int32_t begin = all.low / kKeys * kKeys;
    if (begin <= all.high) fetch(begin, ring);
    copy_async_commit();
    const int64_t t = task.t + warp * 16 + at.g;
    const QueryStats stats[2] = {stats_of(g, task.b, task.h, t),
                                 stats_of(g, task.b, task.h, t + 8)};
    const KeyRange keys[2] = {stats[0].keys, stats[1].keys};
    Fragments<F::kColumns> sums = {};
    float scale = kScaleMax<T>;
    for (int32_t key = begin, turn = 0; key <= all.high; key += kKeys, ++turn) {
        copy_async_wait<0>();
        __syncthreads();
        const T* tile = ring + turn % 2 * 2 * F::kTile;
        if (key + kKeys <= all.high) fetch(key + kKeys, ring + (turn + 1) % 2 * 2 * F::kTile);
        copy_async_commit();
        if (!tile_use(keys, key, kKeys).any) continue;
        Fragments<kKeys> s, ds;
        multiply_rows<depth, kKeys>(s, q + warp * 16 * kRow<depth>, tile);
        multiply_rows<depth, kKeys>(ds, d_o + warp * 16 * kRow<depth>, tile + F::kTile);
        TILES_UNROLL
        for (int n = 0; n < kKeys / 8; ++n)
            for (int i = 0; i < 4; ++i) {
                const int32_t index = key + 8 * n + 2 * at.t + i % 2;
                s[n][i] = probability(stats[i / 2], index, x.scale * kLog2E, s[n][i]);
                ds[n][i] = score_gradient(stats[i / 2], s[n][i], ds[n][i]);
            }
        fit_scale<kKeys, F::kColumns>(ds, sums, scale, T{});
        add_product<F::kColumns, kKeys, depth>(sums, ds, tile + column, scale);
    }
    copy_async_wait<0>();
    const float factor = x.scale / scale;
    store_rows<F::kColumns>(g.dq + (row + warp * 16) * x.q_row + head, x.q_row, left - warp * 16,
                            column, x.size, sums, {factor, factor});
}

// The last query of row b that sees a key up to `last`; -1: none. In every warp.
template <typename T>
__device__ __forceinline__ int32_t last_query(const AttentionView<T>& x, int64_t b, int32_t first,
                                              int32_t last) {
    const auto tokens = static_cast<int32_t>(x.tokens);
    int32_t found = -1;
    for (int32_t t = first + lane_index(); t < tokens; t += kWarp)
        if (keys_of(x, b, t).low <= last) found = t;
    return warp_max(found);
}

template <int depth>
constexpr int64_t kKeyBlockBytes =
    KeyBlock<depth>::kTilesBytes + 2 * KeyBlock<depth>::kPassing* int64_t{sizeof(QueryStats)};

template <int depth, typename T>
__global__ void __launch_bounds__(KeyBlock<depth>::kThreads, 1) dkv_tiles(AttentionGradient<T> g) {
    using F = KeyBlock<depth>;
    constexpr int kQueries = F::kPassing;
    static_assert(kQueries == kWarp);
    const AttentionView<T>& x = g.x;
    T* k = reinterpret_cast<T*>(block_shared());
    T* v = k + F::kOwnTile;
    T* ring = v + F::kOwnTile;
    auto* ring_stats = reinterpret_cast<QueryStats*>(ring + 4 * F::kTile);
    const KeyTask task = key_task(x, F::kOwn);
    const int column = static_cast<int>(blockIdx.y) * F::kColumns;
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    const LanePlace at = lane_place();
    const auto key = static_cast<int32_t>(task.key);
    const int64_t left = x.kv_tokens - key, o_row = static_cast<int64_t>(x.heads) * x.size;
    const int64_t from =
        (task.b * x.kv_tokens + key) * x.kv_row + static_cast<int64_t>(task.g) * x.size;
    // Query heads, and of each the tiles of queries, in order.
    const int32_t group = x.heads / x.kv_heads;
    const int32_t last = last_query(x, task.b, key, key + F::kOwn - 1);
    const int32_t tiles_each = last < 0 ? 0 : (last - key) / kQueries + 1;
    const auto fetch = [&](int32_t i) {
        const int32_t h = task.g * group + i / tiles_each;
        const int64_t t = key + i % tiles_each * kQueries;
        const int64_t row = task.b * x.tokens + t, head = static_cast<int64_t>(h) * x.size;
        T* to = ring + i % 2 * 2 * F::kTile;
        load_rows<depth, F::kThreads>(to, x.q + row * x.q_row + head, x.q_row, kQueries,
                                      x.tokens - t, x.size);
        load_rows<depth, F::kThreads>(to + F::kTile, g.d_o + row * o_row + head, o_row, kQueries,
                                      x.tokens - t, x.size);
        if (threadIdx.x < kQueries)
            ring_stats[i % 2 * kQueries + static_cast<int>(threadIdx.x)] =
                stats_of(g, task.b, h, t + static_cast<int64_t>(threadIdx.x));
    };
    load_rows<depth, F::kThreads>(k, x.k + from, x.kv_row, F::kOwn, left, x.size);
    load_rows<depth, F::kThreads>(v, x.v + from, x.kv_row, F::kOwn, left, x.size);
    if (tiles_each > 0) fetch(0);
    copy_async_commit();
    const int32_t own = key + warp * 16;
    Fragments<F::kColumns> dk = {}, dv = {};
    float scale = kScaleMax<T>;
    for (int32_t i = 0; i < group * tiles_each; ++i) {
        copy_async_wait<0>();
        __syncthreads();
        if (i + 1 < group * tiles_each) fetch(i + 1);
        copy_async_commit();
        const T* q = ring + i % 2 * 2 * F::kTile;
        const T* d_o = q + F::kTile;
        const QueryStats* stats = ring_stats + i % 2 * kQueries;
        const KeyRange mine = stats[lane_index()].keys;
        if (__any_sync(kAllLanes, mine.low < own + 16 && mine.high >= own ? 1 : 0) == 0) continue;
        // dv before ds is made: together they do not fit into the registers.
        Fragments<kQueries> s, ds;
        multiply_rows<depth, kQueries>(s, k + warp * 16 * kRow<depth>, q);
        TILES_UNROLL
        for (int n = 0; n < kQueries / 8; ++n)
            for (int e = 0; e < 4; ++e)
                s[n][e] = probability(stats[8 * n + 2 * at.t + e % 2], own + at.g + e / 2 * 8,
                                      x.scale * kLog2E, s[n][e]);
        add_product<F::kColumns, kQueries, depth>(dv, s, d_o + column, kProbabilityScale<T>);
        multiply_rows<depth, kQueries>(ds, v + warp * 16 * kRow<depth>, d_o);
        TILES_UNROLL
        for (int n = 0; n < kQueries / 8; ++n)
            for (int e = 0; e < 4; ++e)
                ds[n][e] = score_gradient(stats[8 * n + 2 * at.t + e % 2], s[n][e], ds[n][e]);
        fit_scale<kQueries, F::kColumns>(ds, dk, scale, T{});
        add_product<F::kColumns, kQueries, depth>(dk, ds, q + column, scale);
    }
    copy_async_wait<0>();
    const float k_factor = x.scale / scale, v_factor = 1.0F / kProbabilityScale<T>;
    const int64_t to = from + warp * 16 * x.kv_row;
    store_rows<F::kColumns>(g.dk + to, x.kv_row, left - warp * 16, column, x.size, dk,
                            {k_factor, k_factor});
    store_rows<F::kColumns>(g.dv + to, x.kv_row, left - warp * 16, column, x.size, dv,
                            {v_factor, v_factor});
}

template <int depth, typename T>
void launch_gradients(const AttentionGradient<T>& g, void* stream) {
    using Q = QueryBlock<depth>;
    using K = KeyBlock<depth>;
    static_assert(Q::kTilesBytes <= kBlockSharedMost && kKeyBlockBytes<depth> <= kBlockSharedMost);
    launch<dq_tiles<depth, T>>(
        {query_blocks(g.x, Q::kOwn), Q::kThreads, stream, Q::kTilesBytes, depth / Q::kColumns}, g);
    launch<dkv_tiles<depth, T>>(
        {key_blocks(g.x, K::kOwn), K::kThreads, stream, kKeyBlockBytes<depth>, depth / K::kColumns},
        g);
}

}  // namespace plumb::cuda::tiles
