// Element types of tensors. `u8` is raw bytes (scratch, staging). Sizes are exact; there are no
// sub-byte types yet.
// Path: hot.
#pragma once

#include "runtime/base/types.h"

namespace plumb {

enum class Dtype : uint8_t { f32, f64, i32, i64, u8 };

constexpr int64_t dtype_bytes(Dtype dtype) {
    switch (dtype) {
        case Dtype::f32:
        case Dtype::i32:
            return 4;
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
    }
    return "?";
}

}  // namespace plumb
