#include "kernels/cuda/cublaslt.h"

#include <cublasLt.h>
#include <dlfcn.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <limits>

#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/gemm_choices.h"
#include "kernels/cuda/prepare.h"
#include "kernels/cuda/scratch.h"

namespace plumb::cuda {

namespace {

#define PLUMB_CUBLASLT_FUNCTIONS(of)                                                     \
    of(cublasLtCreate) of(cublasLtGetVersion) of(cublasLtMatmulDescCreate)               \
        of(cublasLtMatmulDescSetAttribute) of(cublasLtMatrixLayoutCreate)                \
            of(cublasLtMatmulPreferenceCreate) of(cublasLtMatmulPreferenceSetAttribute)  \
                of(cublasLtMatmulPreferenceDestroy) of(cublasLtMatmulAlgoGetHeuristic)   \
                    of(cublasLtMatmulAlgoCheck) of(cublasLtMatmulAlgoConfigGetAttribute) \
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

using Algorithm = cublasLtMatmulAlgo_t;

struct Product {
    cublasLtMatmulDesc_t operation;
    cublasLtMatrixLayout_t a, b, c;
    Algorithm algorithm;
};

ProductIndex product_index;
Product products[kProductsMax];  // by number

GemmChoices choices;

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

// Without atomic sums: parts of a sum meet in fp32, not in the result's dtype, and not in c itself.
constexpr uint32_t kReductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;

// cuBLASLt's own choices, the one it expects most of first; returns how many, at most `most`.
int find_candidates(const Product& product, const ProductKey& key, int most,
                    cublasLtMatmulHeuristicResult_t* candidates) {
    cublasLtMatmulPreference_t preference = nullptr;
    CUBLASLT_CHECK(library.cublasLtMatmulPreferenceCreate(&preference));
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
        CUBLASLT_CHECK(library.cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value,
                                                                    sizeof value));
    };
    const auto align = [&](cublasLtMatmulPreferenceAttributes_t attribute, uint32_t bytes) {
        prefer(attribute, bytes);
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<uint64_t>(kGemmWorkspaceUsed));
    prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, kReductions);
    align(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, key.b_align);
    align(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, key.a_align);
    align(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
          key.add_align != 0 ? key.add_align : key.c_align);
    align(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, key.c_align);
    int found = 0;
    const cublasStatus_t status = library.cublasLtMatmulAlgoGetHeuristic(
        library.handle, product.operation, product.a, product.b, product.c, product.c, preference,
        most, candidates, &found);
    if (status == CUBLAS_STATUS_NOT_SUPPORTED)
        found = 0;
    else
        check_status(status, "cublasLtMatmulAlgoGetHeuristic");
    CUBLASLT_CHECK(library.cublasLtMatmulPreferenceDestroy(preference));
    const auto failed = [](const auto& c) { return c.state != CUBLAS_STATUS_SUCCESS; };
    return static_cast<int>(std::remove_if(candidates, candidates + found, failed) - candidates);
}

[[noreturn]] void no_algorithm(const ProductKey& key) {
    char note[320];
    std::snprintf(note, sizeof note,
                  "cuBLASLt has no algorithm for m %lld n %lld k %lld, %s to %s%s; strides %lld "
                  "%lld %lld, transposed %d %d, on bytes %d %d %d, added %d, bias %d",
                  static_cast<long long>(key.m), static_cast<long long>(key.n),
                  static_cast<long long>(key.k), dtype_name(key.in), dtype_name(key.out),
                  key.tf32 ? " in tf32" : "", static_cast<long long>(key.a_stride),
                  static_cast<long long>(key.b_stride), static_cast<long long>(key.c_stride),
                  key.a_transposed, key.b_transposed, key.a_align, key.b_align, key.c_align,
                  key.add_align, key.bias_align);
    check_failed(__FILE__, __LINE__, "cublasLtMatmulAlgoGetHeuristic", note);
}

void* aligned_workspace(void* workspace) {
    return reinterpret_cast<void*>(
        align_up(reinterpret_cast<int64_t>(workspace), kGemmWorkspaceAlign));
}

void clear_workspace(void* workspace, void* stream) {
    CUDA_CHECK(cudaMemsetAsync(aligned_workspace(workspace), 0,
                               static_cast<size_t>(kGemmWorkspaceUsed),
                               static_cast<cudaStream_t>(stream)));
}

cublasStatus_t multiply(const Product& product, const Algorithm& algorithm, const Gemm& g,
                        void* workspace, void* stream) {
    const float one = 1, old = g.add != nullptr ? 1 : 0;
    return library.cublasLtMatmul(
        library.handle, product.operation, &one, g.b.data, product.a, g.a.data, product.b, &old,
        g.add != nullptr ? g.add : g.c, product.c, g.c, product.c, &algorithm,
        aligned_workspace(workspace), static_cast<size_t>(kGemmWorkspaceUsed),
        static_cast<cudaStream_t>(stream));
}

// Whether the library takes an algorithm for a product that is prepared: it runs, on the very
// operands, and so is its code on the GPU before a graph or a sealed run wants it. A call that
// finds no memory for that says so, or only that it failed inside; then little memory is left.
enum class Ran : uint8_t { yes, no, without_memory };

Ran try_product(const Product& product, const Algorithm& algorithm, const Gemm& g, void* workspace,
                void* stream) {
    constexpr size_t kLittleBytes = 64 * kMiB;
    const cublasStatus_t status = multiply(product, algorithm, g, workspace, stream);
    if (status == CUBLAS_STATUS_SUCCESS) return Ran::yes;
    size_t free_bytes = 0, total_bytes = 0;
    CUDA_CHECK(cudaMemGetInfo(&free_bytes, &total_bytes));
    const bool failed_inside = status == CUBLAS_STATUS_INTERNAL_ERROR ||
                               status == CUBLAS_STATUS_EXECUTION_FAILED ||
                               status == CUBLAS_STATUS_NOT_INITIALIZED;
    forget_error();
    const bool lacks =
        status == CUBLAS_STATUS_ALLOC_FAILED || (failed_inside && free_bytes < kLittleBytes);
    return lacks ? Ran::without_memory : Ran::no;
}

// None of a product's algorithms has run.
void refuse_product(Ran ran, const ProductKey& key) {
    if (ran != Ran::without_memory) no_algorithm(key);
    note_no_memory(kProductCode);
}

// The same alone, and leaves the workspace as it was found.
Ran try_once(const Product& product, const Algorithm& algorithm, const Gemm& g, void* workspace,
             void* stream) {
    const Ran ran = try_product(product, algorithm, g, workspace, stream);
    clear_workspace(workspace, stream);
    CUDA_CHECK(cudaDeviceSynchronize());
    return ran;
}

// Times launches on a stream.
class Stopwatch {
  public:
    explicit Stopwatch(void* stream) : stream_(static_cast<cudaStream_t>(stream)) {
        CUDA_CHECK(cudaEventCreate(&begin_));
        CUDA_CHECK(cudaEventCreate(&end_));
    }
    ~Stopwatch() {
        CUDA_CHECK(cudaEventDestroy(begin_));
        CUDA_CHECK(cudaEventDestroy(end_));
    }
    Stopwatch(const Stopwatch&) = delete;
    Stopwatch& operator=(const Stopwatch&) = delete;

    void start() { CUDA_CHECK(cudaEventRecord(begin_, stream_)); }
    float stop_us() {
        float ms = 0;
        CUDA_CHECK(cudaEventRecord(end_, stream_));
        CUDA_CHECK(cudaEventSynchronize(end_));
        CUDA_CHECK(cudaEventElapsedTime(&ms, begin_, end_));
        return ms * 1000;
    }

  private:
    cudaStream_t stream_;
    cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

// The median time of a candidate: at most kRuns of them, one that alone takes longer than all may.
// Before each the workspace is cleared. That leaves it as it was found, takes the operands out of
// the cache where it is small, and keeps the GPU busy until the host has sent the product:
// otherwise the time of a short one would be the host's.
constexpr int kRuns = 9;
constexpr float kCandidateUs = 30000.0F / kGemmCandidates;

float time_of(const Product& product, const Algorithm& algorithm, const Gemm& g, void* workspace,
              void* stream, Ran* worst) {
    Stopwatch watch(stream);
    float run_us[kRuns], spent_us = 0;
    int runs = 0;
    // The first loads the algorithm's code and does not count.
    for (int run = -1; run < kRuns && spent_us < kCandidateUs; ++run) {
        clear_workspace(workspace, stream);
        watch.start();
        const Ran ran = try_product(product, algorithm, g, workspace, stream);
        *worst = std::max(*worst, ran);
        if (ran != Ran::yes) return std::numeric_limits<float>::infinity();
        const float us = watch.stop_us();
        if (run < 0) continue;
        spent_us += us;
        run_us[runs++] = us;
    }
    std::nth_element(run_us, run_us + runs / 2, run_us + runs);
    return run_us[runs / 2];
}

// The fastest of cuBLASLt's choices on the very operands. All memory of the GPU is zeros while ops
// are bound, also what is added: products of zeros leave it so. Zeros heat a GPU less than values
// do; it is the order of the candidates that counts. One that finds no memory is passed over while
// another runs; what those that are not chosen have taken stays taken.
Algorithm tune(const Product& product, const ProductKey& key, const Gemm& g, void* workspace,
               void* stream) {
    const auto start = std::chrono::steady_clock::now();
    cublasLtMatmulHeuristicResult_t candidates[kGemmCandidates];
    const int found = find_candidates(product, key, kGemmCandidates, candidates);
    if (found == 0) no_algorithm(key);
    CUDA_CHECK(cudaDeviceSynchronize());  // memory may still be being cleared
    float us[kGemmCandidates];
    Ran worst = Ran::yes;
    for (int i = 0; i < found; ++i)
        us[i] = time_of(product, candidates[i].algo, g, workspace, stream, &worst);
    clear_workspace(workspace, stream);
    CUDA_CHECK(cudaDeviceSynchronize());
    const int best = choose_candidate(us, found);
    if (us[best] == std::numeric_limits<float>::infinity()) {
        refuse_product(worst, key);
        return candidates[best].algo;
    }
    GemmEntry entry{key, std::llround(static_cast<double>(us[best]) * 1000), found, {}};
    entry.algorithm = std::bit_cast<decltype(entry.algorithm)>(candidates[best].algo);
    choices.add_tuned(
        entry, std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
                   .count());
    return candidates[best].algo;
}

// Whether this library takes an algorithm that an earlier run chose, within what is allowed. One
// that finds no memory today ends the start: another would change bits, and be stored in its place.
bool is_usable(const Product& product, const Algorithm& algorithm, const Gemm& g, void* workspace,
               void* stream) {
    uint32_t reduction = 0;
    if (library.cublasLtMatmulAlgoConfigGetAttribute(
            &algorithm, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, &reduction, sizeof reduction,
            nullptr) != CUBLAS_STATUS_SUCCESS ||
        (reduction & ~kReductions) != 0)
        return false;
    cublasLtMatmulHeuristicResult_t result = {};
    if (library.cublasLtMatmulAlgoCheck(library.handle, product.operation, product.a, product.b,
                                        product.c, product.c, &algorithm,
                                        &result) != CUBLAS_STATUS_SUCCESS ||
        result.workspaceSize > static_cast<size_t>(kGemmWorkspaceUsed))
        return false;
    const Ran ran = try_once(product, algorithm, g, workspace, stream);
    if (ran == Ran::without_memory) note_no_memory(kProductCode);
    return ran != Ran::no;
}

Algorithm choose_algorithm(const Product& product, const ProductKey& key, const Gemm& g,
                           void* workspace, void* stream) {
    if (const GemmEntry* given = choices.given(key)) {
        const auto algorithm = std::bit_cast<Algorithm>(given->algorithm);
        if (is_usable(product, algorithm, g, workspace, stream)) {
            choices.take(*given);
            return algorithm;
        }
    }
    if (choices.measures()) return tune(product, key, g, workspace, stream);
    cublasLtMatmulHeuristicResult_t first;
    if (find_candidates(product, key, 1, &first) == 0) no_algorithm(key);
    // Single kernels of tests are prepared on operands that are no zeros.
    if (!choices.in_use()) return first.algo;
    const Ran ran = try_once(product, first.algo, g, workspace, stream);
    if (ran != Ran::yes) refuse_product(ran, key);
    return first.algo;
}

// cuBLASLt's matrices stand in columns: it computes the transpose, c_NM = b_NK a_KM, of which our
// rows are the columns.
Product make_product(const ProductKey& key, const Gemm& g, void* workspace, void* stream) {
    Product product = {};
    CUBLASLT_CHECK(library.cublasLtMatmulDescCreate(
        &product.operation, key.tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F,
        CUDA_R_32F));
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
    product.algorithm = choose_algorithm(product, key, g, workspace, stream);
    return product;
}

const Product& product_of(const Gemm& g, void* workspace, void* stream) {
    const ProductKey key = key_of(g);
    if (is_preparing()) choices.bind(key);
    const int known = product_index.find(key);
    if (known >= 0) return products[known];
    CHECK_NOTE(is_preparing(), "a product that was not prepared when its op was bound");
    const int number = product_index.add(key);
    products[number] = make_product(key, g, workspace, stream);
    return products[number];
}

GemmHeading machine_heading() {
    int device = 0;
    cudaDeviceProp properties;
    CUDA_CHECK(cudaGetDevice(&device));
    CUDA_CHECK(cudaGetDeviceProperties(&properties, device));
    return {properties.name, cublaslt_version(), kGemmWorkspaceUsed};
}

}  // namespace

void gemm(const Gemm& g, void* workspace, void* stream) noexcept {
    const Product& product = product_of(g, workspace, stream);
    if (is_preparing()) return;
    if (g.bias != nullptr) set(product.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, g.bias);
    CUBLASLT_CHECK(multiply(product, product.algorithm, g, workspace, stream));
}

std::string use_products(const std::string& table, bool measure) {
    return choices.use(machine_heading(), table, measure);
}

GpuProducts products_in_use() {
    return choices.products();
}

std::string products_file() {
    return table_file_name(machine_heading());
}

std::string find_cublaslt() {
    if (library.cublasLtCreate != nullptr) return "";
    const std::string name = "libcublasLt.so." + std::to_string(CUDART_VERSION / 1000);
    void* loaded = nullptr;
    std::string tried;
    // Where the system's loader looks, and where a toolkit puts it of which the loader was not
    // told.
    for (const char* folder : {"", "/usr/local/cuda/lib64/"}) {
        loaded = ::dlopen((folder + name).c_str(), RTLD_NOW | RTLD_LOCAL);
        if (loaded != nullptr) break;
        tried += std::string(tried.empty() ? "" : "; ") + ::dlerror();
    }
    if (loaded == nullptr)
        return "cuBLASLt, a part of the CUDA toolkit, cannot be loaded: " + tried;
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
    if (status == CUBLAS_STATUS_ALLOC_FAILED) note_no_memory(kProductCode);
    return "cuBLASLt cannot be used: its status " + std::to_string(status);
}

long cublaslt_version() noexcept {
    return library.handle == nullptr ? 0 : static_cast<long>(library.cublasLtGetVersion());
}

}  // namespace plumb::cuda
