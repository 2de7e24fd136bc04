// What the planner must know of the CUDA kernels. Plain C++: a machine without CUDA plans for one.
#include "kernels/cuda/scratch.h"
#include "kernels/kernels.h"

namespace plumb {

namespace {

int64_t scratch_bytes(const Op& op, const Shape* shape, const DeviceRecord& device) {
    static_cast<void>(device);
    const AttentionAttrs& attention = op.attrs.attention;
    switch (op.kind) {
        case OpKind::attention_backward:
            return cuda::attention_backward_scratch_bytes(
                shape[AttentionBackwardOperands::lse].elements());
        case OpKind::attention_cached: {
            using O = AttentionCachedOperands;
            return cuda::attention_cached_scratch_bytes(
                shape[O::qkv].dim[1], shape[O::qkv].rows() * attention.heads,
                shape[O::k_cache].dim[1], attention.head_size);
        }
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
