// Small products on unpacked blocks, for attention: c_MN (+)= a_MK * b_KN, where a is read in place
// by its strides, one element at a time, and rows of b are vectors. Each element is one sum over K
// in order.
// Path: hot.
#pragma once

#include "kernels/kernels.h"

namespace plumb::cpu::PLUMB_ISA {

struct BlockMatmul {
    int64_t m;
    int64_t n;
    int64_t k;
    const float* a;  // (i, p) at a[i * a_row + p * a_col]; a_row or a_col is 1
    int64_t a_row;
    int64_t a_col;
    const float* b;  // rows readable up to n rounded up to whole vectors
    int64_t b_row;
    float* c;  // exactly m x n is touched
    int64_t c_row;
    bool accumulate;
};

void block_matmul(const BlockMatmul& x) noexcept;

}  // namespace plumb::cpu::PLUMB_ISA
