// Functions of one number that kernels share.
// Path: hot.
#pragma once

#include "kernels/cuda/device.h"

#ifndef __CUDACC__
#include <cmath>
#endif

namespace plumb::cuda {

// 1 / (1 + exp(-x))
__device__ __forceinline__ float sigmoid_of(float x) {
    return 1.0F / (1.0F + expf(-x));
}
// GELU, tanh form (Hendrycks & Gimpel 2016): x * sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3).
constexpr float kGeluScale = 0.7978845608F;
constexpr float kGeluCubic = 0.044715F;
__device__ __forceinline__ float gelu_of(float x) {
    // Fused as written, so that all kernels that have it inside give the same bits.
    const float u = __fmul_rn(kGeluScale, fmaf(__fmul_rn(kGeluCubic, x), __fmul_rn(x, x), x));
    return __fmul_rn(x, sigmoid_of(2.0F * u));
}
__device__ __forceinline__ float gelu_slope(float x) {
    const float u = kGeluScale * (x + kGeluCubic * x * x * x);
    const float slope = kGeluScale * (1.0F + 3.0F * kGeluCubic * x * x);
    const float s = sigmoid_of(2.0F * u);
    return s + 2.0F * x * s * (1.0F - s) * slope;
}

}  // namespace plumb::cuda
