// A program written by hand, small enough that its plan can be worked out on paper: one forward and
// one backward section joined by two saved tensors, an update, an evaluation, a save, and a decode
// step with a cache. Sizes are multiples of 64 bytes unless a test changes them.
// Path: cold.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "runtime/program/kernel_traits.h"
#include "runtime/program/program.h"

namespace plumb {

class SmallProgram {
  public:
    Program program;

    TensorId tensor(std::string name, Role role, int64_t size_bytes) {
        Tensor made;
        made.name = std::move(name);
        made.role = role;
        made.size_bytes = size_bytes;
        made.shape = make_shape(size_bytes / 4);
        if (role == Role::saved) made.slot_class = SlotClass::forward_backward;
        program.tensors.push_back(made);
        return static_cast<TensorId>(program.tensors.size()) - 1;
    }

    TensorId view(std::string name, TensorId of, int64_t offset_bytes, int64_t size_bytes) {
        const TensorId id = tensor(std::move(name), at(of).role, size_bytes);
        at(id).alias_of = of;
        at(id).alias_offset_bytes = offset_bytes;
        at(id).slot_class = at(of).slot_class;
        return id;
    }

    SectionId section(SectionKind kind, std::string name) {
        Section made;
        made.kind = kind;
        made.name = std::move(name);
        made.first_op = static_cast<int32_t>(program.ops.size());
        program.sections.push_back(made);
        return static_cast<SectionId>(program.sections.size()) - 1;
    }

    int32_t op(OpKind kind, const std::vector<TensorId>& operands, TensorId scratch = kNoTensor) {
        Op made;
        made.kind = kind;
        for (const TensorId id : operands) made.operand[made.operand_count++] = id;
        made.scratch = scratch;
        program.ops.push_back(made);
        ++program.sections.back().op_count;
        return static_cast<int32_t>(program.ops.size()) - 1;
    }

    void phase(PhaseKind kind, std::vector<Entry> entries) {
        program.phases.push_back({kind, std::move(entries)});
    }

    static Entry entry(SectionId section, int32_t micro_batch = 0, int32_t slot = 0) {
        Entry made;
        made.section = section;
        made.micro_batch = micro_batch;
        made.slot[static_cast<int>(SlotClass::forward_backward)] = slot;
        return made;
    }

    Tensor& at(TensorId id) { return program.tensors[static_cast<size_t>(id)]; }
};

// Ids of what make_training_program() makes.
struct TrainingIds {
    TensorId weights, weight_view, grads, moments, scalars, loss, tokens, targets;
    TensorId saved_early, saved_late, x, y, matmul_scratch, d_y, d_x, cache, staging, eval_x;
    SectionId forward, backward, update, evaluate, save, decode;
};

// `micro_batches` in as many slots when `all_forward_first`, else in one slot.
inline std::pair<SmallProgram, TrainingIds> make_training_program(int32_t micro_batches = 2,
                                                                  bool all_forward_first = false) {
    SmallProgram p;
    TrainingIds t{};
    t.weights = p.tensor("weights", Role::weight, 1024);
    t.weight_view = p.view("weight_view", t.weights, 516, 256);
    t.grads = p.tensor("grads", Role::grad, 1024);
    t.moments = p.tensor("moments", Role::moment, 2048);
    t.loss = p.tensor("loss", Role::io, 8);
    t.scalars = p.tensor("scalars", Role::io, static_cast<int64_t>(sizeof(StepScalars)));
    t.tokens = p.tensor("tokens", Role::io_row, 100);
    t.targets = p.tensor("targets", Role::io_row, 64);
    t.saved_early = p.tensor("saved_early", Role::saved, 640);
    t.saved_late = p.tensor("saved_late", Role::saved, 320);
    t.x = p.tensor("x", Role::activation, 256);
    t.y = p.tensor("y", Role::activation, 512);
    t.matmul_scratch = p.tensor("matmul.scratch", Role::scratch, 128);
    t.d_y = p.tensor("d_y", Role::activation, 1280);
    t.d_x = p.tensor("d_x", Role::activation, 192);
    t.cache = p.tensor("cache", Role::kv_cache, 4096);
    t.staging = p.tensor("staging", Role::staging, 3000);
    t.eval_x = p.tensor("eval_x", Role::activation, 704);
    p.program.io.scalars = t.scalars;
    p.program.micro_batch_count = micro_batches;

    t.forward = p.section(SectionKind::forward, "forward");
    p.op(OpKind::embed, {t.x, t.weight_view, kNoTensor, t.tokens, kNoTensor});           // 0
    p.op(OpKind::matmul, {t.saved_early, kNoTensor, t.x, t.weights}, t.matmul_scratch);  // 1
    p.op(OpKind::swiglu, {t.y, t.saved_early});                                          // 2
    p.op(OpKind::swiglu, {t.saved_late, t.y});                                           // 3
    t.backward = p.section(SectionKind::backward, "backward");
    p.op(OpKind::head_loss_backward, {t.loss, t.d_y, kNoTensor, t.saved_late, t.weights});  // 4
    p.op(OpKind::swiglu_backward, {t.d_x, t.d_y, t.saved_early});                           // 5
    p.op(OpKind::matmul_dw, {t.grads, kNoTensor, t.d_x, t.saved_early});                    // 6
    t.update = p.section(SectionKind::update, "update");
    p.op(OpKind::adamw, {t.weights, kNoTensor, t.grads, t.moments, t.moments});  // 7
    t.evaluate = p.section(SectionKind::evaluate, "evaluate");
    p.op(OpKind::embed, {t.eval_x, t.weight_view, kNoTensor, t.tokens, kNoTensor});  // 8
    p.op(OpKind::head_loss, {t.loss, t.eval_x, t.weights, t.targets});               // 9
    t.save = p.section(SectionKind::save, "save");
    p.op(OpKind::checkpoint_write, {t.staging});  // 10
    t.decode = p.section(SectionKind::decode, "decode");
    p.op(OpKind::zero, {t.cache});  // 11

    std::vector<Entry> step;
    for (int32_t m = 0; m < micro_batches; ++m) {
        step.push_back(SmallProgram::entry(t.forward, m, all_forward_first ? m : 0));
        if (!all_forward_first) step.push_back(SmallProgram::entry(t.backward, m));
    }
    for (int32_t m = micro_batches - 1; all_forward_first && m >= 0; --m)
        step.push_back(SmallProgram::entry(t.backward, m, m));
    step.push_back(SmallProgram::entry(t.update));
    p.program.slot_count[static_cast<int>(SlotClass::forward_backward)] =
        all_forward_first ? micro_batches : 1;
    p.phase(PhaseKind::step, step);
    p.phase(PhaseKind::evaluate, {SmallProgram::entry(t.evaluate)});
    p.phase(PhaseKind::save, {SmallProgram::entry(t.save)});
    p.phase(PhaseKind::generate, {SmallProgram::entry(t.decode)});
    return {p, t};
}

inline DeviceRecord test_device() {
    return DeviceRecord{"test", Isa::avx2, 2};
}

}  // namespace plumb
