// Matrix products for the emulated GPU, straight from the definition, with one fp32 sum each.
#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/cuda/prepare.h"
#include "kernels/cuda/product_key.h"
#include "kernels/cuda/scratch.h"
#include "kernels/cuda/values.h"

namespace plumb::cuda {

namespace {

template <typename T>
float value_at(const GemmMatrix& matrix, int64_t i, int64_t p) {
    return widen(static_cast<const T*>(
        matrix.data)[matrix.transposed ? p * matrix.stride + i : i * matrix.stride + p]);
}

template <typename T, typename C>
void multiply(const Gemm& g) {
    auto* c = static_cast<C*>(g.c);
    for (int64_t i = 0; i < g.m; ++i)
        for (int64_t j = 0; j < g.n; ++j) {
            float sum = 0;
            for (int64_t p = 0; p < g.k; ++p)
                sum += value_at<T>(g.a, i, p) * value_at<T>(g.b, j, p);
            const int64_t at = i * g.c_stride + j;
            if (g.add != nullptr) sum += widen(static_cast<const C*>(g.add)[at]);
            if (g.bias != nullptr) sum += widen(static_cast<const C*>(g.bias)[j]);
            c[at] = narrow<C>(sum);
        }
}

// The whole workspace is written over: whatever else stands there is lost, as on a GPU.
void run_product(const Gemm& g, void* workspace) {
    std::memset(workspace, 0xFF, 4096);
    std::memset(static_cast<char*>(workspace) + kGemmWorkspaceBytes - 4096, 0xFF, 4096);
    if (g.in == Dtype::f32) return multiply<float, float>(g);
    if (g.in == Dtype::bf16)
        return g.out == Dtype::f32 ? multiply<Bf16, float>(g) : multiply<Bf16, Bf16>(g);
    return g.out == Dtype::f32 ? multiply<F16, float>(g) : multiply<F16, F16>(g);
}

std::vector<ProductKey>& prepared() {
    static std::vector<ProductKey>& keys = *new std::vector<ProductKey>;
    return keys;
}

bool is_prepared(const ProductKey& key) {
    return std::any_of(prepared().begin(), prepared().end(),
                       [&](const ProductKey& other) { return is_same(other, key); });
}

}  // namespace

// On a lane, a product must have been prepared; the tests of single kernels have no lane.
void gemm(const Gemm& g, void* workspace, void* stream) noexcept {
    CHECK(g.out == g.in || g.out == Dtype::f32);
    if (is_preparing()) {
        const ProductKey key = key_of(g);
        if (!is_prepared(key)) prepared().push_back(key);
        return;
    }
    if (stream == nullptr) return run_product(g, workspace);
    CHECK_NOTE(is_prepared(key_of(g)), "a product that was not prepared when its op was bound");
    emulation::put_launch(stream, [=] { run_product(g, workspace); });
}

}  // namespace plumb::cuda
