#include "kernels/cpu/isa_tables.h"
#include "kernels/cpu/kernel_list.h"
#include "kernels/cpu/vec.h"

namespace plumb::cpu::PLUMB_ISA {
namespace {

constexpr KernelTable make_table() {
    KernelTable t{Isa::PLUMB_ISA, {}};
    const auto set = [&](OpKind kind, Kernel kernel) {
        t.kernel[static_cast<int>(kind)][0] = kernel;
    };
    set(OpKind::embed, embed);
    set(OpKind::embed_backward, embed_backward);
    set(OpKind::norm, norm);
    set(OpKind::norm_backward, norm_backward);
    set(OpKind::matmul, matmul);
    set(OpKind::matmul_dx, matmul_dx);
    set(OpKind::matmul_dw, matmul_dw);
    set(OpKind::gelu_backward, gelu_backward);
    set(OpKind::swiglu, swiglu);
    set(OpKind::swiglu_backward, swiglu_backward);
    set(OpKind::rope, rope);
    set(OpKind::attention, attention);
    set(OpKind::attention_backward, attention_backward);
    set(OpKind::attention_cached, attention_cached);
    set(OpKind::head_loss, head_loss);
    set(OpKind::head_loss_backward, head_loss_backward);
    set(OpKind::select_rows, select_rows);
    set(OpKind::sample, sample);
    set(OpKind::add, add);
    set(OpKind::fold, fold);
    set(OpKind::grad_norm, grad_norm);
    set(OpKind::clip, clip);
    set(OpKind::adamw, adamw);
    set(OpKind::loss_scale, loss_scale);
    set(OpKind::init, init);
    set(OpKind::zero, zero);
    set(OpKind::digest, digest);
    return t;
}

constexpr KernelTable kTable = make_table();

}  // namespace

const KernelTable& table() noexcept {
    return kTable;
}

// Twelve independent accumulators hide the latency of the multiply-add (4 cycles, up to 2 per
// cycle); the empty asm makes x unknown, so that no product is computed only once.
double spin_flops(int64_t rounds) noexcept {
    constexpr int kChains = 12;
    VecF chain[kChains] = {};
    VecF x = splat(1e-9F);
    const VecF y = splat(1e-9F);
    for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
        for (int i = 0; i < kChains; ++i) {
            asm volatile("" : "+x"(x));
            chain[i] += x * y;
        }
    }
    VecF sum{};
    for (int i = 0; i < kChains; ++i) sum += chain[i];
    asm volatile("" : "+x"(sum));
    return static_cast<double>(rounds * kChains * kLanes) * 2.0;
}

}  // namespace plumb::cpu::PLUMB_ISA
