// Matrix products for the emulated GPU, straight from the definition, with one fp32 sum each.
#include <cstring>

#include "kernels/cuda/cublaslt.h"
#include "kernels/cuda/gemm_choices.h"
#include "kernels/cuda/prepare.h"
#include "kernels/cuda/scratch.h"
#include "kernels/cuda/values.h"
#include "tests/kernels/gpu/gpu_emulation.h"

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

// The whole workspace is written over: whatever else stands there is lost, as on a GPU.
void run_product(const Gemm& g, void* workspace) {
    std::memset(workspace, 0xFF, 4096);
    std::memset(static_cast<char*>(workspace) + kGemmWorkspaceBytes - 4096, 0xFF, 4096);
    if (g.in == Dtype::f32)
        return g.tf32 ? multiply<float, float, true>(g) : multiply<float, float>(g);
    if (g.in == Dtype::bf16)
        return g.out == Dtype::f32 ? multiply<Bf16, float>(g) : multiply<Bf16, Bf16>(g);
    return g.out == Dtype::f32 ? multiply<F16, float>(g) : multiply<F16, F16>(g);
}

const GemmHeading kHeading = {"Emulated GPU", 1, kGemmWorkspaceUsed};

ProductIndex prepared;
GemmChoices choices;

// Nothing is measured here: a product that the table does not have takes what would be its first
// candidate, of 64 bytes that say only which product it was made for.
void prepare(const ProductKey& key) {
    choices.bind(key);
    if (prepared.find(key) >= 0 || !emulation::take_for_product()) return;
    const int number = prepared.add(key);
    if (const GemmEntry* given = choices.given(key)) return choices.take(*given);
    if (!choices.measures()) return;
    GemmEntry entry{key, 0, 1, {}};
    std::memcpy(entry.algorithm.data(), &number, sizeof number);
    choices.add_tuned(entry, 0);
}

}  // namespace

std::string use_products(const std::string& table, bool measure) {
    return choices.use(kHeading, table, measure);
}

GpuProducts products_in_use() {
    return choices.products();
}

std::string products_file() {
    return table_file_name(kHeading);
}

// On a lane, a product must have been prepared; the tests of single kernels have no lane.
void gemm(const Gemm& g, void* workspace, void* stream) noexcept {
    CHECK(g.out == g.in || g.out == Dtype::f32);
    if (is_preparing()) return prepare(key_of(g));
    if (stream == nullptr) return run_product(g, workspace);
    CHECK_NOTE(prepared.find(key_of(g)) >= 0,
               "a product that was not prepared when its op was bound");
    emulation::put_launch(stream, [=] { run_product(g, workspace); });
}

}  // namespace plumb::cuda
