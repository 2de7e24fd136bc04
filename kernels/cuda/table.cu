#include "kernels/cuda/kernel_list.h"

namespace plumb::cuda {

namespace {

KernelTable make_table(Isa isa) noexcept {
    KernelTable made{isa, true, {}};
    add_activation(made);
    add_head_loss(made);
    add_matmul(made);
    add_optimizer(made);
    add_grad_norm(made);
    add_state(made);
    add_embed(made);
    add_norm(made);
    add_rope(made);
    add_sample(made);
    add_attention(made);
    add_attention_backward(made);
    add_attention_cached(made);
    return made;
}

}  // namespace

const KernelTable& table(Isa isa) noexcept {
    static const KernelTable sm80 = make_table(Isa::sm80), sm90 = make_table(Isa::sm90);
    return isa == Isa::sm80 ? sm80 : sm90;
}

}  // namespace plumb::cuda
