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

// Queries (16 a warp) and keys at once, columns of o (wider heads are done in two parts, down the
// grid's y), and shared memory: the queries, then two pairs of tiles of keys and values, of which
// one is filled while the other is read.
template <int depth>
struct Forward {
    static constexpr int kThreads = 8 * kWarp;
    static constexpr int kQueries = 8 * 16;
    static constexpr int kKeys = depth > 128 ? 32 : 64;
    static constexpr int kColumns = depth > 128 ? depth / 2 : depth;
    static constexpr int kKeyTile = kKeys * tiles::kRow<depth>;
    static constexpr int kTiles = kKeyTile + kKeys * tiles::kRow<kColumns>;
    static constexpr int64_t kSharedBytes = (kQueries * tiles::kRow<depth> + 2 * kTiles) * 2;
};

// A row's running maximum (in units of log2) and sum: rows g and g + 8.
struct Running {
    float top[2];
    float total[2];
};

// Scores become exponentials; the sums so far and the total are rescaled to the new maximum.
template <int columns, int width>
__device__ __forceinline__ void softmax_step(tiles::Fragments<columns>& s, Running& run,
                                             tiles::Fragments<width>& sums, float scale) {
    TILES_UNROLL
    for (int half = 0; half < 2; ++half) {
        float peak = kMinusInfinity;
        TILES_UNROLL
        for (auto& tile : s)
            for (int n = 2 * half; n < 2 * half + 2; ++n) peak = tile[n] > peak ? tile[n] : peak;
        peak = tiles::row_max(peak) * scale;
        peak = peak > run.top[half] ? peak : run.top[half];
        const float base = peak == kMinusInfinity ? 0.0F : peak;
        const float shrink = exp2f(run.top[half] - base);
        float total = 0.0F;
        TILES_UNROLL
        for (auto& tile : s)
            for (int n = 2 * half; n < 2 * half + 2; ++n) {
                tile[n] = exp2f(tile[n] * scale - base);
                total += tile[n];
            }
        run.total[half] = run.total[half] * shrink + total;  // of this lane's columns
        run.top[half] = peak;
        TILES_UNROLL
        for (auto& tile : sums) {
            tile[2 * half] *= shrink;
            tile[2 * half + 1] *= shrink;
        }
    }
}

template <int depth, typename T>
__global__ void __launch_bounds__(Forward<depth>::kThreads, 1) attend_tiles(AttentionView<T> x) {
    using namespace tiles;
    using F = Forward<depth>;
    constexpr int kKeys = F::kKeys;
    T* q = reinterpret_cast<T*>(block_shared());
    T* ring = q + F::kQueries * kRow<depth>;
    const QueryTask task = query_task(x, F::kQueries);
    const int column = static_cast<int>(blockIdx.y) * F::kColumns;
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    const LanePlace at = lane_place();
    const int64_t row = task.b * x.tokens + task.t, left = x.tokens - task.t;
    const int64_t head = static_cast<int64_t>(task.h) * x.size;
    const KeyRange all = keys_of_tile(x, task.b, task.t, F::kQueries);
    const int64_t key_0 = first_key(x, task.b, task.h);
    const auto fetch = [&](int64_t key, T* to) {
        const int64_t from = key_0 + key * x.kv_row, valid = all.high + 1 - key;
        load_rows<depth, F::kThreads>(to, x.k + from, x.kv_row, kKeys, valid, x.size);
        load_rows<F::kColumns, F::kThreads>(to + F::kKeyTile, x.v + from + column, x.kv_row, kKeys,
                                            valid, x.size - column);
    };
    const int64_t begin = all.low / kKeys * kKeys;
    load_rows<depth, F::kThreads>(q, x.q + row * x.q_row + head, x.q_row, F::kQueries, left,
                                  x.size);
    if (begin <= all.high) fetch(begin, ring);
    copy_async_commit();
    const int64_t t = task.t + warp * 16 + at.g;
    const KeyRange keys[2] = {keys_of(x, task.b, t), keys_of(x, task.b, t + 8)};
    Running run{{kMinusInfinity, kMinusInfinity}, {0.0F, 0.0F}};
    Fragments<F::kColumns> sums = {};
    for (int64_t key = begin, turn = 0; key <= all.high; key += kKeys, ++turn) {
        copy_async_wait<0>();
        __syncthreads();
        const T* tile = ring + turn % 2 * F::kTiles;
        if (key + kKeys <= all.high) fetch(key + kKeys, ring + (turn + 1) % 2 * F::kTiles);
        copy_async_commit();
        const TileUse use = tile_use(keys, key, kKeys);
        if (!use.any) continue;
        Fragments<kKeys> s;
        multiply_rows<depth, kKeys>(s, q + warp * 16 * kRow<depth>, tile);
        if (use.masked) TILES_UNROLL
        for (int n = 0; n < kKeys / 8; ++n)
            for (int i = 0; i < 4; ++i) {
                const int64_t index = key + 8 * n + 2 * at.t + i % 2;
                if (index < keys[i / 2].low || index > keys[i / 2].high) s[n][i] = kMinusInfinity;
            }
        softmax_step<kKeys, F::kColumns>(s, run, sums, x.scale * kLog2E);
        add_product<F::kColumns, kKeys>(sums, s, tile + F::kKeyTile, kProbabilityScale<T>);
    }
    copy_async_wait<0>();
    float inverse[2];
    for (int half = 0; half < 2; ++half) {
        const float total = row_sum(run.total[half]);
        inverse[half] = total > 0.0F ? 1.0F / (total * kProbabilityScale<T>) : total;
        if (x.lse != nullptr && at.t == 0 && column == 0 && t + 8 * half < x.tokens)
            x.lse[(task.b * x.heads + task.h) * x.tokens + t + 8 * half] =
                (run.top[half] + log2f(total)) * kLn2;
    }
    const int64_t o_row = static_cast<int64_t>(x.heads) * x.size;
    store_rows<F::kColumns>(x.o + (row + warp * 16) * o_row + head, o_row, left - warp * 16, column,
                            x.size, sums, inverse);
}

template <int depth, typename T>
void attend_depth(const AttentionView<T>& x, void* stream) {
    using F = Forward<depth>;
    static_assert(F::kSharedBytes <= kBlockSharedMost);
    launch<attend_tiles<depth, T>>(
        {query_blocks(x, F::kQueries), F::kThreads, stream, F::kSharedBytes, depth / F::kColumns},
        x);
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
