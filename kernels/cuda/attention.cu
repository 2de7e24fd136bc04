#include "kernels/cuda/attention_plain.h"
#include "kernels/cuda/attention_tiles.h"
#include "kernels/cuda/kernel_list.h"
#include "kernels/cuda/scratch.h"

namespace plumb::cuda {

namespace {

// Scores are kept as they come out of q.k; exp(scale * (s - max)) is exp2 of one multiply-add. All
// that is said about a row is said in units of log2: top = max * scale * log2(e).
template <int width, typename T>
__global__ void __launch_bounds__(plain::kThreads, 1) attend_plain(AttentionView<T> x) {
    using namespace plain;
    auto* stage = reinterpret_cast<float*>(block_shared());
    float* p = stage + kStageFloats;
    const QueryTask task = query_task(x, kSide);
    const Place at = place();
    const int column = static_cast<int>(blockIdx.y) * kColumnsMax;
    const int64_t row = task.b * x.tokens + task.t, left = x.tokens - task.t;
    const Rows<T> q{x.q + row * x.q_row + task.h * x.size, x.q_row, left};
    const int64_t key_0 = first_key(x, task.b, task.h);
    const KeyRange all = keys_of_tile(x, task.b, task.t, kSide);
    const float scale = x.scale * kLog2E;
    KeyRange keys[4];
    float top[4], total[4];
    Sums<width> sums = {};
    for (int i = 0; i < 4; ++i) {
        keys[i] = keys_of(x, task.b, task.t + 4 * at.y + i);
        top[i] = kMinusInfinity;
        total[i] = 0.0F;
    }
    for (int64_t key = all.low / kSide * kSide; key <= all.high; key += kSide) {
        const int64_t from = key_0 + key * x.kv_row, count = all.high + 1 - key;
        float s[4][4];
        multiply_rows(s, q, Rows<T>{x.k + from, x.kv_row, count}, x.size, stage);
        for (int i = 0; i < 4; ++i) {
            float peak = kMinusInfinity;
            for (int j = 0; j < 4; ++j) {
                const int64_t index = key + 4 * at.x + j;
                if (index < keys[i].low || index > keys[i].high) s[i][j] = kMinusInfinity;
                peak = s[i][j] > peak ? s[i][j] : peak;
            }
            peak = row_max(peak) * scale;
            peak = peak > top[i] ? peak : top[i];
            // A query that has seen no key yet keeps -inf: exp2(-inf - 0) is 0.
            const float base = peak == kMinusInfinity ? 0.0F : peak;
            const float shrink = exp2f(top[i] - base);
            float sum = 0.0F;
            for (int j = 0; j < 4; ++j) {
                s[i][j] = exp2f(s[i][j] * scale - base);
                sum += s[i][j];
            }
            total[i] = total[i] * shrink + row_sum(sum);
            top[i] = peak;
            for (float& v : sums[i]) v *= shrink;
        }
        share(p, s);
        add_product<width>(sums, p, Rows<T>{x.v + from, x.kv_row, count}, column, x.size, stage);
    }
    float inverse[4];
    for (int i = 0; i < 4; ++i) {
        const int64_t t = task.t + 4 * at.y + i;
        inverse[i] = total[i] > 0.0F ? 1.0F / total[i] : total[i];
        if (x.lse != nullptr && at.x == 0 && blockIdx.y == 0 && t < x.tokens)
            x.lse[(task.b * x.heads + task.h) * x.tokens + t] = (top[i] + log2f(total[i])) * kLn2;
    }
    store_rows<width>(x.o + (row * x.heads + task.h) * x.size,
                      static_cast<int64_t>(x.heads) * x.size, left, column, x.size, sums, inverse);
}

template <typename T>
void attend_plainly(const AttentionView<T>& x, void* stream) {
    const Launch at{query_blocks(x, plain::kSide), plain::kThreads, stream, plain::kSharedBytes,
                    plain::column_parts(x.size)};
    if (x.size <= plain::kSide)
        launch<attend_plain<1, T>>(at, x);
    else
        launch<attend_plain<2, T>>(at, x);
}

// A block's queries, keys at once, and shared memory: the queries, then two pairs of tiles of keys
// and values, of which one is filled while the other is read.
//
// A warp takes 32 queries up to a head size of 128: then sums are 128 registers and scores of 64
// keys 64 of at most 255. Of head size 128, a tile of 32 x 64 scores is 256 tiles multiplied for 80
// loads, 1.25 cycles each (with 16 queries 2.25), and 2048 exponentials, 128 cycles of the 16 a
// cycle. 8 warps share keys and values: one block of 138 KiB and of all registers. Up to head size
// 64, blocks are of 4 warps and 55 KiB, of which a multiprocessor takes two by their registers
// (225; three of head size 32). Of head size 256 sums of 16 queries are 128 registers.
template <int depth>
struct Forward {
    static constexpr int kParts = depth > 128 ? 1 : 2;
    static constexpr int kWarps = depth > 64 ? 8 : 4;
    static constexpr int kBlocks = depth > 64 ? 1 : 2;
    static constexpr int kThreads = kWarps * kWarp;
    static constexpr int kWarpQueries = 16 * kParts;
    static constexpr int kQueries = kWarps * kWarpQueries;
    static constexpr int kKeys = depth > 128 ? 32 : 64;
    static constexpr int kTile = kKeys * tiles::kRow<depth>;
    static constexpr int64_t kSharedBytes =
        (kQueries * tiles::kRow<depth> + 4 * kTile) * 2 + kQueries * int64_t{sizeof(KeyRange)};
};

// A query's base, which is its running maximum in units of log2, less kProbabilityBits so that
// 2^(score - base) comes scaled at no cost, and the sum of those: rows g + 8 i.
template <int parts>
struct Running {
    float base[2 * parts];
    float total[2 * parts];
};

// Scores become exponentials; the sums so far and the total are rescaled to the new maximum. A
// query that has seen no key yet keeps -inf: exp2(-inf - 0) is 0.
template <int parts, int columns, int width>
__device__ __forceinline__ void softmax_step(tiles::Fragments<parts, columns>& s,
                                             Running<parts>& run,
                                             tiles::Fragments<parts, width>& sums, float scale,
                                             float bits) {
    float base[2 * parts], shrink[2 * parts];
    bool grown = false;
    TILES_UNROLL
    for (int i = 0; i < 2 * parts; ++i) {
        const int e = i % 2 * 2;
        float peak = kMinusInfinity;
        TILES_UNROLL
        for (const auto& tile : s[i / 2])
            for (int n = e; n < e + 2; ++n) peak = tile[n] > peak ? tile[n] : peak;
        peak = fmaf(tiles::row_max(peak), scale, -bits);
        grown = grown || peak > run.base[i];
        peak = peak > run.base[i] ? peak : run.base[i];
        base[i] = peak == kMinusInfinity ? 0.0F : peak;
        shrink[i] = exp2_of(run.base[i] - base[i]);
        run.base[i] = peak;
        run.total[i] *= shrink[i];
    }
    // Most tiles raise no maximum: all factors are 1.
    if (__any_sync(kAllLanes, grown ? 1 : 0) != 0) TILES_UNROLL
    for (int m = 0; m < parts; ++m)
        for (auto& tile : sums[m])
            for (int n = 0; n < 4; ++n) tile[n] *= shrink[2 * m + n / 2];
    TILES_UNROLL
    for (int i = 0; i < 2 * parts; ++i) {
        float total = 0.0F;
        TILES_UNROLL
        for (auto& tile : s[i / 2])
            for (int n = i % 2 * 2; n < i % 2 * 2 + 2; ++n) {
                tile[n] = exp2_of(fmaf(tile[n], scale, -base[i]));
                total += tile[n];
            }
        run.total[i] += total;  // of this lane's columns
    }
}

template <int depth, typename T>
__global__ void __launch_bounds__(Forward<depth>::kThreads, Forward<depth>::kBlocks)
    attend_tiles(AttentionView<T> x) {
    using namespace tiles;
    using F = Forward<depth>;
    constexpr int kKeys = F::kKeys, kParts = F::kParts;
    T* q = reinterpret_cast<T*>(block_shared());
    T* ring = q + F::kQueries * kRow<depth>;
    const QueryTask task = query_task(x, F::kQueries);
    const int first = static_cast<int>(threadIdx.x / kWarp) * F::kWarpQueries;  // of the warp
    T* own = q + first * kRow<depth>;
    const LanePlace at = lane_place();
    const int64_t row = task.b * x.tokens + task.t, left = x.tokens - task.t;
    const int64_t head = static_cast<int64_t>(task.h) * x.size;
    const KeyRange all = keys_of_tile(x, task.b, task.t, F::kQueries);
    const int64_t key_0 = first_key(x, task.b, task.h);
    const auto fetch = [&](int32_t key, T* to) {
        const int64_t from = key_0 + key * x.kv_row;
        const int32_t valid = all.high + 1 - key;
        load_rows<depth, F::kThreads>(to, x.k + from, x.kv_row, kKeys, valid, x.size);
        load_rows<depth, F::kThreads>(to + F::kTile, x.v + from, x.kv_row, kKeys, valid, x.size);
    };
    const int32_t begin = all.low / kKeys * kKeys;
    load_rows<depth, F::kThreads>(q, x.q + row * x.q_row + head, x.q_row, F::kQueries, left,
                                  x.size);
    if (begin <= all.high) fetch(begin, ring);
    copy_async_commit();
    // In shared memory, because few tiles need them and registers are full.
    auto* keys = reinterpret_cast<KeyRange*>(ring + 4 * F::kTile) + first;
    SeenKeys seen = seen_nothing();
    for (int i = lane_index(); i < F::kWarpQueries; i += kWarp) {
        keys[i] = keys_of(x, task.b, task.t + first + i);
        add_seen(seen, keys[i]);
    }
    seen = seen_by_warp(seen);
    Running<kParts> run;
    for (int i = 0; i < 2 * kParts; ++i) {
        run.base[i] = kMinusInfinity;
        run.total[i] = 0.0F;
    }
    Fragments<kParts, depth> sums = {};
    for (int32_t key = begin, turn = 0; key <= all.high; key += kKeys, ++turn) {
        copy_async_wait<0>();
        __syncthreads();
        const T* tile = ring + turn % 2 * 2 * F::kTile;
        if (key + kKeys <= all.high) fetch(key + kKeys, ring + (turn + 1) % 2 * 2 * F::kTile);
        copy_async_commit();
        if (!uses(seen, key, kKeys)) continue;
        Fragments<kParts, kKeys> s;
        multiply_rows<depth>(s, own, tile);
        if (masks(seen, key, kKeys)) TILES_UNROLL
        for (int i = 0; i < 2 * kParts; ++i)
            mask_row<kKeys>(s[i / 2], i % 2, keys[at.g + 8 * i], key);
        softmax_step(s, run, sums, x.scale * kLog2E, static_cast<float>(kProbabilityBits<T>));
        add_product<depth>(sums, s, tile + F::kTile, 1.0F);
    }
    copy_async_wait<0>();
    const int64_t t = task.t + first + at.g;
    float inverse[2 * kParts];
    for (int i = 0; i < 2 * kParts; ++i) {
        const float total = row_sum(run.total[i]);
        inverse[i] = total > 0.0F ? 1.0F / total : total;
        if (x.lse != nullptr && at.t == 0 && t + 8 * i < x.tokens)
            x.lse[(task.b * x.heads + task.h) * x.tokens + t + 8 * i] =
                (run.base[i] + log2f(total)) * kLn2;
    }
    const int64_t o_row = static_cast<int64_t>(x.heads) * x.size;
    store_rows<depth>(x.o + (row + first) * o_row + head, o_row, left - first, 0, x.size, sums,
                      inverse, own);
}

template <int depth, typename T>
void attend_depth(const AttentionView<T>& x, void* stream) {
    using F = Forward<depth>;
    static_assert(F::kSharedBytes <= kBlockSharedMost);
    launch<attend_tiles<depth, T>>(
        {query_blocks(x, F::kQueries), F::kThreads, stream, F::kSharedBytes}, x);
}
template <typename T>
void attention(const KernelArgs& args) noexcept {
    using O = AttentionOperands;
    AttentionView<T> x = training_view<T>(args, args.shape[O::qkv], args.at<T>(O::qkv));
    ASSERT(args.shape[O::o].last() == static_cast<int64_t>(x.heads) * x.size);
    x.starts = args.at<int32_t>(O::segment_start);
    x.o = args.at<T>(O::o);
    x.lse = args.at<float>(O::lse);
    attend(x, args.stream);
}

}  // namespace

template <typename T>
void attend(const AttentionView<T>& x, void* stream) noexcept {
    if constexpr (sizeof(T) < sizeof(float))
        if (x.size <= tiles::kDepthMax) {
            tiles::with_depth(x.size, [&]<int depth>() { attend_depth<depth>(x, stream); });
            return;
        }
    attend_plainly(x, stream);
}
template void attend(const AttentionView<float>&, void*) noexcept;
template void attend(const AttentionView<Bf16>&, void*) noexcept;
template void attend(const AttentionView<F16>&, void*) noexcept;

void add_attention(KernelTable& table) noexcept {
    set_kernels(table, OpKind::attention, attention<float>, attention<Bf16>, attention<F16>);
}

}  // namespace plumb::cuda
