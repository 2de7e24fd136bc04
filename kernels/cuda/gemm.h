// Matrix products for the kernels that need them: c_MN = a_MK b_NK^T + add_MN + bias_N in any of
// the layouts of forward and backward passes, sums in fp32, rounded once. On a GPU by cuBLASLt
// (cublaslt.cpp), whose descriptors and algorithms are made once per kind of product; in tests by
// plain loops.
// Path: hot.
#pragma once

#include "runtime/base/dtype.h"
#include "runtime/base/types.h"

namespace plumb::cuda {

// Element (i, p) of a matrix stands at data[i * stride + p], or transposed at data[p * stride + i].
struct GemmMatrix {
    const void* data;
    int64_t stride;  // in elements
    bool transposed;
};

struct Gemm {
    int64_t m;
    int64_t n;
    int64_t k;
    Dtype in;      // of a and b
    GemmMatrix a;  // (i < m, p < k)
    GemmMatrix b;  // (j < n, p < k)
    Dtype out;     // of c, add and bias: `in` or f32
    void* c;       // (i, j) at c[i * c_stride + j]
    int64_t c_stride;
    const void* add = nullptr;   // laid out as c, may be c itself; nullptr: none
    const void* bias = nullptr;  // n values; nullptr: none
    bool tf32 = false;           // factors of f32 are rounded to tf32 (10 bits of mantissa)
};

// Puts the product on a stream. The workspace has kGemmWorkspaceBytes (scratch.h).
void gemm(const Gemm& g, void* workspace, void* stream) noexcept;

}  // namespace plumb::cuda
