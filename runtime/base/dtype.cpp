#include "runtime/base/dtype.h"

#include <bit>
#include <cmath>

namespace plumb {

float f16_value(uint16_t bits) noexcept {
    const uint32_t sign = (bits & 0x8000U) << 16;
    const uint32_t exponent = (bits >> 10) & 31U, mantissa = bits & 0x3FFU;
    if (exponent == 31) return std::bit_cast<float>(sign | 0x7F800000U | mantissa << 13);
    if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
    const float magnitude = std::ldexp(static_cast<float>(mantissa), -24);
    return sign != 0 ? -magnitude : magnitude;
}

uint16_t f16_bits(float value) noexcept {
    const uint32_t bits = std::bit_cast<uint32_t>(value);
    const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000U);
    if (std::isnan(value)) return sign | 0x7E00U;
    const float magnitude = std::fabs(value);
    // Half of the step above the largest finite value, 65504; the tie rounds to even: infinity.
    if (magnitude >= 65520.0F) return sign | 0x7C00U;
    if (magnitude == 0.0F) return sign;
    // In units of the last place of the result: 2^-24 below 2^-14.
    int exponent = 0;
    std::frexp(magnitude, &exponent);  // magnitude in [2^(exponent-1), 2^exponent)
    const int shift = exponent - 11 < -24 ? -24 : exponent - 11;
    const auto units = static_cast<uint32_t>(std::nearbyint(std::ldexp(magnitude, -shift)));
    // Units of 2^10 and more carry the exponent with them, also when rounding reaches 2^11.
    return static_cast<uint16_t>(sign + (static_cast<uint32_t>(shift + 24) << 10) + units);
}

}  // namespace plumb
