// What the planner must know of kernels without running them: how much private scratch an op needs
// on a named device. Traits are plain C++ tables (kernels/), so a laptop can plan for any machine.
// A device record holds what traits read, and its name; all but the name enters the plan digest.
// Path: cold.
#pragma once

#include "runtime/program/op.h"

namespace plumb {

// Each has all of those before it.
enum class Isa : uint8_t { portable, avx2, avx512, avx512_bf16 };
inline constexpr int kIsaCount = 4;

constexpr const char* isa_name(Isa isa) {
    constexpr const char* kNames[kIsaCount] = {"portable", "avx2", "avx512", "avx512_bf16"};
    return kNames[static_cast<int>(isa)];
}

struct DeviceRecord {
    char name[24];
    Isa isa;
    int32_t threads;
};

struct KernelTraits {
    const char* name;
    // Bytes of scratch for an op; shape[i] is the shape of operand i (rank 0 when absent).
    int64_t (*scratch_bytes)(const Op& op, const Shape* shape, const DeviceRecord& device);
};

}  // namespace plumb
