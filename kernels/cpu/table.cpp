#include "kernels/cpu/isa_tables.h"
#include "kernels/cpu/kernel_list.h"
#include "kernels/cpu/products.h"

namespace plumb::cpu::PLUMB_ISA {
namespace {

constexpr KernelTable make_table() {
    KernelTable t{Isa::PLUMB_ISA, false, {}};
    const auto set = [&](OpKind kind, Kernel f32, Kernel bf16 = nullptr, Kernel f16 = nullptr) {
        Kernel* row = t.kernel[static_cast<int>(kind)];
        row[value_index(Dtype::f32)] = f32;
        row[value_index(Dtype::bf16)] = bf16;
        row[value_index(Dtype::f16)] = f16;
    };
    set(OpKind::embed, embed<float>, embed<Bf16>, embed<F16>);
    set(OpKind::embed_backward, embed_backward<float>, embed_backward<Bf16>, embed_backward<F16>);
    set(OpKind::norm, norm<float>, norm<Bf16>, norm<F16>);
    set(OpKind::norm_backward, norm_backward<float>, norm_backward<Bf16>, norm_backward<F16>);
    set(OpKind::matmul, matmul<float>, matmul<Bf16>, matmul<F16>);
    set(OpKind::matmul_dx, matmul_dx<float>, matmul_dx<Bf16>, matmul_dx<F16>);
    set(OpKind::matmul_dw, matmul_dw<float>, matmul_dw<Bf16>, matmul_dw<F16>);
    set(OpKind::gelu, gelu<float>, gelu<Bf16>, gelu<F16>);
    set(OpKind::gelu_backward, gelu_backward<float>, gelu_backward<Bf16>, gelu_backward<F16>);
    set(OpKind::swiglu, swiglu<float>, swiglu<Bf16>, swiglu<F16>);
    set(OpKind::swiglu_backward, swiglu_backward<float>, swiglu_backward<Bf16>,
        swiglu_backward<F16>);
    set(OpKind::rope, rope<float>, rope<Bf16>, rope<F16>);
    set(OpKind::attention, attention<float>, attention<Bf16>, attention<F16>);
    set(OpKind::attention_backward, attention_backward<float>, attention_backward<Bf16>,
        attention_backward<F16>);
    set(OpKind::attention_cached, attention_cached<float>, attention_cached<Bf16>,
        attention_cached<F16>);
    set(OpKind::head_loss, head_loss<float>, head_loss<Bf16>, head_loss<F16>);
    set(OpKind::head_loss_backward, head_loss_backward<float>, head_loss_backward<Bf16>,
        head_loss_backward<F16>);
    set(OpKind::select_rows, select_rows<float>, select_rows<Bf16>, select_rows<F16>);
    set(OpKind::sample, sample);
    set(OpKind::add, add<float>, add<Bf16>, add<F16>);
    set(OpKind::fold, fold);
    set(OpKind::grad_norm, grad_norm);
    set(OpKind::clip, clip);
    set(OpKind::adamw, adamw<float>, adamw<Bf16>, adamw<F16>);
    set(OpKind::loss_scale, loss_scale);
    set(OpKind::init, init<float>, init<Bf16>, init<F16>);
    set(OpKind::zero, zero);
    set(OpKind::digest, digest<float>, digest<Bf16>);
    return t;
}

constexpr KernelTable kTable = make_table();

}  // namespace

const KernelTable& table() noexcept {
    return kTable;
}

namespace {

// Twelve independent accumulators hide the latency of the multiply-add (4 cycles, 6 of pairs; up to
// 2 per cycle); the empty asm makes x unknown, so that no product is computed only once.
template <typename V>
double spin(V x, V y, int64_t rounds, int64_t products) {
    constexpr int kChains = 12;
    VecF chain[kChains] = {};
    for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
        for (int i = 0; i < kChains; ++i) {
            asm volatile("" : "+x"(x));
            chain[i] = add_product(chain[i], x, y);
        }
    }
    VecF sum{};
    for (int i = 0; i < kChains; ++i) sum += chain[i];
    asm volatile("" : "+x"(sum));
    return static_cast<double>(rounds * kChains * products) * 2.0;
}

}  // namespace

double spin_flops(Dtype dtype, int64_t rounds) noexcept {
    const VecF small = splat(1e-9F);
    if (!Value<Bf16>::pair || dtype != Dtype::bf16) return spin(small, small, rounds, kLanes);
    Bf16 pairs[2 * kLanes];
    store(pairs, small);
    store(pairs + kLanes, small);
    const auto words = load_words(static_cast<const Bf16*>(pairs));
    return spin(words, words, rounds, kWordLanes<Bf16>);
}

}  // namespace plumb::cpu::PLUMB_ISA
