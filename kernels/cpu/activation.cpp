#include "kernels/cpu/kernel_list.h"
#include "kernels/cpu/vec.h"

namespace plumb::cpu::PLUMB_ISA {

template <typename T>
void gelu(const KernelArgs& args) noexcept {
    using O = GeluOperands;
    const int64_t count = elements_of(args.shape[O::y]);
    ASSERT(elements_of(args.shape[O::x]) == count);
    T* y = values<T>(args, O::y);
    const T* x = values<T>(args, O::x);
    run_team(args.threads, [&](int64_t rank, int64_t team) {
        const Range range = split(count, kLanesMax, team, rank);
        for (int64_t i = range.begin; i < range.end; i += kLanes) {
            const int64_t lanes = range.end - i;
            store_part(y + i, gelu_of(load_part(x + i, lanes)), lanes);
        }
    });
}

template <typename T>
void gelu_backward(const KernelArgs& args) noexcept {
    using O = GeluBackwardOperands;
    const int64_t count = elements_of(args.shape[O::d]);
    ASSERT(elements_of(args.shape[O::pre]) == count);
    T* d = values<T>(args, O::d);
    const T* pre = values<T>(args, O::pre);
    run_team(args.threads, [&](int64_t rank, int64_t team) {
        const Range range = split(count, kLanesMax, team, rank);
        for (int64_t i = range.begin; i < range.end; i += kLanes) {
            const int64_t lanes = range.end - i;
            const VecF slope = gelu_slope_of(load_part(pre + i, lanes));
            store_part(d + i, load_part(d + i, lanes) * slope, lanes);
        }
    });
}

template <typename T>
void swiglu(const KernelArgs& args) noexcept {
    using O = SwigluOperands;
    const int64_t rows = rows_of(args.shape[O::h]), size = last_of(args.shape[O::h]);
    ASSERT(last_of(args.shape[O::gate_up]) == 2 * size);
    run_team(args.threads, [&](int64_t rank, int64_t team) {
        const Range range = split(rows, 1, team, rank);
        for (int64_t row = range.begin; row < range.end; ++row) {
            const T* gate = values<T>(args, O::gate_up) + row * 2 * size;
            T* h = values<T>(args, O::h) + row * size;
            for (int64_t i = 0; i < size; i += kLanes) {
                const int64_t lanes = size - i;
                const VecF g = load_part(gate + i, lanes);
                store_part(h + i, g * sigmoid_of(g) * load_part(gate + size + i, lanes), lanes);
            }
        }
    });
}

template <typename T>
void swiglu_backward(const KernelArgs& args) noexcept {
    using O = SwigluBackwardOperands;
    const int64_t rows = rows_of(args.shape[O::dh]), size = last_of(args.shape[O::dh]);
    ASSERT(last_of(args.shape[O::gate_up]) == 2 * size);
    run_team(args.threads, [&](int64_t rank, int64_t team) {
        const Range range = split(rows, 1, team, rank);
        for (int64_t row = range.begin; row < range.end; ++row) {
            const T* gate = values<T>(args, O::gate_up) + row * 2 * size;
            const T* dh = values<T>(args, O::dh) + row * size;
            T* dgate = values<T>(args, O::dgate_up) + row * 2 * size;
            for (int64_t i = 0; i < size; i += kLanes) {
                const int64_t lanes = size - i;
                const VecF g = load_part(gate + i, lanes), up = load_part(gate + size + i, lanes);
                const VecF d = load_part(dh + i, lanes);
                const VecF s = sigmoid_of(g);
                const VecF slope = s * (splat(1.0F) + g * (splat(1.0F) - s));
                store_part(dgate + i, d * up * slope, lanes);
                store_part(dgate + size + i, d * g * s, lanes);
            }
        }
    });
}

PLUMB_VALUE_KERNEL(gelu)
PLUMB_VALUE_KERNEL(gelu_backward)
PLUMB_VALUE_KERNEL(swiglu)
PLUMB_VALUE_KERNEL(swiglu_backward)

}  // namespace plumb::cpu::PLUMB_ISA
