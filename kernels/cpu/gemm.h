// One matrix multiplication for every use: c_MN (+)= a_MK * b_KN with an optional epilogue, blocked
// and packed into planned scratch. Which operand is transposed is a matter of strides, one of which
// must be 1. The sum over K runs in blocks of a fixed size in a fixed order, and each element's
// value does not depend on its place in a tile, so neither shapes of tiles nor threads change bits.
// Path: hot.
#pragma once

#include "kernels/kernels.h"

namespace plumb::cpu::PLUMB_ISA {

struct Gemm {
    int64_t m;
    int64_t n;
    int64_t k;
    const float* a;  // (i, p) at a[i * a_row + p * a_col]
    int64_t a_row;
    int64_t a_col;
    const float* b;  // (p, j) at b[p * b_row + j * b_col]
    int64_t b_row;
    int64_t b_col;
    float* c;  // (i, j) at c[i * n + j]
    bool accumulate;
    // Epilogue, in this order; nullptr or false where absent.
    const float* bias = nullptr;      // of n
    bool gelu = false;                // tanh form
    float* pre = nullptr;             // receives gelu's argument, like c
    const float* residual = nullptr;  // added last, like c
};

// scratch: gemm_scratch_floats (kernels/blocking.h) floats, 64-byte aligned.
void gemm(const Gemm& g, float* scratch, int32_t threads) noexcept;

}  // namespace plumb::cpu::PLUMB_ISA
