#include "runtime/plan/plan_digest.h"

namespace plumb {

namespace {

template <typename Enum>
void hash_enum(Hasher& hasher, Enum value) {
    hasher.number(static_cast<int64_t>(value));
}

void hash_program(Hasher& hasher, const Program& program) {
    hasher.number(static_cast<int64_t>(program.tensors.size()));
    for (const Tensor& tensor : program.tensors) {
        hasher.text(tensor.name);
        hasher.number(tensor.shape.rank);
        for (int i = 0; i < tensor.shape.rank; ++i) hasher.number(tensor.shape.dim[i]);
        hasher.number(tensor.size_bytes);
        hash_enum(hasher, tensor.dtype);
        hash_enum(hasher, tensor.role);
        hash_enum(hasher, tensor.slot_class);
        hasher.number(tensor.alias_of);
        hasher.number(tensor.alias_offset_bytes);
    }
    hasher.number(static_cast<int64_t>(program.ops.size()));
    for (const Op& op : program.ops) {
        hash_enum(hasher, op.kind);
        hash_enum(hasher, op.lane);
        hash_enum(hasher, op.dtype);
        hasher.number(op.operand_count);
        for (const TensorId id : op.operand) hasher.number(id);
        hasher.number(op.scratch);
        hasher.bytes(op.attrs.bytes, sizeof op.attrs.bytes);
    }
    hasher.number(static_cast<int64_t>(program.sections.size()));
    for (const Section& section : program.sections) {
        hasher.text(section.name);
        hash_enum(hasher, section.kind);
        hasher.number(section.chunk);
        hasher.number(section.unit);
        hasher.number(section.first_op);
        hasher.number(section.op_count);
    }
    hasher.number(static_cast<int64_t>(program.phases.size()));
    for (const Phase& phase : program.phases) {
        hash_enum(hasher, phase.kind);
        hasher.number(static_cast<int64_t>(phase.entries.size()));
        for (const Entry& entry : phase.entries) {
            hasher.number(entry.section);
            hasher.number(entry.micro_batch);
            for (const int32_t slot : entry.slot) hasher.number(slot);
        }
        hasher.number(static_cast<int64_t>(phase.beside.size()));
        for (const SectionId section : phase.beside) hasher.number(section);
    }
    hasher.number(program.micro_batch_count);
}

void hash_places(Hasher& hasher, const Plan& plan) {
    for (const Placement& place : plan.placement) {
        hash_enum(hasher, place.base);
        hash_enum(hasher, place.arena);
        hash_enum(hasher, place.slot_class);
        hasher.number(place.offset_bytes);
    }
    for (const int64_t bytes : plan.arena_bytes) hasher.number(bytes);
    for (const SlotPool& pool : plan.pool) {
        hasher.number(pool.offset_bytes);
        hasher.number(pool.slot_bytes);
        hasher.number(pool.slot_count);
    }
    hasher.number(plan.io_row_offset_bytes);
    hasher.number(plan.io_row_bytes);
    hasher.number(plan.red_zone_bytes);
}

}  // namespace

Hash128 plan_digest(const Program& program, const Plan& plan, const DeviceRecord& device) {
    Hasher hasher;
    hash_program(hasher, program);
    hash_places(hasher, plan);
    hash_enum(hasher, device.isa);
    hasher.number(device.threads);
    return hasher.finish();
}

}  // namespace plumb
