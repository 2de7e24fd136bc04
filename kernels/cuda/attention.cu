#include "kernels/cuda/attention_plain.h"
#include "kernels/cuda/kernel_list.h"

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
            x.lse[(task.b * x.heads + task.h) * x.tokens + t] =
                (top[i] + log2f(total[i])) * kLn2;
    }
    store_rows<width>(x.o + (row * x.heads + task.h) * x.size,
                      static_cast<int64_t>(x.heads) * x.size, left, column, x.size, sums, inverse);
}

template <typename T>
void attend_any(const AttentionView<T>& x, void* stream) {
    const Launch at{query_blocks(x, plain::kSide), plain::kThreads, stream, plain::kSharedBytes,
                    plain::column_parts(x.size)};
    if (x.size <= plain::kSide)
        launch<attend_plain<1, T>>(at, x);
    else
        launch<attend_plain<2, T>>(at, x);
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
    attend_any(x, stream);
}
template void attend(const AttentionView<float>&, void*) noexcept;
template void attend(const AttentionView<Bf16>&, void*) noexcept;
template void attend(const AttentionView<F16>&, void*) noexcept;

void add_attention(KernelTable& table) noexcept {
    set_kernels(table, OpKind::attention, attention<float>, attention<Bf16>, attention<F16>);
}

}  // namespace plumb::cuda
