#include "kernels/cuda/attention_backward_tiles.h"
#include "kernels/cuda/attention_plain.h"
#include "kernels/cuda/kernel_list.h"
#include "kernels/cuda/scratch.h"

namespace plumb::cuda {

namespace {

constexpr int kDeltaThreads = 256;

// delta[b, h, t] = o . do; `lanes` neighbours, a power of two up to a warp, take a row.
template <typename T>
__global__ void __launch_bounds__(kDeltaThreads)
    attention_delta(float* delta, const T* o, const T* d_o, int64_t rows, int64_t tokens,
                    int64_t heads, int64_t size, int lanes) {
    const int64_t row = (static_cast<int64_t>(blockIdx.x) * kDeltaThreads + threadIdx.x) / lanes;
    const int lane = static_cast<int>(threadIdx.x) % lanes;
    const bool packed = size % kPack<T> == 0;
    const int step = packed ? kPack<T> : 1;
    float sum = 0.0F;
    for (int64_t d = lane * step; row < rows && d < size; d += lanes * step) {
        const Pack<T> x = load_step(o + row * size + d, packed);
        const Pack<T> y = load_step(d_o + row * size + d, packed);
        // Past one value there are zeros.
        for (int n = 0; n < kPack<T>; ++n) sum += widen(x.value[n]) * widen(y.value[n]);
    }
    for (int n = lanes / 2; n > 0; n /= 2) sum += __shfl_xor_sync(kAllLanes, sum, n);
    const int64_t h = row % heads, t = row / heads % tokens, b = row / heads / tokens;
    if (row < rows && lane == 0) delta[(b * heads + h) * tokens + t] = sum;
}

template <int width, typename T>
__global__ void __launch_bounds__(plain::kThreads, 1) dq_plain(AttentionGradient<T> g) {
    using namespace plain;
    const AttentionView<T>& x = g.x;
    auto* stage = reinterpret_cast<float*>(block_shared());
    float* p = stage + kStageFloats;
    const QueryTask task = query_task(x, kSide);
    const Place at = place();
    const int column = static_cast<int>(blockIdx.y) * kColumnsMax;
    const int64_t row = task.b * x.tokens + task.t, left = x.tokens - task.t;
    const int64_t o_row = static_cast<int64_t>(x.heads) * x.size, head = task.h * x.size;
    const Rows<T> q{x.q + row * x.q_row + head, x.q_row, left};
    const Rows<T> d_o{g.d_o + row * o_row + head, o_row, left};
    const int64_t key_0 = first_key(x, task.b, task.h);
    const KeyRange all = keys_of_tile(x, task.b, task.t, kSide);
    QueryStats stats[4];
    for (int i = 0; i < 4; ++i) stats[i] = stats_of(g, task.b, task.h, task.t + 4 * at.y + i);
    Sums<width> sums = {};
    for (int64_t key = all.low / kSide * kSide; key <= all.high; key += kSide) {
        const int64_t from = key_0 + key * x.kv_row, count = all.high + 1 - key;
        const Rows<T> k{x.k + from, x.kv_row, count};
        float s[4][4], ds[4][4];
        multiply_rows(s, q, k, x.size, stage);
        multiply_rows(ds, d_o, Rows<T>{x.v + from, x.kv_row, count}, x.size, stage);
        for (int i = 0; i < 4; ++i)
            for (int j = 0; j < 4; ++j) {
                const int32_t index = static_cast<int32_t>(key) + 4 * at.x + j;
                s[i][j] = probability(stats[i], index, x.scale * kLog2E, s[i][j]);
                ds[i][j] = score_gradient(stats[i], s[i][j], ds[i][j]);
            }
        share(p, ds);
        add_product<width>(sums, p, k, column, x.size, stage);
    }
    store_rows<width>(g.dq + row * x.q_row + head, x.q_row, left, column, x.size, sums,
                      {x.scale, x.scale, x.scale, x.scale});
}

template <int width, typename T>
__global__ void __launch_bounds__(plain::kThreads, 1) dkv_plain(AttentionGradient<T> g) {
    using namespace plain;
    const AttentionView<T>& x = g.x;
    auto* stage = reinterpret_cast<float*>(block_shared());
    float* p = stage + kStageFloats;
    const KeyTask task = key_task(x, kSide);
    const Place at = place();
    const int column = static_cast<int>(blockIdx.y) * kColumnsMax;
    const int32_t group = x.heads / x.kv_heads;
    const int64_t o_row = static_cast<int64_t>(x.heads) * x.size, left = x.kv_tokens - task.key;
    const int64_t from =
        (task.b * x.kv_tokens + task.key) * x.kv_row + static_cast<int64_t>(task.g) * x.size;
    const Rows<T> k{x.k + from, x.kv_row, left}, v{x.v + from, x.kv_row, left};
    Sums<width> dk = {}, dv = {};
    // Heads and then queries in order.
    for (int32_t h = task.g * group; h < (task.g + 1) * group; ++h)
        for (int64_t t = task.key; t < x.tokens; t += kSide) {
            const KeyRange seen = keys_of_tile(x, task.b, t, kSide);
            if (seen.low >= task.key + kSide) continue;
            const int64_t row = task.b * x.tokens + t, head = static_cast<int64_t>(h) * x.size;
            const Rows<T> q{x.q + row * x.q_row + head, x.q_row, x.tokens - t};
            const Rows<T> d_o{g.d_o + row * o_row + head, o_row, x.tokens - t};
            float s[4][4], ds[4][4];
            multiply_rows(s, k, q, x.size, stage);
            multiply_rows(ds, v, d_o, x.size, stage);
            for (int j = 0; j < 4; ++j) {
                const QueryStats stats = stats_of(g, task.b, h, t + 4 * at.x + j);
                for (int i = 0; i < 4; ++i) {
                    const int32_t index = static_cast<int32_t>(task.key) + 4 * at.y + i;
                    s[i][j] = probability(stats, index, x.scale * kLog2E, s[i][j]);
                    ds[i][j] = score_gradient(stats, s[i][j], ds[i][j]);
                }
            }
            share(p, s);
            add_product<width>(dv, p, d_o, column, x.size, stage);
            share(p, ds);
            add_product<width>(dk, p, q, column, x.size, stage);
        }
    store_rows<width>(g.dk + from, x.kv_row, left, column, x.size, dk,
                      {x.scale, x.scale, x.scale, x.scale});
    store_rows<width>(g.dv + from, x.kv_row, left, column, x.size, dv, {1.0F, 1.0F, 1.0F, 1.0F});
}

template <int width, typename T>
void gradients_plain(const AttentionGradient<T>& g, void* stream) {
    const int64_t parts = plain::column_parts(g.x.size);
    launch<dq_plain<width, T>>(
        {query_blocks(g.x, plain::kSide), plain::kThreads, stream, plain::kSharedBytes, parts}, g);
    launch<dkv_plain<width, T>>(
        {key_blocks(g.x, plain::kSide), plain::kThreads, stream, plain::kSharedBytes, parts}, g);
}

template <typename T>
void gradients(const AttentionGradient<T>& g, void* stream) {
    if constexpr (sizeof(T) < sizeof(float))
        if (g.x.size <= tiles::kDepthMax) {
            tiles::with_depth(g.x.size,
                              [&]<int depth>() { tiles::launch_gradients<depth>(g, stream); });
            return;
        }
    if (g.x.size <= plain::kSide)
        gradients_plain<1>(g, stream);
    else
        gradients_plain<2>(g, stream);
}

template <typename T>
void attention_backward(const KernelArgs& args) noexcept {
    using O = AttentionBackwardOperands;
    AttentionGradient<T> g = {};
    g.x = training_view<T>(args, args.shape[O::qkv], args.at<T>(O::qkv));
    g.x.starts = args.at<int32_t>(O::segment_start);
    const AttentionView<T>& x = g.x;
    const int64_t rows = x.batch * x.tokens * x.heads;
    ASSERT(args.shape[O::o].elements() == rows * x.size);
    ASSERT(args.scratch_bytes >= attention_backward_scratch_bytes(rows));
    auto* delta = static_cast<float*>(args.scratch);
    g.d_o = args.at<T>(O::d_o);
    g.lse = args.at<float>(O::lse);
    g.delta = delta;
    g.dq = args.at<T>(O::dqkv);
    g.dk = g.dq + static_cast<int64_t>(x.heads) * x.size;
    g.dv = g.dk + static_cast<int64_t>(x.kv_heads) * x.size;
    const int64_t step = x.size % kPack<T> == 0 ? kPack<T> : 1;
    int lanes = kWarp;
    while (lanes > 1 && lanes / 2 * step >= x.size) lanes /= 2;
    launch<attention_delta<T>>({ceil_div(rows * lanes, kDeltaThreads), kDeltaThreads, args.stream},
                               delta, static_cast<const T*>(args.at<T>(O::o)), g.d_o, rows,
                               x.tokens, static_cast<int64_t>(x.heads),
                               static_cast<int64_t>(x.size), lanes);
    gradients(g, args.stream);
}

}  // namespace

void add_attention_backward(KernelTable& table) noexcept {
    set_kernels(table, OpKind::attention_backward, attention_backward<float>,
                attention_backward<Bf16>, attention_backward<F16>);
}

}  // namespace plumb::cuda
