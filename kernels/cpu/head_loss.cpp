#include "kernels/cpu/gemm.h"
#include "kernels/cpu/kernel_list.h"
#include "kernels/cpu/vec.h"

namespace plumb::cpu::PLUMB_ISA {
namespace {

PLUMB_INLINE float max_of_row(const float* x, int64_t size) {
    VecF max = splat(x[0]);
    int64_t i = 0;
    for (; i + kLanes <= size; i += kLanes) max = max_of(load(x + i), max);
    float result = max_lanes(max);
    for (; i < size; ++i) result = x[i] > result ? x[i] : result;
    return result;
}

// Sum of exp(x - max), vectors in blocks of 64 whose sums are added in fp64; with `keep` the
// exponentials replace x.
PLUMB_INLINE double sum_of_exp(float* x, float max, int64_t size, bool keep) {
    constexpr int64_t kRun = 64 * kLanes;
    double total = 0;
    for (int64_t begin = 0; begin < size; begin += kRun) {
        const int64_t end = lesser(begin + kRun, size);
        VecF sum{};
        int64_t i = begin;
        for (; i + kLanes <= end; i += kLanes) {
            const VecF e = exp_of(load(x + i) - splat(max));
            if (keep) store(x + i, e);
            sum += e;
        }
        if (i < end) {
            const VecF e = exp_of(load_part(x + i, end - i) - splat(max));
            float part[kLanes];
            store(part, e);
            if (keep) store_part(x + i, e, end - i);
            for (int64_t j = 0; j < end - i; ++j) total += static_cast<double>(part[j]);
        }
        total += static_cast<double>(sum_lanes(sum));
    }
    return total;
}

struct LossRow {
    int64_t size;
    int32_t target;
    float weight;
    double gradient_scale;
};

// Weighted cross-entropy of a row of logits; for the backward pass the row becomes the gradient
// (softmax - onehot) * weight * gradient_scale, rounded to T, from the row's first byte on: what is
// written never passes what has been read.
template <typename T>
PLUMB_INLINE double loss_of_row(const LossRow& r, float* x, bool backward) {
    if (r.weight == 0.0F) {
        if (backward) __builtin_memset(x, 0, static_cast<size_t>(r.size) * sizeof(float));
        return 0;
    }
    CHECK_NOTE(r.target >= 0 && r.target < r.size, "target id outside the vocabulary");
    const float max = max_of_row(x, r.size);
    const double at_target = static_cast<double>(x[r.target]) - static_cast<double>(max);
    const double sum = sum_of_exp(x, max, r.size, backward);
    const double weight = static_cast<double>(r.weight);
    if (backward) {
        const double scale = weight * r.gradient_scale;
        const VecF factor = splat(static_cast<float>(scale / sum));
        T* gradient = static_cast<T*>(static_cast<void*>(x));
        for (int64_t i = 0; i < r.size; i += kLanes)
            store_part(gradient + i, load_part(x + i, r.size - i) * factor, r.size - i);
        // From the logit again: the product above has lost what the difference needs when p ~ 1.
        const double at_one = (__builtin_exp(at_target) / sum - 1.0) * scale;
        store_part(gradient + r.target, splat(static_cast<float>(at_one)), 1);
    }
    return weight * (__builtin_log(sum) - at_target);
}

template <typename T>
struct LossOperands {
    double* loss;
    T* dx;
    float* dw;
    const T* x;
    const T* w;
    const int32_t* targets;
    const float* weights;
    const float* loss_scale;  // nullptr when absent
    int64_t tokens;
    int64_t hidden;
    int64_t vocabulary;
    bool backward;
};

// dlogits: gradients of T that begin where the fp32 logits of their row did, `stride` apart.
template <typename T>
void chunk_gradients(const LossOperands<T>& o, const KernelArgs& args, int64_t at, int64_t tokens,
                     const T* dlogits, void* scratch) {
    const int64_t stride = o.vocabulary * static_cast<int64_t>(sizeof(float) / sizeof(T));
    gemm(Gemm<T, T>{tokens, o.hidden, o.vocabulary, dlogits, stride, 1, o.w, o.hidden, 1,
                    o.dx + at * o.hidden, false},
         scratch, args.threads);
    if (o.dw == nullptr) return;
    gemm(Gemm<T, float>{o.vocabulary, o.hidden, tokens, dlogits, 1, stride, o.x + at * o.hidden,
                        o.hidden, 1, o.dw, true},
         scratch, args.threads);
}

template <typename T>
void loss_in_chunks(const LossOperands<T>& o, const KernelArgs& args) {
    const int64_t chunk = lesser(args.attrs->loss.chunk, o.tokens);
    ASSERT(chunk > 0);
    ASSERT(args.scratch_bytes >=
           head_loss_scratch_floats(gemm_blocking(Isa::PLUMB_ISA, Value<T>::dtype),
                                    {chunk, o.hidden, o.vocabulary, o.backward, sizeof(T) == 2},
                                    args.threads) *
               4);
    float* logits = static_cast<float*>(args.scratch);
    float* rows = logits + head_loss_logits_floats(chunk, o.vocabulary);
    double* row_loss = static_cast<double*>(static_cast<void*>(rows));
    void* scratch = rows + head_loss_rows_floats(chunk);
    double gradient_scale = o.backward ? args.scalars->inverse_weight_sum : 0.0;
    if (o.loss_scale != nullptr) gradient_scale *= static_cast<double>(o.loss_scale[0]);
    for (int64_t at = 0; at < o.tokens; at += chunk) {
        const int64_t tokens = lesser(chunk, o.tokens - at);
        gemm(Gemm<T, float>{tokens, o.vocabulary, o.hidden, o.x + at * o.hidden, o.hidden, 1, o.w,
                            1, o.hidden, logits, false},
             scratch, args.threads);
        run_team(args.threads, [&](int64_t rank, int64_t team) {
            const Range range = split(tokens, 1, team, rank);
            for (int64_t i = range.begin; i < range.end; ++i) {
                const LossRow row{o.vocabulary, o.targets[at + i], o.weights[at + i],
                                  gradient_scale};
                row_loss[i] = loss_of_row<T>(row, logits + i * o.vocabulary, o.backward);
            }
        });
        double sum = *o.loss;
        for (int64_t i = 0; i < tokens; ++i) sum += row_loss[i];
        *o.loss = sum;
        if (!o.backward) continue;
        const T* dlogits = static_cast<const T*>(args.scratch);
        chunk_gradients(o, args, at, tokens, dlogits, scratch);
    }
}

}  // namespace

template <typename T>
void head_loss(const KernelArgs& args) noexcept {
    using O = HeadLossOperands;
    const Shape& x = args.shape[O::x];
    ASSERT(last_of(x) == last_of(args.shape[O::w]));
    loss_in_chunks(
        LossOperands<T>{static_cast<double*>(args.data[O::loss]), nullptr, nullptr,
                        values<T>(args, O::x), values<T>(args, O::w), ints(args, O::targets),
                        floats(args, O::loss_weights), floats(args, O::loss_scale), rows_of(x),
                        last_of(x), args.shape[O::w].dim[0], false},
        args);
}
PLUMB_VALUE_KERNEL(head_loss)

template <typename T>
void head_loss_backward(const KernelArgs& args) noexcept {
    using O = HeadLossBackwardOperands;
    const Shape& x = args.shape[O::x];
    ASSERT(last_of(x) == last_of(args.shape[O::w]));
    loss_in_chunks(LossOperands<T>{static_cast<double*>(args.data[O::loss]), values<T>(args, O::dx),
                                   floats(args, O::dw), values<T>(args, O::x),
                                   values<T>(args, O::w), ints(args, O::targets),
                                   floats(args, O::loss_weights), floats(args, O::loss_scale),
                                   rows_of(x), last_of(x), args.shape[O::w].dim[0], true},
                   args);
}
PLUMB_VALUE_KERNEL(head_loss_backward)

}  // namespace plumb::cpu::PLUMB_ISA
