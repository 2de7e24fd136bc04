// Whether run.device = "cuda" works in this test: on a real GPU (preset cuda), on the emulated one,
// or not at all. And how to choose the order of whatever may happen in any order, where that can be
// chosen: of threads and blocks, and which lanes run at once instead of as late as they may.
// Path: cold.
#pragma once

#include "kernels/gpu.h"
#include "runtime/base/error.h"
#ifdef PLUMB_CUDA_EMULATION
#include <cuda_emulation.h>

#include "tests/kernels/gpu/gpu_emulation.h"
#endif

namespace plumb::testing::gpu {

inline bool is_there() {
    try {
        usable_isa(probe_gpu());
        return true;
    } catch (const Error&) {
        return false;
    }
}

#ifdef PLUMB_CUDA_EMULATION
inline constexpr bool kEmulated = true;
inline void set_reversed(bool reversed) {
    cuda::emulation::set_reversed(reversed);
}
inline void set_eager_lanes(const std::string& names) {
    cuda::emulation::set_eager_lanes(names);
}
#else
inline constexpr bool kEmulated = false;
inline void set_reversed(bool) {}
inline void set_eager_lanes(const std::string&) {}
#endif

}  // namespace plumb::testing::gpu
