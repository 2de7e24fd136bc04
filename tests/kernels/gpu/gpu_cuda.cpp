#include <cuda_runtime.h>

#include <cstdio>

#include "kernels/cuda/cublaslt.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/prepare.h"
#include "tests/kernels/gpu/gpu.h"

namespace plumb::testing::gpu {

namespace {

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

void* allocate(size_t size_bytes) {
    if (!isa()) return ::operator new(size_bytes);
    void* memory = nullptr;
    CUDA_CHECK(cudaMallocManaged(&memory, size_bytes));
    return memory;
}

void release(void* memory) {
    if (!isa()) return ::operator delete(memory);
    CUDA_CHECK(cudaFree(memory));
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
