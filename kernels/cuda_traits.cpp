// What the planner must know of the CUDA kernels. Plain C++: a machine without CUDA plans for one.
#include "kernels/cuda/scratch.h"
#include "kernels/kernels.h"

namespace plumb {

namespace {

int64_t loss_bytes(const Op& op, const Shape& x, const Shape& w) {
    const int64_t chunk = op.attrs.loss.chunk < x.rows() ? op.attrs.loss.chunk : x.rows();
    return cuda::head_loss_scratch_bytes(chunk, w.dim[0]);
}

int64_t scratch_bytes(const Op& op, const Shape* shape, const DeviceRecord& device) {
    static_cast<void>(device);
    const AttentionAttrs& attention = op.attrs.attention;
    switch (op.kind) {
        case OpKind::matmul: {
            using O = MatmulOperands;
            if (shape[O::x].rows() <= cuda::kMatmulStreamRows || op.attrs.matmul.by_row != 0)
                return 0;
            const bool rounded =
                shape[O::bias].rank > 0 && op.dtype != Dtype::f32 && op.attrs.matmul.wide == 0;
            return cuda::matmul_scratch_bytes(shape[O::w].dim[0], rounded, op.dtype);
        }
        case OpKind::matmul_dx:
            return cuda::kGemmWorkspaceBytes;
        case OpKind::matmul_dw: {
            const Shape& dy = shape[MatmulDwOperands::dy];
            return cuda::kGemmWorkspaceBytes + (shape[MatmulDwOperands::dbias].rank > 0
                                                    ? cuda::column_sum_bytes(dy.rows(), dy.last())
                                                    : 0);
        }
        case OpKind::head_loss: {
            using O = HeadLossOperands;
            return loss_bytes(op, shape[O::x], shape[O::w]);
        }
        case OpKind::head_loss_backward: {
            using O = HeadLossBackwardOperands;
            return loss_bytes(op, shape[O::x], shape[O::w]);
        }
        case OpKind::grad_norm:
            return cuda::sum_scratch_bytes(shape[GradNormOperands::g].elements());
        case OpKind::digest:
            return cuda::sum_scratch_bytes(shape[DigestOperands::t].elements());
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
