// What the planner must know of the CUDA kernels. Plain C++: a machine without CUDA plans for one.
#include "kernels/cuda/scratch.h"
#include "kernels/kernels.h"

namespace plumb {

namespace {

int64_t scratch_bytes(const Op& op, const Shape* shape, const DeviceRecord& device) {
    static_cast<void>(device);
    switch (op.kind) {
        case OpKind::embed_backward: {
            const Shape& dx = shape[EmbedBackwardOperands::dx];
            return cuda::sorted_rows_layout(dx.rows(), dx.last()).total();
        }
        case OpKind::norm_backward: {
            using O = NormBackwardOperands;
            const int params =
                (shape[O::dgamma].rank > 0 ? 1 : 0) + (shape[O::dbeta].rank > 0 ? 1 : 0);
            return cuda::norm_backward_scratch_bytes(shape[O::x].rows(), shape[O::x].last(),
                                                     params);
        }
        case OpKind::sample: {
            const Shape& logits = shape[SampleOperands::logits];
            return logits.dim[0] * cuda::sample_row_bytes(logits.dim[1]);
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
