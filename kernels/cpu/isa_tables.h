// What each instruction set's objects offer to the dispatcher.
// Path: cold.
#pragma once

#include "kernels/kernels.h"

#define PLUMB_DECLARE_ISA(isa)                               \
    namespace plumb::cpu::isa {                              \
    const KernelTable& table() noexcept;                     \
    /* Multiply-adds on registers; its flops. */             \
    double spin_flops(Dtype dtype, int64_t rounds) noexcept; \
    }
PLUMB_DECLARE_ISA(portable)
PLUMB_DECLARE_ISA(avx2)
PLUMB_DECLARE_ISA(avx512)
PLUMB_DECLARE_ISA(avx512_bf16)
#undef PLUMB_DECLARE_ISA
