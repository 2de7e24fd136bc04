#include "runtime/exec/executor.h"

namespace plumb {

Executor::Executor(const Program& program, const Plan& plan, const ArenaSet& arenas,
                   const KernelTable& kernels, int32_t threads)
    : program_(program),
      plan_(plan),
      arenas_(arenas),
      bound_(bind_ops(program, plan, kernels)),
      scalars_(nullptr),
      threads_(threads) {
    scalars_ = data<StepScalars>(program.io.scalars);
    *scalars_ = StepScalars{};
    if (plan.red_zone_bytes > 0) poison_ = std::make_unique<Poison>(program, plan, arenas);
}

void Executor::run(const Entry& entry) noexcept {
    const Section& section = program_.sections[static_cast<size_t>(entry.section)];
    const BaseTable table = base_table(plan_, arenas_, entry);
    for (int32_t i = section.first_op; i < section.first_op + section.op_count; ++i) {
        const BoundOp& op = bound_[static_cast<size_t>(i)];
        if (op.kernel == nullptr) continue;  // the host lane: run by the engine
        void* data[kMaxOperands];
        for (int k = 0; k < op.operand_count; ++k) data[k] = table.at(op.operand[k]);
        const KernelArgs args{
            &op.attrs, op.shape,          data,    table.at(op.scratch), op.scratch_bytes,
            scalars_,  entry.micro_batch, threads_};
        op.kernel(args);
        if (poison_) poison_->after(i, table);
    }
}

void* Executor::address(TensorId id, int32_t micro_batch) const {
    Entry entry;
    entry.micro_batch = micro_batch;
    void* address = base_table(plan_, arenas_, entry).at(bind_tensor(program_, plan_, id));
    CHECK(address != nullptr);
    return address;
}

}  // namespace plumb
