// Vectors of the instruction set being compiled, by the compilers' own vector extensions, and the
// few functions on them that kernels share. Everything is inline with internal linkage inside the
// instruction set's namespace: a function compiled for AVX-512 must never be what the linker picks
// for the portable table (scripts/check_isa_symbols.sh proves it). For the same reason kernels use
// neither std:: templates nor the inline members of shared structs.
// Path: hot.
#pragma once

#include <omp.h>

#include "kernels/blocking.h"
#include "kernels/kernels.h"

#if defined(__AVX512F__)
#define PLUMB_VEC_BYTES 64
#elif defined(__AVX2__)
#define PLUMB_VEC_BYTES 32
#else
#define PLUMB_VEC_BYTES 16
#endif
#define PLUMB_INLINE static inline __attribute__((always_inline, unused))

namespace plumb::cpu::PLUMB_ISA {

typedef float VecF __attribute__((vector_size(PLUMB_VEC_BYTES)));
typedef int32_t VecI __attribute__((vector_size(PLUMB_VEC_BYTES)));
typedef uint32_t VecU __attribute__((vector_size(PLUMB_VEC_BYTES)));
typedef uint16_t VecH __attribute__((vector_size(PLUMB_VEC_BYTES / 2)));
typedef float Vec4 __attribute__((vector_size(16)));

constexpr int64_t kLanes = PLUMB_VEC_BYTES / 4;

PLUMB_INLINE VecF load(const float* p) {
    VecF v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}
PLUMB_INLINE void store(float* p, VecF v) {
    __builtin_memcpy(p, &v, sizeof v);
}
PLUMB_INLINE VecF splat(float x) {
    return x - VecF{};
}

// Values in memory: float, Bf16 or F16, chosen by a kernel's template parameter. Arithmetic is
// always fp32: load widens, store rounds.
struct Bf16 {
    uint16_t bits;
};
struct F16 {
    uint16_t bits;
};
PLUMB_INLINE VecU load_halves(const void* p) {
    VecH half;
    __builtin_memcpy(&half, p, sizeof half);
    return __builtin_convertvector(half, VecU);
}
PLUMB_INLINE void store_halves(void* p, VecU v) {
    const VecH half = __builtin_convertvector(v, VecH);
    __builtin_memcpy(p, &half, sizeof half);
}
PLUMB_INLINE VecF float_of(VecU i) {
    VecF v;
    __builtin_memcpy(&v, &i, sizeof v);
    return v;
}
PLUMB_INLINE VecU unsigned_of(VecF v) {
    VecU i;
    __builtin_memcpy(&i, &v, sizeof i);
    return i;
}
PLUMB_INLINE VecF load(const Bf16* p) {
    return float_of(load_halves(p) << 16);
}
// Rounds to nearest, ties away from zero; NaN stays NaN (adding could carry it into the sign).
PLUMB_INLINE VecU bf16_bits(VecF v) {
    const VecU rounded = (unsigned_of(v) + 0x8000U) >> 16;
    return v == v ? rounded : (VecU{} + 0x7FC0U);
}
PLUMB_INLINE void store(Bf16* p, VecF v) {
    store_halves(p, bf16_bits(v));
}
// The exponent moves from bias 15 to 127 by a multiplication, which also normalises subnormals;
// infinity and NaN keep all exponent bits.
PLUMB_INLINE VecF load(const F16* p) {
    const VecU half = load_halves(p);
    const VecU magnitude = (half & 0x7FFFU) << 13;
    const VecU scaled = unsigned_of(float_of(magnitude) * splat(0x1p112F));
    const VecU special = magnitude >= (0x7C00U << 13) ? VecU{} + 0x7F800000U : VecU{};
    return float_of(scaled | special | (half & 0x8000U) << 16);
}
// IEEE 754 round to nearest, ties to even: subnormal results by adding 1/2, whose last bit is that
// of the smallest subnormal; normal ones by adding to the bits that are cut off.
PLUMB_INLINE VecU f16_bits(VecF v) {
    const VecU bits = unsigned_of(v);
    const VecU sign = bits & 0x80000000U;
    const VecU magnitude = bits ^ sign;
    const VecU small = unsigned_of(float_of(magnitude) + splat(0.5F)) - 0x3F000000U;
    const VecU odd = (magnitude >> 13) & 1U;
    const VecU normal = (magnitude - (112U << 23) + 0xFFFU + odd) >> 13;
    VecU half = magnitude < 0x38800000U ? small : normal;       // 2^-14
    half = magnitude >= 0x47800000U ? VecU{} + 0x7C00U : half;  // 2^16
    half = magnitude > 0x7F800000U ? VecU{} + 0x7E00U : half;
    return half | sign >> 16;
}
PLUMB_INLINE void store(F16* p, VecF v) {
    store_halves(p, f16_bits(v));
}
// What a value is after it was stored.
PLUMB_INLINE VecF rounded_as(const float*, VecF v) {
    return v;
}
template <typename T>
PLUMB_INLINE VecF rounded_as(const T*, VecF v) {
    T part[kLanes];
    store(part, v);
    return load(static_cast<const T*>(part));
}

// The first `lanes` elements; the rest are zero, and memory beyond them is not touched. Elements
// are copied as bytes, like whole vectors: the loss writes 16-bit gradients over fp32 logits.
template <typename T>
PLUMB_INLINE VecF load_part(const T* p, int64_t lanes) {
    if (lanes >= kLanes) return load(p);
    T part[kLanes] = {};
    for (int64_t i = 0; i < lanes; ++i) __builtin_memcpy(part + i, p + i, sizeof(T));
    return load(static_cast<const T*>(part));
}
template <typename T>
PLUMB_INLINE void store_part(T* p, VecF v, int64_t lanes) {
    if (lanes >= kLanes) {
        store(p, v);
        return;
    }
    T part[kLanes];
    store(part, v);
    for (int64_t i = 0; i < lanes; ++i) __builtin_memcpy(p + i, part + i, sizeof(T));
}
PLUMB_INLINE float value_at(const float* p) {
    return *p;
}
template <typename T>
PLUMB_INLINE float value_at(const T* p) {
    return load_part(p, 1)[0];
}
// A product that is rounded by itself: of two products that are added, the compiler would choose
// which to fuse, and not choose alike in each copy of the code.
PLUMB_INLINE VecF unfused(VecF v) {
    asm("" : "+x"(v));
    return v;
}
PLUMB_INLINE VecF max_of(VecF a, VecF b) {
    return a > b ? a : b;
}
PLUMB_INLINE VecI bits_of(VecF v) {
    VecI i;
    __builtin_memcpy(&i, &v, sizeof i);
    return i;
}
PLUMB_INLINE VecF float_of(VecI i) {
    VecF v;
    __builtin_memcpy(&v, &i, sizeof v);
    return v;
}
// Sum of the lanes in a fixed order (halves added until one is left).
PLUMB_INLINE float sum_lanes(VecF v) {
    float part[kLanes];
    store(part, v);
    for (int64_t width = kLanes / 2; width > 0; width /= 2)
        for (int64_t i = 0; i < width; ++i) part[i] += part[i + width];
    return part[0];
}
PLUMB_INLINE float max_lanes(VecF v) {
    float part[kLanes];
    store(part, v);
    float max = part[0];
    for (int64_t i = 1; i < kLanes; ++i) max = part[i] > max ? part[i] : max;
    return max;
}
template <typename T>
PLUMB_INLINE float dot(const T* a, const T* b, int64_t size) {
    VecF sum{};
    for (int64_t i = 0; i < size; i += kLanes)
        sum += load_part(a + i, size - i) * load_part(b + i, size - i);
    return sum_lanes(sum);
}

// exp(x) to about 1 ulp: x = n ln 2 + r, |r| <= ln 2 / 2, a polynomial in r (Cephes expf), times
// 2^n. 0 below -87.3 (no denormals), e^88.37 above, NaN stays NaN.
PLUMB_INLINE VecF exp_of(VecF x) {
    const VecF lowest = splat(-87.33654F), highest = splat(88.37626F);
    const VecF magic = splat(12582912.0F);  // 1.5 * 2^23: adding it rounds to an integer
    const VecI zero_mask = x < lowest;
    x = x > highest ? highest : x;
    const VecF shifted = x * splat(1.44269504F) + magic;
    const VecF n = shifted - magic;
    VecF r = x - n * splat(0.693359375F);
    r = r - n * splat(-2.12194440e-4F);
    VecF p = splat(1.9875691500e-4F);
    p = p * r + splat(1.3981999507e-3F);
    p = p * r + splat(8.3334519073e-3F);
    p = p * r + splat(4.1665795894e-2F);
    p = p * r + splat(1.6666665459e-1F);
    p = p * r + splat(5.0000001201e-1F);
    p = p * (r * r) + r + splat(1.0F);
    const VecF power = float_of((bits_of(shifted) + 127) << 23);
    const VecF y = p * power;
    return zero_mask ? VecF{} : y;
}
PLUMB_INLINE VecF sigmoid_of(VecF x) {
    return splat(1.0F) / (splat(1.0F) + exp_of(-x));
}
// The tanh form of GELU: x/2 (1 + tanh(u)) = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3).
PLUMB_INLINE VecF gelu_sigmoid(VecF x) {
    return sigmoid_of(x * (splat(1.5957691216F) + splat(0.0713548162726F) * (x * x)));
}
PLUMB_INLINE VecF gelu_of(VecF x) {
    return x * gelu_sigmoid(x);
}
PLUMB_INLINE VecF gelu_slope_of(VecF x) {
    const VecF s = gelu_sigmoid(x);
    const VecF du = splat(1.5957691216F) + splat(3.0F * 0.0713548162726F) * (x * x);
    return s + x * s * (splat(1.0F) - s) * du;
}

PLUMB_INLINE int64_t elements_of(const Shape& shape) {
    int64_t n = 1;
    for (int i = 0; i < shape.rank; ++i) n *= shape.dim[i];
    return n;
}
PLUMB_INLINE int64_t last_of(const Shape& shape) {
    return shape.rank == 0 ? 1 : shape.dim[shape.rank - 1];
}
PLUMB_INLINE int64_t rows_of(const Shape& shape) {
    int64_t n = 1;
    for (int i = 0; i + 1 < shape.rank; ++i) n *= shape.dim[i];
    return n;
}
PLUMB_INLINE float* floats(const KernelArgs& args, int operand) {
    return static_cast<float*>(args.data[operand]);
}
template <typename T>
PLUMB_INLINE T* values(const KernelArgs& args, int operand) {
    return static_cast<T*>(args.data[operand]);
}
PLUMB_INLINE const int32_t* ints(const KernelArgs& args, int operand) {
    return static_cast<const int32_t*>(args.data[operand]);
}

struct Range {
    int64_t begin;
    int64_t end;
};
// Part `part` of `parts` of [0, count), cut at multiples of `granule`.
PLUMB_INLINE Range split(int64_t count, int64_t granule, int64_t parts, int64_t part) {
    const int64_t blocks = (count + granule - 1) / granule;
    const int64_t begin = blocks * part / parts * granule;
    const int64_t end = blocks * (part + 1) / parts * granule;
    return {lesser(begin, count), lesser(end, count)};
}
// body(rank, size) on each thread of the team. The team's size never changes between regions (a
// changed size makes the OpenMP runtime allocate); one thread needs no region.
template <typename Body>
PLUMB_INLINE void run_team(int32_t threads, const Body& body) {
    if (threads == 1) {
        body(0, 1);
        return;
    }
#pragma omp parallel num_threads(threads)
    body(omp_get_thread_num(), omp_get_num_threads());
}

}  // namespace plumb::cpu::PLUMB_ISA
