// Values in GPU memory: float, Bf16 or F16, chosen by a kernel's template parameter; arithmetic is
// always fp32. Roundings are those of the CPU kernels (vec.h): bf16 to nearest with ties away from
// zero, f16 to nearest even. Packs are the 16 bytes that a thread moves at once.
// Path: hot.
#pragma once

#include "kernels/cuda/device.h"
#include "runtime/base/dtype.h"

#ifdef __CUDACC__
#include <cuda_fp16.h>
#endif

namespace plumb::cuda {

struct Bf16 {
    uint16_t bits;
};
struct F16 {
    uint16_t bits;
};

__device__ __forceinline__ float float_of(uint32_t bits) {
#ifdef __CUDACC__
    return __uint_as_float(bits);
#else
    return __builtin_bit_cast(float, bits);
#endif
}
__device__ __forceinline__ uint32_t bits_of(float value) {
#ifdef __CUDACC__
    return __float_as_uint(value);
#else
    return __builtin_bit_cast(uint32_t, value);
#endif
}

__device__ __forceinline__ float widen(float value) {
    return value;
}
__device__ __forceinline__ float widen(Bf16 value) {
    return float_of(static_cast<uint32_t>(value.bits) << 16);
}
__device__ __forceinline__ float widen(F16 value) {
#ifdef __CUDACC__
    return __half2float(__ushort_as_half(value.bits));
#else
    return f16_value(value.bits);
#endif
}

template <typename T>
struct Narrow;
template <>
struct Narrow<float> {
    static __device__ __forceinline__ float of(float value) { return value; }
};
template <>
struct Narrow<Bf16> {
    static __device__ __forceinline__ Bf16 of(float value) {
        // Adding could carry a NaN into the sign.
        const uint32_t rounded = (bits_of(value) + 0x8000U) >> 16;
        return {static_cast<uint16_t>(value == value ? rounded : 0x7FC0U)};
    }
};
template <>
struct Narrow<F16> {
    static __device__ __forceinline__ F16 of(float value) {
#ifdef __CUDACC__
        return {__half_as_ushort(__float2half_rn(value))};
#else
        return {f16_bits(value)};
#endif
    }
};
// narrow<T>(x): x as memory holds it; rounded<T>(x): what is read back.
template <typename T>
__device__ __forceinline__ T narrow(float value) {
    return Narrow<T>::of(value);
}
template <typename T>
__device__ __forceinline__ float rounded(float value) {
    return widen(narrow<T>(value));
}

template <typename T>
struct ValueDtype;
template <>
struct ValueDtype<float> {
    static constexpr Dtype value = Dtype::f32;
};
template <>
struct ValueDtype<Bf16> {
    static constexpr Dtype value = Dtype::bf16;
};
template <>
struct ValueDtype<F16> {
    static constexpr Dtype value = Dtype::f16;
};

// 16 bytes of values. Rows can be read in packs when their size is a multiple of kPack<T>: tensors
// start on 64 bytes.
template <typename T>
constexpr int kPack = static_cast<int>(16 / sizeof(T));
template <typename T>
struct alignas(16) Pack {
    T value[kPack<T>];
};
template <typename T>
__device__ __forceinline__ Pack<T> load_pack(const T* from) {
    return *reinterpret_cast<const Pack<T>*>(from);
}
template <typename T>
__device__ __forceinline__ void store_pack(T* to, const Pack<T>& pack) {
    *reinterpret_cast<Pack<T>*>(to) = pack;
}

// body(i, n) on the elements [i, i + n) of a flat array of `count`, by all threads of a grid: n is
// kPack<T> but for the last. The caller reads and writes packs where n is whole.
template <typename T, typename Body>
__device__ __forceinline__ void for_each_pack(int64_t count, const Body& body) {
    const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x * kPack<T>;
    const int64_t first = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * kPack<T>;
    for (int64_t i = first; i < count; i += stride)
        body(i, count - i < kPack<T> ? static_cast<int>(count - i) : kPack<T>);
}
// The first n values from `from`, whole packs at once; the rest are zero. Loops over a pack have
// constant bounds, so that they unroll: an index that is not known puts the pack in local memory.
template <typename T>
__device__ __forceinline__ Pack<T> load_some(const T* from, int n) {
    if (n == kPack<T>) return load_pack(from);
    Pack<T> pack = {};
    for (int k = 0; k < kPack<T>; ++k)
        if (k < n) pack.value[k] = from[k];
    return pack;
}
template <typename T>
__device__ __forceinline__ void store_some(T* to, const Pack<T>& pack, int n) {
    if (n == kPack<T>) {
        store_pack(to, pack);
        return;
    }
    for (int k = 0; k < kPack<T>; ++k)
        if (k < n) to[k] = pack.value[k];
}
// Blocks of a grid for for_each_pack: enough to fill any GPU, not more than the work.
inline int64_t pack_blocks(int64_t count, int64_t pack, int threads) {
    constexpr int64_t kBlocksMax = 4096;
    const int64_t blocks = ceil_div(count, pack * threads);
    return blocks < kBlocksMax ? blocks : kBlocksMax;
}

}  // namespace plumb::cuda
