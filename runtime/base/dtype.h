// Element types of tensors. `u8` is raw bytes (scratch, staging), `bf16` the upper half of an f32,
// `f16` IEEE binary16, `u16` the low half of an fp32 master beside bf16 weights. Sizes are exact;
// there are no sub-byte types yet.
// Path: hot.
#pragma once

#include "runtime/base/types.h"

namespace plumb {

enum class Dtype : uint8_t { f32, f64, i32, i64, u8, bf16, f16, u16 };

constexpr int64_t dtype_bytes(Dtype dtype) {
    switch (dtype) {
        case Dtype::f32:
        case Dtype::i32:
            return 4;
        case Dtype::bf16:
        case Dtype::f16:
        case Dtype::u16:
            return 2;
        case Dtype::u8:
            return 1;
        case Dtype::f64:
        case Dtype::i64:
            return 8;
    }
    return 0;
}

constexpr const char* dtype_name(Dtype dtype) {
    switch (dtype) {
        case Dtype::f32:
            return "f32";
        case Dtype::i32:
            return "i32";
        case Dtype::u8:
            return "u8";
        case Dtype::f64:
            return "f64";
        case Dtype::i64:
            return "i64";
        case Dtype::bf16:
            return "bf16";
        case Dtype::f16:
            return "f16";
        case Dtype::u16:
            return "u16";
    }
    return "?";
}

// An fp32 master as the bf16 weight that kernels read and the 16 bits that complete it:
//   high = (bits + 0x8000) >> 16: round to nearest, ties away from zero;
//   low = (bits - (high << 16)) mod 2^16, what was lost, read as a signed number:
//   bits = (high << 16) + sign_extended(low).
// Exact for every number and infinity, and for NaNs but the 2^16 whose rounding would carry into
// the sign and read as zero: those become the NaN below them. A master of at least 0x1.ffp127 has
// an infinite weight; the next forward pass then makes the step non-finite.
struct MasterPair {
    uint16_t high;
    uint16_t low;
    bool operator==(const MasterPair&) const = default;
};
constexpr MasterPair split_master(uint32_t bits) {
    constexpr uint32_t kMagnitudeMax = 0x7FFF7FFFU;  // the last that does not carry
    const uint32_t sign = bits & 0x80000000U;
    if ((bits ^ sign) > kMagnitudeMax) bits = sign | kMagnitudeMax;
    const uint32_t high = (bits + 0x8000U) >> 16;
    return {static_cast<uint16_t>(high), static_cast<uint16_t>(bits - (high << 16))};
}
constexpr uint32_t join_master(MasterPair pair) {
    const uint32_t low = pair.low;
    return (static_cast<uint32_t>(pair.high) << 16) + low - ((low & 0x8000U) << 1);
}

// IEEE 754 binary16: exact to float; from float to nearest, ties to even, overflow to infinity.
float f16_value(uint16_t bits) noexcept;
uint16_t f16_bits(float value) noexcept;

}  // namespace plumb
