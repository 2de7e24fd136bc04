// Every kernel of one instruction set, by family; the table puts them at their op kinds. Templates
// are over the type of values in memory: float, Bf16 and F16 (vec.h), instantiated where they are
// defined by PLUMB_VALUE_KERNEL.
// Path: hot.
#pragma once

#include "kernels/kernels.h"

namespace plumb::cpu::PLUMB_ISA {

template <typename T>
void embed(const KernelArgs& args) noexcept;
template <typename T>
void embed_backward(const KernelArgs& args) noexcept;
template <typename T>
void norm(const KernelArgs& args) noexcept;
template <typename T>
void norm_backward(const KernelArgs& args) noexcept;
template <typename T>
void matmul(const KernelArgs& args) noexcept;
template <typename T>
void matmul_dx(const KernelArgs& args) noexcept;
template <typename T>
void matmul_dw(const KernelArgs& args) noexcept;
template <typename T>
void gelu(const KernelArgs& args) noexcept;
template <typename T>
void gelu_backward(const KernelArgs& args) noexcept;
template <typename T>
void swiglu(const KernelArgs& args) noexcept;
template <typename T>
void swiglu_backward(const KernelArgs& args) noexcept;
template <typename T>
void rope(const KernelArgs& args) noexcept;
template <typename T>
void attention(const KernelArgs& args) noexcept;
template <typename T>
void attention_backward(const KernelArgs& args) noexcept;
template <typename T>
void attention_cached(const KernelArgs& args) noexcept;
template <typename T>
void head_loss(const KernelArgs& args) noexcept;
template <typename T>
void head_loss_backward(const KernelArgs& args) noexcept;
template <typename T>
void select_rows(const KernelArgs& args) noexcept;
void sample(const KernelArgs& args) noexcept;
template <typename T>
void add(const KernelArgs& args) noexcept;
void fold(const KernelArgs& args) noexcept;
void grad_norm(const KernelArgs& args) noexcept;
void clip(const KernelArgs& args) noexcept;
void loss_scale(const KernelArgs& args) noexcept;
template <typename T>
void adamw(const KernelArgs& args) noexcept;
template <typename T>
void init(const KernelArgs& args) noexcept;
void zero(const KernelArgs& args) noexcept;
template <typename T>
void digest(const KernelArgs& args) noexcept;

#define PLUMB_VALUE_KERNEL(name)                           \
    template void name<float>(const KernelArgs&) noexcept; \
    template void name<Bf16>(const KernelArgs&) noexcept;  \
    template void name<F16>(const KernelArgs&) noexcept;

}  // namespace plumb::cpu::PLUMB_ISA
