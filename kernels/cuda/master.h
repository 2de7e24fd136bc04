// The fp32 masters of four consecutive weights, whatever their form: the weights themselves when
// they are float, the pair of Bf16 weights and their low halves (split_master in
// runtime/base/dtype.h), or the float master beside F16 weights, which are its rounding. Optimizer
// and initialisation see floats only. Four are 16 bytes of fp32 and 8 of 16-bit values.
// Path: hot.
#pragma once

#include "kernels/cuda/values.h"

namespace plumb::cuda {

constexpr int kFour = 4;

template <typename T>
struct alignas(4 * sizeof(T)) Four {
    T value[kFour];
};
// The first n of four values from `from`; the rest are zero.
template <typename T>
__device__ __forceinline__ Four<T> load_four(const T* from, int n) {
    if (n == kFour) return *reinterpret_cast<const Four<T>*>(from);
    Four<T> four = {};
    for (int k = 0; k < kFour; ++k)
        if (k < n) four.value[k] = from[k];
    return four;
}
template <typename T>
__device__ __forceinline__ void store_four(T* to, const Four<T>& four, int n) {
    if (n == kFour) {
        *reinterpret_cast<Four<T>*>(to) = four;
        return;
    }
    for (int k = 0; k < kFour; ++k)
        if (k < n) to[k] = four.value[k];
}

// Masters<T>::Kept is the type of the operand beside the weights, which f32 has not. load needs
// that operand; store leaves it out where it is nullptr: inference keeps no masters.
template <typename T>
struct Masters;

template <>
struct Masters<float> {
    using Kept = float;
    static __device__ __forceinline__ Four<float> load(const float* w, const float*, int64_t i,
                                                       int n) {
        return load_four(w + i, n);
    }
    static __device__ __forceinline__ void store(float* w, float*, int64_t i,
                                                 const Four<float>& master, int n) {
        store_four(w + i, master, n);
    }
};

template <>
struct Masters<Bf16> {
    using Kept = uint16_t;
    static __device__ __forceinline__ Four<float> load(const Bf16* w, const uint16_t* low,
                                                       int64_t i, int n) {
        const Four<Bf16> high = load_four(w + i, n);
        const Four<uint16_t> rest = load_four(low + i, n);
        Four<float> master;
        for (int k = 0; k < kFour; ++k)
            master.value[k] = float_of(join_master({high.value[k].bits, rest.value[k]}));
        return master;
    }
    static __device__ __forceinline__ void store(Bf16* w, uint16_t* low, int64_t i,
                                                 const Four<float>& master, int n) {
        Four<Bf16> high;
        Four<uint16_t> rest;
        for (int k = 0; k < kFour; ++k) {
            const MasterPair pair = split_master(bits_of(master.value[k]));
            high.value[k].bits = pair.high;
            rest.value[k] = pair.low;
        }
        store_four(w + i, high, n);
        if (low != nullptr) store_four(low + i, rest, n);
    }
};

template <>
struct Masters<F16> {
    using Kept = float;
    static __device__ __forceinline__ Four<float> load(const F16*, const float* whole, int64_t i,
                                                       int n) {
        return load_four(whole + i, n);
    }
    static __device__ __forceinline__ void store(F16* w, float* whole, int64_t i,
                                                 const Four<float>& master, int n) {
        Four<F16> half;
        for (int k = 0; k < kFour; ++k) half.value[k] = narrow<F16>(master.value[k]);
        store_four(w + i, half, n);
        if (whole != nullptr) store_four(whole + i, master, n);
    }
};

}  // namespace plumb::cuda
