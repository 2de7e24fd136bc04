// How the instruction set multiplies values and adds them to fp32 sums: fp32 by fp32, or, where it
// has vdpbf16ps, pairs of bf16. vdpbf16ps adds the product of the odd elements to the sum first and
// that of the even ones then, each with one rounding to nearest (so Intel's SDM, and
// tests/kernels/matmul_bits_test). A product of two bf16 is exact in fp32, fused or not, so other
// instruction sets get the same bits from two fp32 multiply-adds in that order, where packed panels
// (gemm.h) keep it. Only subnormal inputs and results differ: vdpbf16ps takes and makes them as
// zero. Dot products of few rows (matmul.cpp) sum over lanes, of which each set has its own number.
// Path: hot.
#pragma once

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

#include "kernels/cpu/vec.h"

namespace plumb::cpu::PLUMB_ISA {

template <typename T>
struct Value {
    static constexpr Dtype dtype = Dtype::f32;
    using Word = float;                  // of a packed panel
    static constexpr bool pair = false;  // whether a word holds two values
};
template <>
struct Value<F16> {
    static constexpr Dtype dtype = Dtype::f16;
    using Word = float;
    static constexpr bool pair = false;
};
template <>
struct Value<Bf16> {
    static constexpr Dtype dtype = Dtype::bf16;
#if defined(__AVX512BF16__)
    using Word = uint32_t;
    static constexpr bool pair = true;
#else
    using Word = float;
    static constexpr bool pair = false;
#endif
};

PLUMB_INLINE VecU load(const uint32_t* p) {
    VecU v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}
PLUMB_INLINE VecU splat(uint32_t x) {
    return x + VecU{};
}
PLUMB_INLINE VecF add_product(VecF sum, VecF x, VecF y) {
    return sum + x * y;
}
#if defined(__AVX512BF16__)
PLUMB_INLINE VecF add_product(VecF sum, VecU x, VecU y) {
    return _mm512_dpbf16_ps(sum, (__m512bh)x, (__m512bh)y);
}
#endif

// The words of a vector of values in memory, and how many values that is.
template <typename T>
constexpr int64_t kWordLanes = Value<T>::pair ? 2 * kLanes : kLanes;
template <typename T>
PLUMB_INLINE auto load_words(const T* p) {
    if constexpr (Value<T>::pair)
        return load(static_cast<const uint32_t*>(static_cast<const void*>(p)));
    else
        return load(p);
}

}  // namespace plumb::cpu::PLUMB_ISA
