// What the planner must know of the CUDA kernels. Plain C++: a machine without CUDA plans for one.
#include "kernels/cuda/scratch.h"
#include "kernels/kernels.h"

namespace plumb {

namespace {

int64_t scratch_bytes(const Op& op, const Shape* shape, const DeviceRecord& device) {
    static_cast<void>(device);
    switch (op.kind) {
        case OpKind::grad_norm:
            return cuda::sum_scratch_bytes(shape[GradNormOperands::g].elements());
        case OpKind::digest:
            return cuda::sum_scratch_bytes(shape[DigestOperands::t].elements());
        default:
            return 0;
    }
}

constexpr KernelTraits kCudaTraits = {"cuda", scratch_bytes};

}  // namespace

const KernelTraits& cuda_traits() noexcept {
    return kCudaTraits;
}

}  // namespace plumb
