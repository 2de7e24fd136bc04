#include "kernels/blocking.h"
#include "kernels/kernels.h"

namespace plumb {

namespace {

int64_t matmul_floats(const Op& op, const Shape* shape, const GemmBlocking& block,
                      int64_t threads) {
    const bool halves = op.dtype != Dtype::f32;
    if (op.kind == OpKind::matmul) {
        using O = MatmulOperands;
        const int64_t rows = shape[O::x].rows();
        if (rows <= kMatmulStreamRows || op.attrs.matmul.by_row != 0) return 0;
        const bool narrow = halves && op.attrs.matmul.wide == 0;
        return gemm_scratch_words(block, {rows, shape[O::w].dim[0], shape[O::x].last(), narrow},
                                  threads);
    }
    if (op.kind == OpKind::matmul_dx) {
        using O = MatmulDxOperands;
        return gemm_scratch_words(
            block, {shape[O::dy].rows(), shape[O::w].last(), shape[O::dy].last(), halves}, threads);
    }
    using O = MatmulDwOperands;
    if (shape[O::dw].rank == 0) return 0;
    return gemm_scratch_words(
        block, {shape[O::dy].last(), shape[O::x].last(), shape[O::dy].rows(), false}, threads);
}

int64_t loss_floats(const Op& op, const Shape* shape, const GemmBlocking& block, int64_t threads) {
    using F = HeadLossOperands;
    using B = HeadLossBackwardOperands;
    const bool backward = op.kind == OpKind::head_loss_backward;
    const Shape& x = shape[backward ? static_cast<int>(B::x) : static_cast<int>(F::x)];
    const Shape& w = shape[backward ? static_cast<int>(B::w) : static_cast<int>(F::w)];
    return head_loss_scratch_floats(block,
                                    {lesser(op.attrs.loss.chunk, x.rows()), x.last(), w.dim[0],
                                     backward, op.dtype != Dtype::f32},
                                    threads);
}

int64_t scratch_bytes(const Op& op, const Shape* shape, const DeviceRecord& device) {
    const GemmBlocking block = gemm_blocking(device.isa, op.dtype);
    const int64_t threads = device.threads;
    const AttentionAttrs& attention = op.attrs.attention;
    const bool narrow = dtype_bytes(op.dtype) < 4;
    int64_t floats = 0;
    switch (op.kind) {
        case OpKind::norm_backward: {
            const Shape& x = shape[NormBackwardOperands::x];
            floats = norm_backward_scratch_floats(x.rows(), x.last());
            break;
        }
        case OpKind::matmul:
        case OpKind::matmul_dx:
        case OpKind::matmul_dw:
            floats = matmul_floats(op, shape, block, threads);
            break;
        case OpKind::rope:
            floats = rope_scratch_floats(attention.head_size, threads);
            break;
        case OpKind::attention:
            floats = threads * attention_scratch_floats(attention.head_size, narrow);
            break;
        case OpKind::attention_backward:
            floats = threads * attention_backward_scratch_floats(
                                   attention.head_size,
                                   shape[AttentionBackwardOperands::dqkv].dim[1], narrow);
            break;
        case OpKind::attention_cached:
            floats = threads *
                     attention_cached_scratch_floats(
                         attention.head_size, shape[AttentionCachedOperands::qkv].dim[1], narrow);
            break;
        case OpKind::head_loss:
        case OpKind::head_loss_backward:
            floats = loss_floats(op, shape, block, threads);
            break;
        case OpKind::sample: {
            const Shape& logits = shape[SampleOperands::logits];
            floats = sample_scratch_floats(logits.dim[0], logits.dim[1], threads);
            break;
        }
        default:
            break;
    }
    return align_up(floats * static_cast<int64_t>(sizeof(float)), kAlignBytes);
}

constexpr KernelTraits kCpuTraits = {"cpu", scratch_bytes};

}  // namespace

bool computes_in_bf16(const DeviceRecord& device) noexcept {
    return device.isa == Isa::avx512_bf16 || is_cuda(device.isa);
}
const KernelTraits& kernel_traits(Isa isa) noexcept {
    return is_cuda(isa) ? cuda_traits() : cpu_traits();
}

const KernelTraits& cpu_traits() noexcept {
    return kCpuTraits;
}

}  // namespace plumb
