// Every kernel of one instruction set, by family; the table puts them at their op kinds.
// Path: hot.
#pragma once

#include "kernels/kernels.h"

namespace plumb::cpu::PLUMB_ISA {

void embed(const KernelArgs& args) noexcept;
void embed_backward(const KernelArgs& args) noexcept;
void norm(const KernelArgs& args) noexcept;
void norm_backward(const KernelArgs& args) noexcept;
void matmul(const KernelArgs& args) noexcept;
void matmul_dx(const KernelArgs& args) noexcept;
void matmul_dw(const KernelArgs& args) noexcept;
void gelu_backward(const KernelArgs& args) noexcept;
void swiglu(const KernelArgs& args) noexcept;
void swiglu_backward(const KernelArgs& args) noexcept;
void rope(const KernelArgs& args) noexcept;
void attention(const KernelArgs& args) noexcept;
void attention_backward(const KernelArgs& args) noexcept;
void attention_cached(const KernelArgs& args) noexcept;
void head_loss(const KernelArgs& args) noexcept;
void head_loss_backward(const KernelArgs& args) noexcept;
void select_rows(const KernelArgs& args) noexcept;
void sample(const KernelArgs& args) noexcept;
void add(const KernelArgs& args) noexcept;
void fold(const KernelArgs& args) noexcept;
void grad_norm(const KernelArgs& args) noexcept;
void clip(const KernelArgs& args) noexcept;
void loss_scale(const KernelArgs& args) noexcept;
void adamw(const KernelArgs& args) noexcept;
void init(const KernelArgs& args) noexcept;
void zero(const KernelArgs& args) noexcept;
void digest(const KernelArgs& args) noexcept;

}  // namespace plumb::cpu::PLUMB_ISA
