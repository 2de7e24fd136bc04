// The CUDA kernels by family: each file of kernels puts its own into the table (table.cu). As on
// the CPU, templates are over the type of values in memory: float, Bf16 and F16.
// Path: cold.
#pragma once

#include "kernels/kernels.h"

namespace plumb::cuda {

void add_activation(KernelTable& table) noexcept;
void add_head_loss(KernelTable& table) noexcept;
void add_matmul(KernelTable& table) noexcept;
void add_optimizer(KernelTable& table) noexcept;
void add_grad_norm(KernelTable& table) noexcept;
void add_state(KernelTable& table) noexcept;
void add_embed(KernelTable& table) noexcept;
void add_norm(KernelTable& table) noexcept;
void add_rope(KernelTable& table) noexcept;
void add_sample(KernelTable& table) noexcept;
void add_attention(KernelTable& table) noexcept;
void add_attention_backward(KernelTable& table) noexcept;
void add_attention_cached(KernelTable& table) noexcept;

inline void set_kernels(KernelTable& table, OpKind kind, Kernel f32, Kernel bf16 = nullptr,
                        Kernel f16 = nullptr) noexcept {
    Kernel* row = table.kernel[static_cast<int>(kind)];
    row[value_index(Dtype::f32)] = f32;
    row[value_index(Dtype::bf16)] = bf16;
    row[value_index(Dtype::f16)] = f16;
}

// Of one GPU generation: sm80 or sm90.
const KernelTable& table(Isa isa) noexcept;

}  // namespace plumb::cuda
