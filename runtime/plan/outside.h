// The rows of a plan for memory that no arena holds: code and libraries, stacks, the C library's
// heap. Estimates from constants taken on one machine, and each row says so, except for the stack
// of the thread that saves beside the training: that is reserved as it is planned. They enter no
// digest.
// Path: cold.
#pragma once

#include <vector>

#include "runtime/plan/plan.h"

namespace plumb {

// What the codec and the file calls of a save need is some 20 KiB; sanitizers multiply it. What
// CUDA's driver needs for a copy on that thread NVIDIA does not say: it has four times as much
// then.
inline constexpr int64_t kSavingStackBytes = 256 * kKiB;
constexpr int64_t saving_stack_bytes(Isa isa) {
    return is_cuda(isa) ? 4 * kSavingStackBytes : kSavingStackBytes;
}

std::vector<OutsideRow> outside_rows(const Program& program, const DeviceRecord& device);

}  // namespace plumb
