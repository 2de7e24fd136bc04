// Runs schedule entries: for each op of the entry's section, addresses from the table of bases,
// then the kernel. No branches on what an op is, no allocation, no lock. The checked build also
// poisons dead bytes and checks red zones around every op (poison.h).
// Path: hot.
#pragma once

#include <memory>
#include <vector>

#include "runtime/exec/bind.h"
#include "runtime/exec/poison.h"

namespace plumb {

class Executor {
  public:
    // All arguments outlive the executor. `threads` is the team size of kernels.
    Executor(const Program& program, const Plan& plan, const ArenaSet& arenas,
             const KernelTable& kernels, int32_t threads);

    void run(const Entry& entry) noexcept;

    // Address of a tensor for the host: fixed tensors, or those of a micro-batch's io row.
    template <typename T>
    T* data(TensorId id, int32_t micro_batch = 0) const {
        return static_cast<T*>(address(id, micro_batch));
    }
    StepScalars& scalars() const { return *scalars_; }
    const Program& program() const { return program_; }
    const Plan& plan() const { return plan_; }
    int32_t threads() const { return threads_; }

  private:
    void* address(TensorId id, int32_t micro_batch) const;

    const Program& program_;
    const Plan& plan_;
    const ArenaSet& arenas_;
    std::vector<BoundOp> bound_;
    StepScalars* scalars_;
    int32_t threads_;
    std::unique_ptr<Poison> poison_;  // checked build only
};

}  // namespace plumb
