#include "runtime/program/autodiff.h"

#include <algorithm>
#include <cstdint>

#include "runtime/base/check.h"
#include "runtime/program/op_table.h"

namespace plumb {

namespace {

template <typename T>
T& grown(std::vector<T>& values, TensorId id, T fill) {
    if (static_cast<size_t>(id) >= values.size()) values.resize(static_cast<size_t>(id) + 1, fill);
    return values[static_cast<size_t>(id)];
}

}  // namespace

TensorId Gradient::of(TensorId value) const {
    if (value == kNoTensor || static_cast<size_t>(value) >= gradient_.size()) return kNoTensor;
    return gradient_[static_cast<size_t>(value)];
}

bool Gradient::needed(TensorId value) const {
    return value != kNoTensor && static_cast<size_t>(value) < needed_.size() &&
           needed_[static_cast<size_t>(value)] != 0;
}

TensorId Gradient::target(TensorId value, bool* accumulate) {
    *accumulate = of(value) != kNoTensor;
    if (!*accumulate) {
        const Tensor& tensor = builder_.at(value);
        const TensorId made =
            builder_.tensor(tensor.name + ".grad", tensor.dtype, tensor.shape, Role::activation);
        grown(gradient_, value, kNoTensor) = made;
    }
    return gradient_[static_cast<size_t>(value)];
}

void Gradient::hand_over(TensorId from, TensorId to) {
    if (of(to) == kNoTensor) {
        grown(gradient_, to, kNoTensor) = of(from);
    } else {
        builder_.record(OpKind::add, {}, {of(to), of(from)});
    }
    gradient_[static_cast<size_t>(from)] = kNoTensor;
}

TensorId Gradient::parameter(TensorId weight) {
    return builder_.weight_grad(weight);
}

namespace {

// First and last entry of the tape that has a tensor among its operands.
struct Span {
    size_t first = SIZE_MAX;
    size_t last = 0;
};

std::vector<Span> spans_of(const std::vector<TapeEntry>& tape) {
    std::vector<Span> spans;
    for (size_t i = 0; i < tape.size(); ++i) {
        for (int k = 0; k < tape[i].op.operand_count; ++k) {
            if (tape[i].op.operand[k] == kNoTensor) continue;
            Span& span = grown(spans, tape[i].op.operand[k], Span{});
            span.first = std::min(span.first, i);
            span.last = i;
        }
    }
    return spans;
}

// Records the ops of recompute segments again into the backward section.
class Replay {
  public:
    Replay(Builder& builder, const std::vector<TapeEntry>& tape)
        : builder_(builder), tape_(tape), spans_(spans_of(tape)) {}

    // The ops of the tape's entries [first, last), to differentiate, with recomputed operands. An
    // op whose outputs all leave the segment (its boundary) is saved and not run again.
    std::vector<Op> run(size_t first, size_t last) {
        std::vector<Op> ops;
        for (size_t i = first; i < last; ++i) {
            Op op = tape_[i].op;
            bool boundary_only = true;
            for (int k = 0; k < op.operand_count; ++k) {
                const TensorId id = op.operand[k];
                if (id == kNoTensor) continue;
                const Access access = operand_access(tape_[i].op, k);
                if (access == Access::write && !leaves(id, first, last)) {
                    remake(id);
                    boundary_only = false;
                } else if (access == Access::update && remade(id) != id) {
                    boundary_only = false;  // in place on a recomputed tensor
                }
                op.operand[k] = remade(id);
            }
            if (!boundary_only)
                builder_.record(
                    op.kind, op.attrs,
                    std::span<const TensorId>(op.operand, static_cast<size_t>(op.operand_count)));
            ops.push_back(op);
        }
        return ops;
    }

  private:
    // Whether an op outside the segment has the tensor.
    bool leaves(TensorId id, size_t first, size_t last) const {
        const Span& span = spans_[static_cast<size_t>(id)];
        return span.first < first || span.last >= last;
    }
    TensorId remade(TensorId id) const {
        const bool known = static_cast<size_t>(id) < remade_.size();
        return known && remade_[static_cast<size_t>(id)] != kNoTensor
                   ? remade_[static_cast<size_t>(id)]
                   : id;
    }
    void remake(TensorId id) {
        const Tensor& tensor = builder_.at(id);
        const TensorId made =
            builder_.tensor(tensor.name + ".again", tensor.dtype, tensor.shape, Role::activation);
        grown(remade_, id, kNoTensor) = made;
    }
    Builder& builder_;
    const std::vector<TapeEntry>& tape_;
    std::vector<Span> spans_;
    std::vector<TensorId> remade_;  // by id; what is remade leaves no segment: one list for all
};

}  // namespace

void differentiate(Builder& builder, const std::vector<TapeEntry>& tape) {
    Gradient gradient(builder);
    // Forward sweep: which values depend on a trainable parameter.
    const auto mark = [&](const Op& op) {
        bool needed = false;
        for (int k = 0; k < op.operand_count; ++k)
            if (op.operand[k] != kNoTensor && operand_access(op, k) != Access::write)
                needed = needed || gradient.needed(op.operand[k]) ||
                         builder.weight_grad(op.operand[k]) != kNoTensor;
        for (int k = 0; needed && k < op.operand_count; ++k)
            if (op.operand[k] != kNoTensor && operand_access(op, k) != Access::read)
                grown(gradient.needed_, op.operand[k], char{0}) = 1;
    };
    for (const TapeEntry& entry : tape) mark(entry.op);

    const auto apply = [&](const Op& op) {
        const OpRow& row = op_row(op.kind);
        bool needed = false;
        for (int k = 0; k < row.operand_count; ++k)
            needed = needed || gradient.needed(op.operand[k]);
        if (!needed) return;
        CHECK_NOTE(row.gradient != nullptr, row.name);
        row.gradient(gradient, op);
    };
    Replay replay(builder, tape);
    size_t last = tape.size();
    while (last > 0) {
        const int32_t segment = tape[last - 1].segment;
        size_t first = last - 1;
        if (segment < 0) {
            apply(tape[first].op);
        } else {
            while (first > 0 && tape[first - 1].segment == segment) --first;
            const std::vector<Op> ops = replay.run(first, last);
            for (const Op& op : ops) mark(op);
            for (size_t i = ops.size(); i-- > 0;) apply(ops[i]);
        }
        last = first;
    }
}

}  // namespace plumb
