// The checked build's guard. Every byte that no live tensor owns holds a NaN pattern, so that a
// kernel that reads what it should not changes the loss; each tensor is followed by a red zone in
// the same pattern, so that a kernel that writes past its end is caught right after the op. On a
// GPU the host waits for every op to look at its zones.
// Path: cold.
#pragma once

#include <vector>

#include "runtime/exec/bind.h"

namespace plumb {

class Poison {
  public:
    // Fills everything but persistent tensors, and all red zones.
    Poison(const Program& program, const Plan& plan, const ArenaSet& arenas);
    ~Poison();
    Poison(const Poison&) = delete;
    Poison& operator=(const Poison&) = delete;

    // Checks the zones of all operands of op `op_index`, then fills those that died with it.
    void after(int32_t op_index, const BaseTable& table) const noexcept;

  private:
    struct Guard {
        TensorId tensor;
        BoundOperand place;
        int64_t size_bytes;  // without the zone
        bool dies;
    };
    void fill(void* data, int64_t size_bytes) const noexcept;
    const unsigned char* zone(const char* data) const noexcept;

    int64_t zone_bytes_;
    const Program& program_;
    Gpu* gpu_;
    void* zone_copy_ = nullptr;         // of a GPU's zone
    std::vector<int32_t> first_guard_;  // by op, one past the end included
    std::vector<Guard> guards_;
};

}  // namespace plumb
