// What the planner must know of kernels without running them: how much private scratch an op needs
// on a named device. Traits are plain C++ tables (kernels/), so a laptop can plan for any machine.
// A device record holds what traits read, and its name; all but the name enters the plan digest.
// Path: cold.
#pragma once

#include "runtime/program/op.h"

namespace plumb {

// Instruction sets of CPUs, of which each has all of those before it, and of NVIDIA GPUs (compute
// capability 8.0 and 9.0).
enum class Isa : uint8_t { portable, avx2, avx512, avx512_bf16, sm80, sm90 };
inline constexpr int kCpuIsaCount = 4;

constexpr bool is_cuda(Isa isa) {
    return isa >= Isa::sm80;
}
constexpr const char* isa_name(Isa isa) {
    constexpr const char* kNames[] = {"portable", "avx2", "avx512", "avx512_bf16", "sm80", "sm90"};
    return kNames[static_cast<int>(isa)];
}

struct DeviceRecord {
    char name[24];
    Isa isa;
    int32_t threads;  // of a CPU; 1 for a GPU
};

struct KernelTraits {
    const char* name;
    // Bytes of scratch for an op; shape[i] is the shape of operand i (rank 0 when absent).
    int64_t (*scratch_bytes)(const Op& op, const Shape* shape, const DeviceRecord& device);
};

}  // namespace plumb
