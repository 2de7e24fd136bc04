// Reserves a plan's arenas, once, before anything runs: what was planned is mapped, populated page
// by page and so really there, or the run ends here with exit 3 and both numbers. Nothing is given
// back before the process ends. Only bind.h turns offsets into pointers.
// Path: cold.
#pragma once

#include "runtime/plan/plan.h"

namespace plumb {

class ArenaSet {
  public:
    // memory_limit_bytes: the user's limit (run.memory), 0 for none. Throws Error (does_not_fit)
    // when the plan with its outside rows exceeds the limit, the control group's limit or what the
    // machine has free, or when mapping fails.
    ArenaSet(const Plan& plan, int64_t memory_limit_bytes);
    ~ArenaSet();
    ArenaSet(const ArenaSet&) = delete;
    ArenaSet& operator=(const ArenaSet&) = delete;

    char* base(Arena arena) const { return base_[static_cast<int>(arena)]; }
    int64_t size_bytes(Arena arena) const { return size_[static_cast<int>(arena)]; }
    // Sum of the sizes; equal to the plan's total_bytes.
    int64_t reserved_bytes() const;
    // Bytes mapped to hold them (whole pages).
    int64_t mapped_bytes() const;

  private:
    void release() noexcept;

    char* base_[kArenaCount] = {};
    int64_t size_[kArenaCount] = {};
    int64_t mapped_[kArenaCount] = {};
};

}  // namespace plumb
