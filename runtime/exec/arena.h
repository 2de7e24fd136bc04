// Reserves a plan's arenas, once, before anything runs: what was planned is mapped, populated page
// by page and so really there, or the run ends here with exit 3 and both numbers. A GPU's arenas
// lie in its memory, the codec's staging and a copy of what host and program share in pinned memory
// of the host. All is zero at first. Nothing is given back before the process ends. Only bind.h
// turns offsets into pointers.
// Path: cold.
#pragma once

#include "kernels/gpu.h"
#include "runtime/plan/plan.h"

namespace plumb {

class ArenaSet {
  public:
    // memory_limit_bytes: the user's limit (run.memory), 0 for none. `gpu`: that of a plan for one,
    // outlives this object. Throws Error (does_not_fit) when the plan with its outside rows exceeds
    // the limit, the control group's limit or what the machine or the GPU has free (whose error
    // names who holds the rest), or when mapping fails.
    ArenaSet(const Plan& plan, int64_t memory_limit_bytes, Gpu* gpu = nullptr);
    ~ArenaSet();
    ArenaSet(const ArenaSet&) = delete;
    ArenaSet& operator=(const ArenaSet&) = delete;

    // Where kernels find an arena.
    char* base(Arena arena) const { return base_[static_cast<int>(arena)]; }
    // Where the host finds it: the same on a CPU; beside a GPU the copy, staging itself, or
    // nullptr.
    char* host_base(Arena arena) const { return host_base_[static_cast<int>(arena)]; }
    int64_t size_bytes(Arena arena) const { return size_[static_cast<int>(arena)]; }
    // Sum of the sizes; equal to the plan's total_bytes.
    int64_t reserved_bytes() const;
    // Bytes mapped on the host to hold them (whole pages; without the copies).
    int64_t mapped_bytes() const;
    Gpu* gpu() const { return gpu_; }  // nullptr: a CPU's

  private:
    void check_fits(const Plan& plan, int64_t memory_limit_bytes);
    void map_arena(int arena);
    void allocate_arena(int arena, bool copied);
    void release() noexcept;

    Gpu* gpu_;
    char* base_[kArenaCount] = {};
    char* host_base_[kArenaCount] = {};
    int64_t size_[kArenaCount] = {};
    int64_t mapped_[kArenaCount] = {};
};

}  // namespace plumb
