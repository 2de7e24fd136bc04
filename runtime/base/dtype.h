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

}  // namespace plumb
