// The gradients of attention on tensor-core tiles: three products for dq, and four for dk and dv,
// of which two are those of dq made again. Five would do if blocks of keys could add to dq; none
// may, since such sums would be in no fixed order. Tile shapes are chosen by the registers that
// sums and scores take, and by the cycles that loads from shared memory take (attention_tiles.h).
// Path: hot.
#pragma once

#include "kernels/cuda/attention_gradient.h"
#include "kernels/cuda/attention_tiles.h"
#include "kernels/cuda/scratch.h"

namespace plumb::cuda::tiles {

// A block's own rows, the rows that pass by at once, columns of the results (dk and dv of wide
// heads are done in two parts, down the grid's y), and shared memory: the block's rows of two
// operands, two pairs of passing tiles, of which one is filled while the other is read, and of
// queries what QueryStats are.
template <int depth, int parts, int warps, int passing, int columns, int blocks>
struct Backward {
    static constexpr int kParts = parts;
    static constexpr int kThreads = warps * kWarp;
    static constexpr int kBlocks = blocks;
    static constexpr int kWarpRows = 16 * parts;
    static constexpr int kOwn = warps * kWarpRows;
    static constexpr int kPassing = passing;
    static constexpr int kColumns = columns;
    static constexpr int kOwnTile = kOwn * kRow<depth>;
    static constexpr int kTile = kPassing * kRow<depth>;
    static constexpr int64_t kTilesBytes = (2 * kOwnTile + 4 * kTile) * 2;
};
// A warp has sums and two kinds of scores in registers. For dq 32 queries fit, 128 + 64 registers
// of head size 128: a tile of 32 x 32 scores is 192 tiles multiplied for 80 loads, 1.67 cycles
// each, two blocks of 105 KiB on sm_90 (sm_80 has room for one). Of head size 64, 64 keys: 1.33
// cycles.
template <int depth>
using QueryBlock =
    Backward<depth, (depth > 128 ? 1 : 2), 4, (depth > 64 ? 32 : 64), depth, (depth > 128 ? 1 : 2)>;
// dk and dv are two sums: 32 keys fit up to head size 64 (128 + 64 registers, 1.5 cycles). Beyond,
// 16 keys and 64 queries: of head size 128, 256 tiles multiplied for 144 loads, 2.25 cycles each.
template <int depth>
using KeyBlock = Backward<depth, (depth > 64 ? 1 : 2), (depth > 64 && depth <= 128 ? 8 : 4),
                          (depth > 64 && depth <= 128 ? 64 : 32), (depth > 128 ? depth / 2 : depth),
                          (depth > 64 ? 1 : 2)>;

// Gradients of scores have any size, which f16 has not: they are scaled by a power of two that
// brings the largest of this warp so far just below f16's. The sums follow.
template <int parts, int rows, int columns>
__device__ __forceinline__ void fit_scale(const Fragments<parts, rows>&, Fragments<parts, columns>&,
                                          float&, Bf16) {}
template <int parts, int rows, int columns>
__device__ __forceinline__ void fit_scale(const Fragments<parts, rows>& weights,
                                          Fragments<parts, columns>& sums, float& scale, F16) {
    float peak = 0.0F;
    TILES_UNROLL
    for (const auto& part : weights.of_part)
        for (const auto& tile : part)
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
    for (auto& part : sums.of_part)
        for (auto& tile : part)
            for (float& s : tile) s *= factor;
}
template <typename T>
constexpr float kScaleMax = 1.0F;
template <>
inline constexpr float kScaleMax<F16> = 0x1p120F;

template <int depth>
constexpr int64_t kQueryBlockBytes =
    QueryBlock<depth>::kTilesBytes + QueryBlock<depth>::kOwn* int64_t{sizeof(KeyRange)};

template <int depth, typename T>
__global__ void __launch_bounds__(QueryBlock<depth>::kThreads, QueryBlock<depth>::kBlocks)
    dq_tiles(AttentionGradient<T> g) {
    using F = QueryBlock<depth>;
    constexpr int kKeys = F::kPassing, kParts = F::kParts;
    const AttentionView<T>& x = g.x;
    T* q = reinterpret_cast<T*>(block_shared());
    T* d_o = q + F::kOwnTile;
    T* ring = d_o + F::kOwnTile;
    const QueryTask task = query_task(x, F::kOwn);
    const int first = static_cast<int>(threadIdx.x / kWarp) * F::kWarpRows;  // of the warp
    const int own = first * kRow<depth>;
    const LanePlace at = lane_place();
    const int64_t row = task.b * x.tokens + task.t, left = x.tokens - task.t;
    const int64_t o_row = static_cast<int64_t>(x.heads) * x.size;
    const int64_t head = static_cast<int64_t>(task.h) * x.size;
    const KeyRange all = keys_of_tile(x, task.b, task.t, F::kOwn);
    const int64_t key_0 = first_key(x, task.b, task.h);
    const auto fetch = [&](int32_t key, T* to) {
        const int64_t from = key_0 + key * x.kv_row;
        const int32_t valid = all.high + 1 - key;
        load_rows<depth, F::kThreads>(to, x.k + from, x.kv_row, kKeys, valid, x.size);
        load_rows<depth, F::kThreads>(to + F::kTile, x.v + from, x.kv_row, kKeys, valid, x.size);
    };
    load_rows<depth, F::kThreads>(q, x.q + row * x.q_row + head, x.q_row, F::kOwn, left, x.size);
    load_rows<depth, F::kThreads>(d_o, g.d_o + row * o_row + head, o_row, F::kOwn, left, x.size);
    const int32_t begin = all.low / kKeys * kKeys;
    if (begin <= all.high) fetch(begin, ring);
    copy_async_commit();
    auto* keys = reinterpret_cast<KeyRange*>(ring + 4 * F::kTile) + first;
    SeenKeys seen = seen_nothing();
    for (int i = lane_index(); i < F::kWarpRows; i += kWarp) {
        keys[i] = keys_of(x, task.b, task.t + first + i);
        add_seen(seen, keys[i]);
    }
    seen = seen_by_warp(seen);
    float lse[2 * kParts], delta[2 * kParts];
    for (int i = 0; i < 2 * kParts; ++i) {
        const QueryStats stats = stats_of(g, task.b, task.h, task.t + first + at.g + 8 * i);
        lse[i] = stats.lse;
        delta[i] = stats.delta;
    }
    Fragments<kParts, depth> sums = {};
    float scale = kScaleMax<T>;
    for (int32_t key = begin, turn = 0; key <= all.high; key += kKeys, ++turn) {
        copy_async_wait<0>();
        __syncthreads();
        const T* tile = ring + turn % 2 * 2 * F::kTile;
        if (key + kKeys <= all.high) fetch(key + kKeys, ring + (turn + 1) % 2 * 2 * F::kTile);
        copy_async_commit();
        if (!uses(seen, key, kKeys)) continue;
        Fragments<kParts, kKeys> s, ds;
        multiply_rows<depth>(s, q + own, tile);
        if (masks(seen, key, kKeys)) TILES_UNROLL
        for (int i = 0; i < 2 * kParts; ++i)
            mask_row<kKeys>(s[i / 2], i % 2, keys[at.g + 8 * i], key);
        multiply_rows<depth>(ds, d_o + own, tile + F::kTile);
        TILES_UNROLL
        for (int m = 0; m < kParts; ++m)
            for (int n = 0; n < kKeys / 8; ++n)
                for (int i = 0; i < 4; ++i) {
                    const int r = 2 * m + i / 2;
                    const float p = exp2_of(fmaf(s[m][n][i], x.scale * kLog2E, -lse[r]));
                    ds[m][n][i] = p * (ds[m][n][i] - delta[r]);
                }
        fit_scale(ds, sums, scale, T{});
        add_product<depth>(sums, ds, tile, scale);
    }
    copy_async_wait<0>();
    float factor[2 * kParts];
    for (float& f : factor) f = x.scale / scale;
    store_rows<depth>(g.dq + (row + first) * x.q_row + head, x.q_row, left - first, 0, x.size, sums,
                      factor, q + own);
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

// What a block of keys reads of a tile of queries.
template <int count>
struct PassingStats {
    float lse[static_cast<size_t>(count)];
    float delta[static_cast<size_t>(count)];
    KeyRange keys[static_cast<size_t>(count)];
};
template <int depth>
using KeyBlockStats = PassingStats<KeyBlock<depth>::kPassing>;
template <int depth>
constexpr int64_t kKeyBlockBytes =
    KeyBlock<depth>::kTilesBytes + 2 * int64_t{sizeof(KeyBlockStats<depth>)};

// Scores of keys, rows g and g + 8 of part m from `key` on, are -inf for queries that do not see
// them.
template <int parts, int columns>
__device__ __forceinline__ void mask_columns(Fragments<parts, columns>& s, const KeyRange* queries,
                                             int32_t key) {
    const LanePlace at = lane_place();
    TILES_UNROLL
    for (int n = 0; n < columns / 8; ++n)
        for (int i = 0; i < 2; ++i) {
            const KeyRange keys = queries[8 * n + 2 * at.t + i];
            const int32_t low = keys.low - key - at.g, high = keys.high - key - at.g;
            for (int r = 0; r < 2 * parts; ++r)
                if (8 * r < low || 8 * r > high) s[r / 2][n][r % 2 * 2 + i] = kMinusInfinity;
        }
}

template <int depth, typename T>
__global__ void __launch_bounds__(KeyBlock<depth>::kThreads, KeyBlock<depth>::kBlocks)
    dkv_tiles(AttentionGradient<T> g) {
    using F = KeyBlock<depth>;
    constexpr int kQueries = F::kPassing, kParts = F::kParts;
    const AttentionView<T>& x = g.x;
    T* k = reinterpret_cast<T*>(block_shared());
    T* v = k + F::kOwnTile;
    T* ring = v + F::kOwnTile;
    auto* ring_stats = reinterpret_cast<KeyBlockStats<depth>*>(ring + 4 * F::kTile);
    const KeyTask task = key_task(x, F::kOwn);
    const int column = static_cast<int>(blockIdx.y) * F::kColumns;
    const int first = static_cast<int>(threadIdx.x / kWarp) * F::kWarpRows;  // of the warp
    const int own = first * kRow<depth>;
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
        const int32_t t = key + i % tiles_each * kQueries;
        const int32_t valid = static_cast<int32_t>(x.tokens) - t;
        const int64_t row = task.b * x.tokens + t, head = static_cast<int64_t>(h) * x.size;
        T* to = ring + i % 2 * 2 * F::kTile;
        load_rows<depth, F::kThreads>(to, x.q + row * x.q_row + head, x.q_row, kQueries, valid,
                                      x.size);
        load_rows<depth, F::kThreads>(to + F::kTile, g.d_o + row * o_row + head, o_row, kQueries,
                                      valid, x.size);
        const int n = static_cast<int>(threadIdx.x);
        if (n >= kQueries) return;
        const QueryStats stats = stats_of(g, task.b, h, int64_t{t} + n);
        KeyBlockStats<depth>& tile = ring_stats[i % 2];
        tile.lse[n] = stats.lse;
        tile.delta[n] = stats.delta;
        tile.keys[n] = stats.keys;
    };
    load_rows<depth, F::kThreads>(k, x.k + from, x.kv_row, F::kOwn, left, x.size);
    load_rows<depth, F::kThreads>(v, x.v + from, x.kv_row, F::kOwn, left, x.size);
    if (tiles_each > 0) fetch(0);
    copy_async_commit();
    Fragments<kParts, F::kColumns> dk = {}, dv = {};
    float scale = kScaleMax<T>;
    for (int32_t i = 0; i < group * tiles_each; ++i) {
        copy_async_wait<0>();
        __syncthreads();
        if (i + 1 < group * tiles_each) fetch(i + 1);
        copy_async_commit();
        const T* q = ring + i % 2 * 2 * F::kTile;
        const T* d_o = q + F::kTile;
        const KeyBlockStats<depth>& stats = ring_stats[i % 2];
        SeenKeys seen = seen_nothing();
        for (int n = lane_index(); n < kQueries; n += kWarp) add_seen(seen, stats.keys[n]);
        seen = seen_by_warp(seen);
        if (!uses(seen, key + first, F::kWarpRows)) continue;
        // dv before ds is made: together they do not fit into the registers.
        Fragments<kParts, kQueries> s, ds;
        multiply_rows<depth>(s, k + own, q);
        if (masks(seen, key + first, F::kWarpRows)) mask_columns(s, stats.keys, key + first);
        TILES_UNROLL
        for (int n = 0; n < kQueries / 8; ++n)
            for (int e = 0; e < 2; ++e) {
                const float lse = stats.lse[8 * n + 2 * at.t + e];
                for (int r = 0; r < 2 * kParts; ++r) {
                    float& p = s[r / 2][n][r % 2 * 2 + e];
                    p = exp2_of(fmaf(p, x.scale * kLog2E, -lse));
                }
            }
        add_product<depth>(dv, s, d_o + column, kProbabilityScale<T>);
        multiply_rows<depth>(ds, v + own, d_o);
        TILES_UNROLL
        for (int n = 0; n < kQueries / 8; ++n)
            for (int e = 0; e < 2; ++e) {
                const float delta = stats.delta[8 * n + 2 * at.t + e];
                for (int r = 0; r < 2 * kParts; ++r) {
                    float& d = ds[r / 2][n][r % 2 * 2 + e];
                    d = s[r / 2][n][r % 2 * 2 + e] * (d - delta);
                }
            }
        fit_scale(ds, dk, scale, T{});
        add_product<depth>(dk, ds, q + column, scale);
    }
    copy_async_wait<0>();
    float k_factor[2 * kParts], v_factor[2 * kParts];
    for (float& f : k_factor) f = x.scale / scale;
    for (float& f : v_factor) f = 1.0F / kProbabilityScale<T>;
    const int64_t to = from + first * x.kv_row;
    store_rows<depth>(g.dk + to, x.kv_row, left - first, column, x.size, dk, k_factor, k + own);
    store_rows<depth>(g.dv + to, x.kv_row, left - first, column, x.size, dv, v_factor, v + own);
}

template <int depth, typename T>
void launch_gradients(const AttentionGradient<T>& g, void* stream) {
    using Q = QueryBlock<depth>;
    using K = KeyBlock<depth>;
    static_assert(kQueryBlockBytes<depth> <= kBlockSharedMost);
    static_assert(kKeyBlockBytes<depth> <= kBlockSharedMost);
    launch<dq_tiles<depth, T>>(
        {query_blocks(g.x, Q::kOwn), Q::kThreads, stream, kQueryBlockBytes<depth>}, g);
    launch<dkv_tiles<depth, T>>(
        {key_blocks(g.x, K::kOwn), K::kThreads, stream, kKeyBlockBytes<depth>, depth / K::kColumns},
        g);
}

}  // namespace plumb::cuda::tiles
