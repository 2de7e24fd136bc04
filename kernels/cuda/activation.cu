#include "kernels/cuda/kernel_list.h"
#include "kernels/cuda/math.h"
#include "kernels/cuda/values.h"

namespace plumb::cuda {

namespace {

constexpr int kThreads = 256;

template <typename T>
__global__ void __launch_bounds__(kThreads) gelu_packs(T* y, const T* x, int64_t count) {
    for_each_pack<T>(count, [&](int64_t i, int n) {
        Pack<T> pack = load_some(x + i, n);
        for (T& v : pack.value) v = narrow<T>(gelu_of(widen(v)));
        store_some(y + i, pack, n);
    });
}

template <typename T>
__global__ void __launch_bounds__(kThreads) gelu_backward_packs(T* d, const T* pre, int64_t count) {
    for_each_pack<T>(count, [&](int64_t i, int n) {
        const Pack<T> x = load_some(pre + i, n);
        Pack<T> g = load_some(d + i, n);
        for (int k = 0; k < kPack<T>; ++k)
            g.value[k] = narrow<T>(widen(g.value[k]) * gelu_slope(widen(x.value[k])));
        store_some(d + i, g, n);
    });
}

// A block of y is a row's part of kThreads packs; rows whose halves do not start on a pack are read
// value by value.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    swiglu_rows(T* h, const T* gate_up, int64_t rows, int64_t size) {
    const int step = size % kPack<T> == 0 ? kPack<T> : 1;
    const int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * step;
    if (i >= size) return;
    for (int64_t r = blockIdx.y; r < rows; r += gridDim.y) {
        const T* row = gate_up + r * 2 * size + i;
        Pack<T> gate = load_some(row, step), up = load_some(row + size, step);
        for (int k = 0; k < kPack<T>;
             ++k) {  // a bound that the compiler knows keeps packs in registers
            const float g = widen(gate.value[k]);
            gate.value[k] = narrow<T>(g * sigmoid_of(g) * widen(up.value[k]));
        }
        store_some(h + r * size + i, gate, step);
    }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    swiglu_backward_rows(T* dgate_up, const T* dh, const T* gate_up, int64_t rows, int64_t size) {
    const int step = size % kPack<T> == 0 ? kPack<T> : 1;
    const int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * step;
    if (i >= size) return;
    for (int64_t r = blockIdx.y; r < rows; r += gridDim.y) {
        const int64_t at = r * 2 * size + i;
        Pack<T> gate = load_some(gate_up + at, step), up = load_some(gate_up + at + size, step);
        const Pack<T> d = load_some(dh + r * size + i, step);
        for (int k = 0; k < kPack<T>; ++k) {
            const float g = widen(gate.value[k]), u = widen(up.value[k]), dy = widen(d.value[k]);
            const float s = sigmoid_of(g);
            gate.value[k] = narrow<T>(dy * u * s * (1.0F + g * (1.0F - s)));
            up.value[k] = narrow<T>(dy * g * s);
        }
        store_some(dgate_up + at, gate, step);
        store_some(dgate_up + at + size, up, step);
    }
}

// A grid for rows of `size` values: packs of a row across x, rows down y.
template <typename T>
Launch row_launch(int64_t rows, int64_t size, void* stream) {
    constexpr int64_t kRowsMax = 16384;
    const int64_t step = size % kPack<T> == 0 ? kPack<T> : 1;
    return {ceil_div(size, step * kThreads), kThreads, stream, 0,
            rows < kRowsMax ? rows : kRowsMax};
}

template <typename T>
void gelu(const KernelArgs& args) noexcept {
    using O = GeluOperands;
    const int64_t count = args.shape[O::y].elements();
    ASSERT(args.shape[O::x].elements() == count);
    launch<gelu_packs<T>>({pack_blocks(count, kPack<T>, kThreads), kThreads, args.stream},
                          args.at<T>(O::y), static_cast<const T*>(args.at<T>(O::x)), count);
}

template <typename T>
void gelu_backward(const KernelArgs& args) noexcept {
    using O = GeluBackwardOperands;
    const int64_t count = args.shape[O::d].elements();
    ASSERT(args.shape[O::pre].elements() == count);
    launch<gelu_backward_packs<T>>({pack_blocks(count, kPack<T>, kThreads), kThreads, args.stream},
                                   args.at<T>(O::d), static_cast<const T*>(args.at<T>(O::pre)),
                                   count);
}

template <typename T>
void swiglu(const KernelArgs& args) noexcept {
    using O = SwigluOperands;
    const int64_t rows = args.shape[O::h].rows(), size = args.shape[O::h].last();
    ASSERT(args.shape[O::gate_up].last() == 2 * size);
    launch<swiglu_rows<T>>(row_launch<T>(rows, size, args.stream), args.at<T>(O::h),
                           static_cast<const T*>(args.at<T>(O::gate_up)), rows, size);
}

template <typename T>
void swiglu_backward(const KernelArgs& args) noexcept {
    using O = SwigluBackwardOperands;
    const int64_t rows = args.shape[O::dh].rows(), size = args.shape[O::dh].last();
    ASSERT(args.shape[O::gate_up].last() == 2 * size);
    launch<swiglu_backward_rows<T>>(row_launch<T>(rows, size, args.stream), args.at<T>(O::dgate_up),
                                    static_cast<const T*>(args.at<T>(O::dh)),
                                    static_cast<const T*>(args.at<T>(O::gate_up)), rows, size);
}

}  // namespace

void add_activation(KernelTable& table) noexcept {
    set_kernels(table, OpKind::gelu, gelu<float>, gelu<Bf16>, gelu<F16>);
    set_kernels(table, OpKind::gelu_backward, gelu_backward<float>, gelu_backward<Bf16>,
                gelu_backward<F16>);
    set_kernels(table, OpKind::swiglu, swiglu<float>, swiglu<Bf16>, swiglu<F16>);
    set_kernels(table, OpKind::swiglu_backward, swiglu_backward<float>, swiglu_backward<Bf16>,
                swiglu_backward<F16>);
}

}  // namespace plumb::cuda
