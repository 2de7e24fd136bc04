// CUDA_CHECK: calls of the CUDA runtime that cannot fail unless the program is wrong or the device
// is lost. Failures of set-up that a user can mend (no device, no memory) are Errors and not this.
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
