// Value dtypes in the tests, written after their definitions and not after the kernels: the nearest
// value that a dtype has, and the bits of such a value. bf16 rounds ties away from zero (the high
// half of a master pair), f16 to even (IEEE 754). All other dtypes hold what they are given.
// Path: cold.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "runtime/base/dtype.h"

namespace plumb::testing {

constexpr bool is_half(Dtype dtype) {
    return dtype == Dtype::bf16 || dtype == Dtype::f16;
}

inline double rounded_to(Dtype dtype, double x) {
    if (!is_half(dtype) || x == 0 || !std::isfinite(x)) return x;
    const bool brain = dtype == Dtype::bf16;
    const int exponent = std::max(std::ilogb(x), brain ? -126 : -14);
    const int last = exponent - (brain ? 7 : 10);  // exponent of the last bit
    const double units = std::ldexp(x, -last);
    const double y = std::ldexp(brain ? std::round(units) : std::nearbyint(units), last);
    const double limit = brain ? 0x1p128 : 0x1p16;
    return std::fabs(y) < limit ? y : std::copysign(std::numeric_limits<double>::infinity(), y);
}

// Of a value that the dtype has.
inline uint16_t half_bits(Dtype dtype, double x) {
    const int fraction = dtype == Dtype::bf16 ? 7 : 10, bias = dtype == Dtype::bf16 ? 127 : 15;
    const int top = (1 << (15 - fraction)) - 1;  // exponent field of infinity and NaN
    const auto sign = static_cast<uint16_t>(std::signbit(x) ? 0x8000 : 0);
    const double size = std::fabs(x);
    double bits = 0;  // exponent and fraction, as one integer
    if (std::isnan(x)) {
        bits = std::ldexp(top, fraction) + 1;
    } else if (std::isinf(x)) {
        bits = std::ldexp(top, fraction);
    } else if (size > 0) {
        const int exponent = std::max(std::ilogb(size), 1 - bias);
        bits = std::ldexp(size, fraction - exponent) + std::ldexp(exponent + bias - 1, fraction);
    }
    return static_cast<uint16_t>(sign | static_cast<uint16_t>(bits));
}
inline double half_value(Dtype dtype, uint16_t bits) {
    const int fraction = dtype == Dtype::bf16 ? 7 : 10, bias = dtype == Dtype::bf16 ? 127 : 15;
    const int top = (1 << (15 - fraction)) - 1;
    const int field = (bits & 0x7FFF) >> fraction, rest = bits & ((1 << fraction) - 1);
    double x = std::ldexp(rest + (field > 0 ? 1 << fraction : 0), std::max(field, 1) - bias);
    x = std::ldexp(x, -fraction);
    if (field == top)
        x = rest != 0 ? std::numeric_limits<double>::quiet_NaN()
                      : std::numeric_limits<double>::infinity();
    return (bits & 0x8000) != 0 ? -x : x;
}

}  // namespace plumb::testing
