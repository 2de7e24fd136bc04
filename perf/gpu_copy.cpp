// CUDA's own copy, beside which kernels that move memory are measured. Built with CUDA only.
#include <cuda_runtime.h>

#include "kernels/cuda/cuda_check.h"
#include "runtime/base/types.h"

namespace plumb::testing {

void copy_within_gpu(void* to, const void* from, int64_t size_bytes, void* stream) noexcept {
    CUDA_CHECK(cudaMemcpyAsync(to, from, static_cast<size_t>(size_bytes), cudaMemcpyDeviceToDevice,
                               static_cast<cudaStream_t>(stream)));
}

}  // namespace plumb::testing
