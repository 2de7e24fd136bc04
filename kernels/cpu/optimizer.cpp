#include "kernels/cpu/kernel_list.h"
#include "kernels/cpu/master.h"
#include "kernels/cpu/vec.h"

namespace plumb::cpu::PLUMB_ISA {

template <typename T>
void add(const KernelArgs& args) noexcept {
    using O = AddOperands;
    const int64_t count = elements_of(args.shape[O::a]);
    ASSERT(elements_of(args.shape[O::b]) == count);
    T* a = values<T>(args, O::a);
    const T* b = values<T>(args, O::b);
    run_team(args.threads, [&](int64_t rank, int64_t team) {
        const Range range = split(count, kLanesMax, team, rank);
        for (int64_t i = range.begin; i < range.end; i += kLanes) {
            const int64_t lanes = range.end - i;
            store_part(a + i, load_part(a + i, lanes) + load_part(b + i, lanes), lanes);
        }
    });
}

PLUMB_VALUE_KERNEL(add)

void fold(const KernelArgs& args) noexcept {
    using O = FoldOperands;
    const int64_t count = elements_of(args.shape[O::total]);
    ASSERT(elements_of(args.shape[O::part]) == count);
    float* total = floats(args, O::total);
    float* part = floats(args, O::part);
    const bool copy = args.attrs->state.copy_first != 0 && args.micro_batch == 0;
    run_team(args.threads, [&](int64_t rank, int64_t team) {
        const Range range = split(count, kLanesMax, team, rank);
        for (int64_t i = range.begin; i < range.end; i += kLanes) {
            const int64_t lanes = range.end - i;
            VecF v = load_part(part + i, lanes);
            if (!copy) v = load_part(total + i, lanes) + v;
            store_part(total + i, v, lanes);
            store_part(part + i, VecF{}, lanes);
        }
    });
}

void clip(const KernelArgs& args) noexcept {
    using O = ClipOperands;
    const int64_t* sum = static_cast<const int64_t*>(args.data[O::sum]);
    double* out = static_cast<double*>(args.data[O::clip]);
    const bool finite = sum[2] == 0;
    // {low, high} * 2^-80; high < 2^63, each half exact or rounded once.
    const double low = static_cast<double>(static_cast<uint64_t>(sum[0])) * 0x1p-80;
    const double high = static_cast<double>(sum[1]) * 0x1p-16;
    // A power of two: dividing by it is exact.
    const double loss_scale =
        args.has(O::loss_scale) ? static_cast<double>(floats(args, O::loss_scale)[0]) : 1.0;
    const double norm = __builtin_sqrt(high + low) / loss_scale;
    const double limit = args.scalars->clip;
    out[0] = (limit > 0.0 && norm > limit ? limit / norm : 1.0) / loss_scale;
    out[1] = norm;
    out[2] = finite ? 1.0 : 0.0;
    out[3] = 0.0;
}

void loss_scale(const KernelArgs& args) noexcept {
    using O = LossScaleOperands;
    constexpr float kScaleMax = 0x1p24F;
    float* state = floats(args, O::state);
    const double* clip_4 = static_cast<const double*>(args.data[O::clip]);
    if (clip_4[2] == 0.0) {
        state[0] = state[0] > 2.0F ? state[0] * 0.5F : 1.0F;
        state[1] = 0.0F;
        return;
    }
    state[1] += 1.0F;
    if (static_cast<double>(state[1]) < args.scalars->loss_scale_window) return;
    state[0] = state[0] < kScaleMax ? state[0] * 2.0F : kScaleMax;
    state[1] = 0.0F;
}

namespace {

struct AdamwRates {
    float scale;       // of the gradient
    float keep;        // 1 - lr * decay
    float beta1_left;  // 1 - beta1
    float beta2;
    float beta2_left;
    float step;          // lr / (1 - beta1^t)
    float root_inverse;  // 1 / sqrt(1 - beta2^t)
    float eps;
};

// One pass, every array read and written once; auto-vectorised. Never inlined: fp32 weights and
// masters beside fewer bits go through the same instructions and so get the same bits.
__attribute__((noinline)) void adamw_range(const AdamwRates& r, float* __restrict w,
                                           float* __restrict g, float* __restrict m,
                                           float* __restrict v, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
        const float gradient = g[i] * r.scale;
        const float m_next = m[i] + r.beta1_left * (gradient - m[i]);
        const float v_next = r.beta2 * v[i] + r.beta2_left * gradient * gradient;
        const float root = __builtin_sqrtf(v_next) * r.root_inverse + r.eps;
        w[i] = r.keep * w[i] - r.step * (m_next / root);
        m[i] = m_next;
        v[i] = v_next;
        g[i] = 0.0F;
    }
}

}  // namespace

template <typename T>
void adamw(const KernelArgs& args) noexcept {
    using O = AdamwOperands;
    const int64_t count = elements_of(args.shape[O::w]);
    ASSERT(elements_of(args.shape[O::g]) == count && elements_of(args.shape[O::m]) == count &&
           elements_of(args.shape[O::v]) == count);
    const StepScalars& s = *args.scalars;
    const double* clip_4 = static_cast<const double*>(args.data[O::clip]);
    const bool finite = clip_4[2] != 0.0;
    const double decay = args.attrs->state.decay != 0 ? s.weight_decay : 0.0;
    const AdamwRates rates{static_cast<float>(clip_4[0]),
                           static_cast<float>(1.0 - s.lr * decay),
                           static_cast<float>(1.0 - s.beta1),
                           static_cast<float>(s.beta2),
                           static_cast<float>(1.0 - s.beta2),
                           static_cast<float>(s.lr / s.bias_correction1),
                           static_cast<float>(1.0 / __builtin_sqrt(s.bias_correction2)),
                           static_cast<float>(s.eps)};
    float* g = floats(args, O::g);
    float* m = floats(args, O::m);
    float* v = floats(args, O::v);
    run_team(args.threads, [&](int64_t rank, int64_t team) {
        const Range range = split(count, kLanesMax, team, rank);
        if (!finite) {
            __builtin_memset(g + range.begin, 0,
                             static_cast<size_t>(range.end - range.begin) * sizeof(float));
            return;
        }
        each_master_block(values<T>(args, O::w), args.data[O::master], range,
                          [&](float* master, int64_t i, int64_t lanes) {
                              adamw_range(rates, master, g + i, m + i, v + i, lanes);
                          });
    });
}

PLUMB_VALUE_KERNEL(adamw)

}  // namespace plumb::cpu::PLUMB_ISA
