#include "kernels/cpu/kernel_list.h"
#include "kernels/cpu/master.h"
#include "kernels/cpu/vec.h"
#include "kernels/optimizer_rules.h"

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
    make_clip(static_cast<const int64_t*>(args.data[O::sum]),
              args.has(O::loss_scale) ? floats(args, O::loss_scale) : nullptr, args.scalars->clip,
              static_cast<double*>(args.data[O::clip]));
}

void loss_scale(const KernelArgs& args) noexcept {
    using O = LossScaleOperands;
    make_next_loss_scale(static_cast<const double*>(args.data[O::clip]),
                         args.scalars->loss_scale_window, floats(args, O::state));
}

namespace {

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
    const AdamwRates rates =
        adamw_rates(*args.scalars, static_cast<const double*>(args.data[O::clip]),
                    args.attrs->state.decay != 0);
    float* g = floats(args, O::g);
    float* m = floats(args, O::m);
    float* v = floats(args, O::v);
    run_team(args.threads, [&](int64_t rank, int64_t team) {
        const Range range = split(count, kLanesMax, team, rank);
        if (rates.finite == 0) {
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
