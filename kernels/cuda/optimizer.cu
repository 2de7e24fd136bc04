#include "kernels/cuda/kernel_list.h"
#include "kernels/cuda/master.h"
#include "kernels/cuda/math.h"
#include "kernels/optimizer_rules.h"

namespace plumb::cuda {

namespace {

constexpr int kThreads = 256;

template <typename T>
__global__ void __launch_bounds__(kThreads) add_packs(T* a, const T* b, int64_t count) {
    for_each_pack<T>(count, [&](int64_t i, int n) {
        Pack<T> sum = load_some(a + i, n);
        const Pack<T> other = load_some(b + i, n);
        for (int k = 0; k < kPack<T>; ++k)
            sum.value[k] = narrow<T>(widen(sum.value[k]) + widen(other.value[k]));
        store_some(a + i, sum, n);
    });
}

template <typename T>
void add(const KernelArgs& args) noexcept {
    using O = AddOperands;
    const int64_t count = args.shape[O::a].elements();
    ASSERT(args.shape[O::b].elements() == count);
    launch<add_packs<T>>({pack_blocks(count, kPack<T>, kThreads), kThreads, args.stream},
                         args.at<T>(O::a), static_cast<const T*>(args.at<T>(O::b)), count);
}

template <bool copy>
__global__ void __launch_bounds__(kThreads) fold_packs(float* total, float* part, int64_t count) {
    for_each_pack<float>(count, [&](int64_t i, int n) {
        Pack<float> sum = load_some(part + i, n);
        if (!copy) {
            const Pack<float> old = load_some(total + i, n);
            for (int k = 0; k < kPack<float>; ++k) sum.value[k] = old.value[k] + sum.value[k];
        }
        store_some(total + i, sum, n);
        store_some(part + i, Pack<float>{}, n);
    });
}

void fold(const KernelArgs& args) noexcept {
    using O = FoldOperands;
    const int64_t count = args.shape[O::total].elements();
    ASSERT(args.shape[O::part].elements() == count);
    const Launch at{pack_blocks(count, kPack<float>, kThreads), kThreads, args.stream};
    if (args.attrs->state.copy_first != 0 && args.micro_batch == 0)
        launch<fold_packs<true>>(at, args.at<float>(O::total), args.at<float>(O::part), count);
    else
        launch<fold_packs<false>>(at, args.at<float>(O::total), args.at<float>(O::part), count);
}

__global__ void __launch_bounds__(kWarp)
    clip_scale(double* out, const int64_t* sum, const float* loss_scale,
               const StepScalars* scalars) {
    if (threadIdx.x != 0) return;
    make_clip(sum, loss_scale, scalars->clip, out);
}

void clip(const KernelArgs& args) noexcept {
    using O = ClipOperands;
    ASSERT(args.shape[O::clip].elements() == 4 && args.shape[O::sum].elements() == 4);
    launch<clip_scale>({1, kWarp, args.stream}, args.at<double>(O::clip),
                       static_cast<const int64_t*>(args.at<int64_t>(O::sum)),
                       static_cast<const float*>(args.at<float>(O::loss_scale)), args.scalars);
}

__global__ void __launch_bounds__(kWarp)
    next_loss_scale(float* state, const double* clip_4, const StepScalars* scalars) {
    if (threadIdx.x == 0) make_next_loss_scale(clip_4, scalars->loss_scale_window, state);
}

void loss_scale(const KernelArgs& args) noexcept {
    using O = LossScaleOperands;
    ASSERT(args.shape[O::state].elements() == 2 && args.shape[O::clip].elements() == 4);
    launch<next_loss_scale>({1, kWarp, args.stream}, args.at<float>(O::state),
                            static_cast<const double*>(args.at<double>(O::clip)), args.scalars);
}

// What is fused is said, not left to the compiler: fp32 weights and masters beside fewer bits are
// different kernels and must get the same bits.
__device__ __forceinline__ void adamw_element(const AdamwRates& r, float* w, float g, float* m,
                                              float* v) {
    const float gradient = __fmul_rn(g, r.scale);
    const float m_next = fmaf(r.beta1_left, gradient - *m, *m);
    const float v_next = fmaf(__fmul_rn(r.beta2_left, gradient), gradient, __fmul_rn(r.beta2, *v));
    const float root = fmaf(sqrtf(v_next), r.root_inverse, r.eps);
    *w = fmaf(-r.step, m_next / root, __fmul_rn(r.keep, *w));
    *m = m_next;
    *v = v_next;
}

// One pass, every array read and written once. The rates are fp64 work of one thread of a block.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    adamw_masters(T* w, typename Masters<T>::Kept* kept, float* g, float* m, float* v,
                  const double* clip_4, const StepScalars* scalars, bool decayed, int64_t count) {
    AdamwRates* shared = reinterpret_cast<AdamwRates*>(block_shared());
    if (threadIdx.x == 0) *shared = adamw_rates(*scalars, clip_4, decayed);
    __syncthreads();
    const AdamwRates rates = *shared;
    for_each_pack<float>(count, [&](int64_t i, int n) {
        if (rates.finite != 0) {
            const Four<float> gradient = load_four(g + i, n);
            Four<float> master = Masters<T>::load(w, kept, i, n);
            Four<float> first = load_four(m + i, n), second = load_four(v + i, n);
            for (int k = 0; k < kFour; ++k)
                adamw_element(rates, &master.value[k], gradient.value[k], &first.value[k],
                              &second.value[k]);
            Masters<T>::store(w, kept, i, master, n);
            store_four(m + i, first, n);
            store_four(v + i, second, n);
        }
        store_four(g + i, Four<float>{}, n);
    });
}

template <typename T>
void adamw(const KernelArgs& args) noexcept {
    using O = AdamwOperands;
    const int64_t count = args.shape[O::w].elements();
    ASSERT(args.shape[O::g].elements() == count && args.shape[O::m].elements() == count &&
           args.shape[O::v].elements() == count && args.shape[O::clip].elements() == 4);
    launch<adamw_masters<T>>(
        {pack_blocks(count, kFour, kThreads), kThreads, args.stream, sizeof(AdamwRates)},
        args.at<T>(O::w), args.at<typename Masters<T>::Kept>(O::master), args.at<float>(O::g),
        args.at<float>(O::m), args.at<float>(O::v),
        static_cast<const double*>(args.at<double>(O::clip)), args.scalars,
        args.attrs->state.decay != 0, count);
}

}  // namespace

void add_optimizer(KernelTable& table) noexcept {
    set_kernels(table, OpKind::add, add<float>, add<Bf16>, add<F16>);
    set_kernels(table, OpKind::fold, fold);
    set_kernels(table, OpKind::clip, clip);
    set_kernels(table, OpKind::loss_scale, loss_scale);
    set_kernels(table, OpKind::adamw, adamw<float>, adamw<Bf16>, adamw<F16>);
}

}  // namespace plumb::cuda
