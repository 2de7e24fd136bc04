#include "runtime/program/program.h"

#include <fmt/format.h>

#include "runtime/base/check.h"
#include "runtime/program/op_table.h"

namespace plumb {

const char* arena_name(Arena arena) {
    static constexpr const char* kNames[] = {"weights", "master",   "grads",   "moments",
                                             "state",   "stash",    "scratch", "comm",
                                             "io",      "kv_cache", "staging"};
    static_assert(std::size(kNames) == kArenaCount);
    return kNames[static_cast<int>(arena)];
}

const char* slot_class_name(SlotClass slot_class) {
    static constexpr const char* kNames[] = {"none", "forward_backward"};
    static_assert(std::size(kNames) == kSlotClassCount);
    return kNames[static_cast<int>(slot_class)];
}

const char* section_kind_name(SectionKind kind) {
    static constexpr const char* kNames[] = {"initialise", "load",    "forward",  "backward",
                                             "reduce",     "update",  "evaluate", "digest",
                                             "save",       "prefill", "decode"};
    static_assert(std::size(kNames) == static_cast<size_t>(SectionKind::count));
    return kNames[static_cast<int>(kind)];
}

const char* phase_name(PhaseKind kind) {
    static constexpr const char* kNames[] = {"initialise", "load", "step",
                                             "evaluate",   "save", "generate"};
    static_assert(std::size(kNames) == kPhaseCount);
    return kNames[static_cast<int>(kind)];
}

TensorId Program::root(TensorId id) const {
    const Tensor& tensor = tensors[static_cast<size_t>(id)];
    return tensor.alias_of == kNoTensor ? id : tensor.alias_of;
}

int64_t Program::root_offset_bytes(TensorId id) const {
    return tensors[static_cast<size_t>(id)].alias_offset_bytes;
}

const Phase* Program::phase(PhaseKind kind) const {
    for (const Phase& phase : phases)
        if (phase.kind == kind) return &phase;
    return nullptr;
}

SectionId Program::section(SectionKind kind) const {
    for (size_t i = 0; i < sections.size(); ++i)
        if (sections[i].kind == kind) return static_cast<SectionId>(i);
    return -1;
}

void operand_shapes(const Program& program, const Op& op, Shape (&shape)[kMaxOperands]) {
    for (int i = 0; i < kMaxOperands; ++i) {
        shape[i] = Shape{};
        if (op.operand[i] != kNoTensor)
            shape[i] = program.tensors[static_cast<size_t>(op.operand[i])].shape;
    }
}

namespace {

std::string shape_text(const Shape& shape) {
    std::string text = "[";
    for (int i = 0; i < shape.rank; ++i)
        text += fmt::format("{}{}", i == 0 ? "" : ",", shape.dim[i]);
    return text + "]";
}

}  // namespace

std::string list_program(const Program& program,
                         std::string (*place)(const void* context, TensorId id),
                         const void* context) {
    std::string text;
    for (const Section& section : program.sections) {
        text += fmt::format("section {} ({} ops)\n", section.name, section.op_count);
        for (int i = section.first_op; i < section.first_op + section.op_count; ++i) {
            const Op& op = program.ops[static_cast<size_t>(i)];
            const OpRow& row = op_row(op.kind);
            text += fmt::format("  {:5} {:<18}", i, row.name);
            const auto add = [&](const char* role, TensorId id) {
                const Tensor& tensor = program.tensors[static_cast<size_t>(id)];
                text += fmt::format(" {}={}{}", role, tensor.name, shape_text(tensor.shape));
                if (place != nullptr) text += "@" + place(context, id);
            };
            for (int k = 0; k < op.operand_count; ++k)
                if (op.operand[k] != kNoTensor) add(row.operand[k].name, op.operand[k]);
            if (op.scratch != kNoTensor) add("scratch", op.scratch);
            text += "\n";
        }
    }
    return text;
}

}  // namespace plumb
