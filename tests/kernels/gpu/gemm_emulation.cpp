// Matrix products for the emulated GPU, straight from the definition, with one fp32 sum each.
#include <cstring>

#include "kernels/cuda/gemm.h"
#include "kernels/cuda/scratch.h"
#include "kernels/cuda/values.h"

namespace plumb::cuda {

namespace {

// To nearest with ties away from zero, as PTX's cvt.rna.tf32 does; a NaN stays one.
float rounded_to_tf32(float value) {
    return value == value ? float_of((bits_of(value) + 0x1000U) & ~0x1FFFU) : value;
}

template <typename T, bool tf32>
float value_at(const GemmMatrix& matrix, int64_t i, int64_t p) {
    const float value = widen(static_cast<const T*>(
        matrix.data)[matrix.transposed ? p * matrix.stride + i : i * matrix.stride + p]);
    return tf32 ? rounded_to_tf32(value) : value;
}

template <typename T, typename C, bool tf32 = false>
void multiply(const Gemm& g) {
    auto* c = static_cast<C*>(g.c);
    for (int64_t i = 0; i < g.m; ++i)
        for (int64_t j = 0; j < g.n; ++j) {
            float sum = 0;
            for (int64_t p = 0; p < g.k; ++p)
                sum += value_at<T, tf32>(g.a, i, p) * value_at<T, tf32>(g.b, j, p);
            const int64_t at = i * g.c_stride + j;
            if (g.add != nullptr) sum += widen(static_cast<const C*>(g.add)[at]);
            if (g.bias != nullptr) sum += widen(static_cast<const C*>(g.bias)[j]);
            c[at] = narrow<C>(sum);
        }
}

}  // namespace

// The whole workspace is written over: whatever else stands there is lost, as on a GPU.
void gemm(const Gemm& g, void* workspace, void*) noexcept {
    std::memset(workspace, 0xFF, 4096);
    std::memset(static_cast<char*>(workspace) + kGemmWorkspaceBytes - 4096, 0xFF, 4096);
    CHECK(g.out == g.in || g.out == Dtype::f32);
    if (g.in == Dtype::f32)
        return g.tf32 ? multiply<float, float, true>(g) : multiply<float, float>(g);
    if (g.in == Dtype::bf16)
        return g.out == Dtype::f32 ? multiply<Bf16, float>(g) : multiply<Bf16, Bf16>(g);
    return g.out == Dtype::f32 ? multiply<F16, float>(g) : multiply<F16, F16>(g);
}

}  // namespace plumb::cuda
