// CUDA_CHECK: calls of the CUDA runtime that cannot fail unless the program is wrong or the device
// is lost. Failures of set-up that a user can mend (no device, no memory) are Errors and not this:
// CUDA_GRANTED, for calls before seal that may need memory, is false when there is too little.
// Path: hot.
#pragma once

#include <cuda_runtime.h>

#include "runtime/base/check.h"

#define CUDA_CHECK(call)                                                 \
    do {                                                                 \
        const cudaError_t cuda_check_error = (call);                     \
        if (cuda_check_error != cudaSuccess)                             \
            ::plumb::check_failed(__FILE__, __LINE__, #call,             \
                                  cudaGetErrorString(cuda_check_error)); \
    } while (false)

#define CUDA_GRANTED(call) ::plumb::cuda::granted(__FILE__, __LINE__, #call, (call))

namespace plumb::cuda {

// Takes an error that is answered for: CUDA keeps it for the thread's next cudaPeekAtLastError,
// which would blame a kernel.
inline void forget_error() noexcept {
    static_cast<void>(cudaGetLastError());
}

inline bool granted(const char* file, int line, const char* call, cudaError_t status) noexcept {
    if (status == cudaSuccess) return true;
    if (status != cudaErrorMemoryAllocation)
        check_failed(file, line, call, cudaGetErrorString(status));
    forget_error();
    return false;
}

}  // namespace plumb::cuda
