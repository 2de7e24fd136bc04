#include <cuda_runtime.h>

#include <cstdio>
#include <map>

#include "kernels/cuda/cublaslt.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/prepare.h"
#include "tests/kernels/gpu/gpu.h"

namespace plumb::testing::gpu {

namespace {

struct Blocks {
    std::multimap<size_t, void*> free;
    std::map<void*, size_t> size_of;
};
// For as long as any test runs.
Blocks& blocks() {
    static Blocks& made = *new Blocks;
    return made;
}

std::optional<Isa> find_gpu() {
    int count = 0;
    if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) {
        std::fprintf(stderr, "note: no GPU: the CUDA kernels are not tested\n");
        return {};
    }
    cudaDeviceProp properties;
    CUDA_CHECK(cudaGetDeviceProperties(&properties, 0));
    const int capability = properties.major * 10 + properties.minor;
    if (capability != 80 && capability != 90) {
        std::fprintf(stderr,
                     "note: %s is sm_%d; kernels are built for sm_80 and sm_90: not tested\n",
                     properties.name, capability);
        return {};
    }
    const std::string missing = cuda::load_cublaslt();
    CHECK_NOTE(missing.empty(), missing.c_str());
    std::fprintf(stderr, "note: CUDA kernels run on %s (sm_%d), cuBLASLt %ld\n", properties.name,
                 capability, cuda::cublaslt_version());
    return capability == 90 ? Isa::sm90 : Isa::sm80;
}

}  // namespace

std::optional<Isa> isa() {
    static const std::optional<Isa> found = find_gpu();
    return found;
}

// Managed memory is slow to be touched first, and hundreds of cases want scratch of the same size:
// what is released is kept for the next that asks for as much.
void* allocate(size_t size_bytes) {
    if (!isa()) return ::operator new(size_bytes);
    auto& [free, size_of] = blocks();
    if (const auto kept = free.find(size_bytes); kept != free.end())
        return free.extract(kept).mapped();
    void* memory = nullptr;
    CUDA_CHECK(cudaMallocManaged(&memory, size_bytes));
    size_of[memory] = size_bytes;
    return memory;
}

void release(void* memory) {
    if (!isa()) return ::operator delete(memory);
    auto& [free, size_of] = blocks();
    free.emplace(size_of.at(memory), memory);
}

void run(Kernel kernel, const KernelArgs& args, bool) {
    {
        const cuda::Preparing preparing;
        kernel(args);
    }
    kernel(args);
    CUDA_CHECK(cudaDeviceSynchronize());
}

}  // namespace plumb::testing::gpu
