#include "kernels/cpu/gemm.h"
#include "kernels/cpu/kernel_list.h"
#include "kernels/cpu/vec.h"

namespace plumb::cpu::PLUMB_ISA {
namespace {

constexpr GemmBlocking kBlock = kGemmBlocking[static_cast<int>(Isa::PLUMB_ISA)];

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
// (softmax - onehot) * weight * gradient_scale.
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
        for (int64_t i = 0; i < r.size; i += kLanes)
            store_part(x + i, load_part(x + i, r.size - i) * factor, r.size - i);
        // From the logit again: the product above has lost what the difference needs when p ~ 1.
        x[r.target] = static_cast<float>((__builtin_exp(at_target) / sum - 1.0) * scale);
    }
    return weight * (__builtin_log(sum) - at_target);
}

struct LossOperands {
    double* loss;
    float* dx;
    float* dw;
    const float* x;
    const float* w;
    const int32_t* targets;
    const float* weights;
    const float* loss_scale;  // nullptr when absent
    int64_t tokens;
    int64_t hidden;
    int64_t vocabulary;
    bool backward;
};

void chunk_gradients(const LossOperands& o, const KernelArgs& args, int64_t at, int64_t tokens,
                     const float* dlogits, float* scratch) {
    gemm({tokens, o.hidden, o.vocabulary, dlogits, o.vocabulary, 1, o.w, o.hidden, 1,
          o.dx + at * o.hidden, false},
         scratch, args.threads);
    if (o.dw == nullptr) return;
    gemm({o.vocabulary, o.hidden, tokens, dlogits, 1, o.vocabulary, o.x + at * o.hidden, o.hidden,
          1, o.dw, true},
         scratch, args.threads);
}

void loss_in_chunks(const LossOperands& o, const KernelArgs& args) {
    const int64_t chunk = lesser(args.attrs->loss.chunk, o.tokens);
    ASSERT(chunk > 0);
    ASSERT(args.scratch_bytes >= head_loss_scratch_floats(kBlock, chunk, o.hidden, o.vocabulary,
                                                          args.threads, o.backward) *
                                     4);
    float* logits = static_cast<float*>(args.scratch);
    float* rows = logits + head_loss_logits_floats(chunk, o.vocabulary);
    double* row_loss = static_cast<double*>(static_cast<void*>(rows));
    float* scratch = rows + head_loss_rows_floats(chunk);
    double gradient_scale = o.backward ? args.scalars->inverse_weight_sum : 0.0;
    if (o.loss_scale != nullptr) gradient_scale *= static_cast<double>(o.loss_scale[0]);
    for (int64_t at = 0; at < o.tokens; at += chunk) {
        const int64_t tokens = lesser(chunk, o.tokens - at);
        gemm({tokens, o.vocabulary, o.hidden, o.x + at * o.hidden, o.hidden, 1, o.w, 1, o.hidden,
              logits, false},
             scratch, args.threads);
        run_team(args.threads, [&](int64_t rank, int64_t team) {
            const Range range = split(tokens, 1, team, rank);
            for (int64_t i = range.begin; i < range.end; ++i) {
                const LossRow row{o.vocabulary, o.targets[at + i], o.weights[at + i],
                                  gradient_scale};
                row_loss[i] = loss_of_row(row, logits + i * o.vocabulary, o.backward);
            }
        });
        double sum = *o.loss;
        for (int64_t i = 0; i < tokens; ++i) sum += row_loss[i];
        *o.loss = sum;
        if (o.backward) chunk_gradients(o, args, at, tokens, logits, scratch);
    }
}

}  // namespace

void head_loss(const KernelArgs& args) noexcept {
    using O = HeadLossOperands;
    const Shape& x = args.shape[O::x];
    ASSERT(last_of(x) == last_of(args.shape[O::w]));
    loss_in_chunks(
        {static_cast<double*>(args.data[O::loss]), nullptr, nullptr, floats(args, O::x),
         floats(args, O::w), ints(args, O::targets), floats(args, O::loss_weights),
         floats(args, O::loss_scale), rows_of(x), last_of(x), args.shape[O::w].dim[0], false},
        args);
}

void head_loss_backward(const KernelArgs& args) noexcept {
    using O = HeadLossBackwardOperands;
    const Shape& x = args.shape[O::x];
    ASSERT(last_of(x) == last_of(args.shape[O::w]));
    loss_in_chunks(
        {static_cast<double*>(args.data[O::loss]), floats(args, O::dx), floats(args, O::dw),
         floats(args, O::x), floats(args, O::w), ints(args, O::targets),
         floats(args, O::loss_weights), floats(args, O::loss_scale), rows_of(x), last_of(x),
         args.shape[O::w].dim[0], true},
        args);
}

}  // namespace plumb::cpu::PLUMB_ISA
