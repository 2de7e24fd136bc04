// One matrix multiplication for every use: c_MN (+)= a_MK * b_KN with an optional epilogue, blocked
// and packed into planned scratch. a and b are of T, c of T or float; sums are fp32 whatever T is,
// and a 16-bit c is rounded once, from the sum over all of K. Which operand is transposed is a
// matter of strides, one of which must be 1. The sum over K runs in blocks of a fixed size in a
// fixed order, and each element's value does not depend on its place in a tile, so neither shapes
// of tiles nor threads change bits; products of bf16 made here have the same bits on every
// instruction set (products.h).
// Path: hot.
#pragma once

#include "kernels/cpu/products.h"
#include "kernels/kernels.h"

namespace plumb::cpu::PLUMB_ISA {

template <typename T, typename C>
struct Gemm {
    int64_t m;
    int64_t n;
    int64_t k;
    const T* a;  // (i, p) at a[i * a_row + p * a_col]
    int64_t a_row;
    int64_t a_col;
    const T* b;  // (p, j) at b[p * b_row + j * b_col]
    int64_t b_row;
    int64_t b_col;
    C* c;  // (i, j) at c[i * n + j]
    bool accumulate;
    // Epilogue, in this order; nullptr or false where absent.
    const float* bias = nullptr;  // of n
    bool gelu = false;            // tanh form, of an argument rounded to T
    T* pre = nullptr;             // receives gelu's argument, like c
    const T* residual = nullptr;  // added last, like c
};

// scratch: gemm_scratch_words (kernels/blocking.h) words of 4 bytes, 64-byte aligned.
template <typename T, typename C>
void gemm(const Gemm<T, C>& g, void* scratch, int32_t threads) noexcept;

}  // namespace plumb::cpu::PLUMB_ISA
