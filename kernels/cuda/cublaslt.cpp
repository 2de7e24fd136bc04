#include "kernels/cuda/cublaslt.h"

#include <cublasLt.h>
#include <dlfcn.h>

#include <cstdio>

#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/prepare.h"
#include "kernels/cuda/product_key.h"
#include "kernels/cuda/scratch.h"

namespace plumb::cuda {

namespace {

#define PLUMB_CUBLASLT_FUNCTIONS(of)                                                    \
    of(cublasLtCreate) of(cublasLtGetVersion) of(cublasLtMatmulDescCreate)              \
        of(cublasLtMatmulDescSetAttribute) of(cublasLtMatrixLayoutCreate)               \
            of(cublasLtMatmulPreferenceCreate) of(cublasLtMatmulPreferenceSetAttribute) \
                of(cublasLtMatmulPreferenceDestroy) of(cublasLtMatmulAlgoGetHeuristic)  \
                    of(cublasLtMatmul)

struct Library {
#define PLUMB_DECLARE(name) decltype(&::name) name = nullptr;
    PLUMB_CUBLASLT_FUNCTIONS(PLUMB_DECLARE)
#undef PLUMB_DECLARE
    cublasLtHandle_t handle = nullptr;
} library;

#define CUBLASLT_CHECK(call) check_status(call, #call)

void check_status(cublasStatus_t status, const char* call) {
    if (status == CUBLAS_STATUS_SUCCESS) return;
    char note[64];
    std::snprintf(note, sizeof note, "cuBLASLt's status %d", static_cast<int>(status));
    check_failed(__FILE__, __LINE__, call, note);
}

struct Product {
    ProductKey key;
    cublasLtMatmulDesc_t operation;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulAlgo_t algorithm;
};

constexpr int kProductsMax = 1024;
Product products[kProductsMax];
int product_count = 0;

cudaDataType_t data_type(Dtype dtype) {
    return dtype == Dtype::f32 ? CUDA_R_32F : dtype == Dtype::bf16 ? CUDA_R_16BF : CUDA_R_16F;
}

void set(cublasLtMatmulDesc_t operation, cublasLtMatmulDescAttributes_t attribute,
         const auto& value) {
    CUBLASLT_CHECK(
        library.cublasLtMatmulDescSetAttribute(operation, attribute, &value, sizeof value));
}

cublasLtMatrixLayout_t layout(Dtype dtype, int64_t rows, int64_t columns, int64_t stride) {
    cublasLtMatrixLayout_t made = nullptr;
    CUBLASLT_CHECK(library.cublasLtMatrixLayoutCreate(&made, data_type(dtype),
                                                      static_cast<uint64_t>(rows),
                                                      static_cast<uint64_t>(columns), stride));
    return made;
}

// The first of cuBLASLt's own choices without atomic sums.
cublasLtMatmulAlgo_t choose_algorithm(const Product& product) {
    cublasLtMatmulPreference_t preference = nullptr;
    CUBLASLT_CHECK(library.cublasLtMatmulPreferenceCreate(&preference));
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
        CUBLASLT_CHECK(library.cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value,
                                                                    sizeof value));
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<uint64_t>(kGemmWorkspaceUsed));
    // Parts of a sum meet in fp32: not in the result's dtype, and not in c itself.
    prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
           static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, product.key.b_align);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, product.key.a_align);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, product.key.add_align);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, product.key.c_align);
    cublasLtMatmulHeuristicResult_t best;
    int found = 0;
    CUBLASLT_CHECK(library.cublasLtMatmulAlgoGetHeuristic(library.handle, product.operation,
                                                          product.a, product.b, product.c,
                                                          product.c, preference, 1, &best, &found));
    if (found != 1 || best.state != CUBLAS_STATUS_SUCCESS) {
        const ProductKey& key = product.key;
        char note[160];
        std::snprintf(note, sizeof note,
                      "cuBLASLt has no algorithm for m %lld n %lld k %lld, %s to %s",
                      static_cast<long long>(key.m), static_cast<long long>(key.n),
                      static_cast<long long>(key.k), dtype_name(key.in), dtype_name(key.out));
        check_failed(__FILE__, __LINE__, "cublasLtMatmulAlgoGetHeuristic", note);
    }
    CUBLASLT_CHECK(library.cublasLtMatmulPreferenceDestroy(preference));
    return best.algo;
}

// cuBLASLt's matrices stand in columns: it computes the transpose, c_NM = b_NK a_KM, of which our
// rows are the columns.
const Product& make_product(const Gemm& g) {
    CHECK_NOTE(product_count < kProductsMax, "more kinds of products than there is room for");
    Product& product = products[product_count++];
    product.key = key_of(g);
    CUBLASLT_CHECK(
        library.cublasLtMatmulDescCreate(&product.operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    const cublasOperation_t as_is = CUBLAS_OP_N, turned = CUBLAS_OP_T;
    set(product.operation, CUBLASLT_MATMUL_DESC_TRANSA, g.b.transposed ? as_is : turned);
    set(product.operation, CUBLASLT_MATMUL_DESC_TRANSB, g.a.transposed ? turned : as_is);
    if (g.bias != nullptr) {
        set(product.operation, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
        set(product.operation, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, data_type(g.out));
        set(product.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, g.bias);  // for its alignment
    }
    product.a = layout(g.in, g.b.transposed ? g.n : g.k, g.b.transposed ? g.k : g.n, g.b.stride);
    product.b = layout(g.in, g.a.transposed ? g.m : g.k, g.a.transposed ? g.k : g.m, g.a.stride);
    product.c = layout(g.out, g.n, g.m, g.c_stride);
    product.algorithm = choose_algorithm(product);
    return product;
}

const Product& product_of(const Gemm& g) {
    const ProductKey key = key_of(g);
    for (int p = 0; p < product_count; ++p)
        if (is_same(products[p].key, key)) return products[p];
    CHECK_NOTE(is_preparing(), "a product that was not prepared when its op was bound");
    return make_product(g);
}

}  // namespace

void gemm(const Gemm& g, void* workspace, void* stream) noexcept {
    const Product& product = product_of(g);
    if (is_preparing()) return;
    if (g.bias != nullptr) set(product.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, g.bias);
    const auto start = align_up(reinterpret_cast<int64_t>(workspace), kGemmWorkspaceAlign);
    const float one = 1, old = g.add != nullptr ? 1 : 0;
    CUBLASLT_CHECK(library.cublasLtMatmul(
        library.handle, product.operation, &one, g.b.data, product.a, g.a.data, product.b, &old,
        g.add != nullptr ? g.add : g.c, product.c, g.c, product.c, &product.algorithm,
        reinterpret_cast<void*>(start), static_cast<size_t>(kGemmWorkspaceUsed),
        static_cast<cudaStream_t>(stream)));
}

std::string find_cublaslt() {
    if (library.cublasLtCreate != nullptr) return "";
    const std::string name = "libcublasLt.so." + std::to_string(CUDART_VERSION / 1000);
    void* loaded = ::dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (loaded == nullptr)
        return std::string("cuBLASLt, a part of the CUDA toolkit, cannot be loaded: ") +
               ::dlerror();
    Library found;
#define PLUMB_FIND(function)                                                                 \
    found.function = reinterpret_cast<decltype(found.function)>(::dlsym(loaded, #function)); \
    if (found.function == nullptr) return name + " has no " #function;
    PLUMB_CUBLASLT_FUNCTIONS(PLUMB_FIND)
#undef PLUMB_FIND
    library = found;
    return "";
}

std::string load_cublaslt() {
    if (library.handle != nullptr) return "";
    if (std::string missing = find_cublaslt(); !missing.empty()) return missing;
    const cublasStatus_t status = library.cublasLtCreate(&library.handle);
    if (status == CUBLAS_STATUS_SUCCESS) return "";
    library.handle = nullptr;
    return "cuBLASLt cannot be used: its status " + std::to_string(status);
}

long cublaslt_version() noexcept {
    return library.handle == nullptr ? 0 : static_cast<long>(library.cublasLtGetVersion());
}

}  // namespace plumb::cuda
