#include "runtime/exec/bind.h"

#include "runtime/base/check.h"
#include "runtime/program/op_table.h"

namespace plumb {

BoundOperand bind_tensor(const Program& program, const Plan& plan, TensorId id) {
    BoundOperand bound;
    if (id == kNoTensor) return bound;
    const Placement& place = plan.placement[static_cast<size_t>(id)];
    const Tensor& tensor = program.tensors[static_cast<size_t>(id)];
    CHECK_NOTE(place.offset_bytes >= 0, tensor.name.c_str());
    bound.offset_bytes = place.offset_bytes;
    int64_t room = 0;
    switch (place.base) {
        case Base::arena:
            bound.base = static_cast<int32_t>(place.arena);
            room = plan.arena_bytes[bound.base];
            break;
        case Base::slot: {
            const auto slot_class = static_cast<int>(place.slot_class);
            bound.base = kSlotBase + slot_class;
            room = plan.pool[slot_class].slot_bytes;
            break;
        }
        case Base::io_row:
            bound.base = kIoRowBase;
            room = plan.io_row_bytes;
            break;
    }
    CHECK_NOTE(bound.offset_bytes + tensor.size_bytes <= room, tensor.name.c_str());
    return bound;
}

std::vector<BoundOp> bind_ops(const Program& program, const Plan& plan,
                              const KernelTable& kernels) {
    std::vector<BoundOp> bound;
    bound.reserve(program.ops.size());
    for (const Op& op : program.ops) {
        BoundOp record;
        record.kernel = kernels.kernel[static_cast<size_t>(op.kind)][value_index(op.dtype)];
        CHECK_NOTE(record.kernel != nullptr || op.lane == Lane::host, op_row(op.kind).name);
        record.attrs = op.attrs;
        record.operand_count = op.operand_count;
        operand_shapes(program, op, record.shape);
        for (int i = 0; i < op.operand_count; ++i)
            record.operand[i] = bind_tensor(program, plan, op.operand[i]);
        record.scratch = bind_tensor(program, plan, op.scratch);
        if (op.scratch != kNoTensor)
            record.scratch_bytes = program.tensors[static_cast<size_t>(op.scratch)].size_bytes;
        bound.push_back(record);
    }
    return bound;
}

namespace {

template <typename BaseOf>
BaseTable make_base_table(const Plan& plan, const Entry& entry, const BaseOf& base_of) noexcept {
    BaseTable table;
    for (int a = 0; a < kArenaCount; ++a) table.base[a] = base_of(static_cast<Arena>(a));
    const auto behind = [](char* base, int64_t bytes) {
        return base == nullptr ? nullptr : base + bytes;
    };
    table.base[kSlotBase] = nullptr;
    for (int c = 1; c < kSlotClassCount; ++c) {
        const SlotPool& pool = plan.pool[c];
        CHECK(pool.slot_count == 0 || entry.slot[c] < pool.slot_count);
        table.base[kSlotBase + c] =
            behind(base_of(Arena::stash), pool.offset_bytes + entry.slot[c] * pool.slot_bytes);
    }
    table.base[kIoRowBase] = behind(
        base_of(Arena::io), plan.io_row_offset_bytes + entry.micro_batch * plan.io_row_bytes);
    return table;
}

}  // namespace

BaseTable base_table(const Plan& plan, const ArenaSet& arenas, const Entry& entry) noexcept {
    return make_base_table(plan, entry, [&](Arena arena) { return arenas.base(arena); });
}

BaseTable host_base_table(const Plan& plan, const ArenaSet& arenas, const Entry& entry) noexcept {
    return make_base_table(plan, entry, [&](Arena arena) { return arenas.host_base(arena); });
}

}  // namespace plumb
