// The op table: one row per op kind with its name, operands and rules. Everything that treats ops
// alike (builder, autodiff, planner, listing, binder, tests) reads it and has no case of its own.
// Adding an op is one row here, one rule block in rules_<family>.cpp, one kernel, one test case.
// Path: cold.
#pragma once

#include <string>

#include "runtime/base/dtype.h"
#include "runtime/program/op.h"

namespace plumb {

enum class Access : uint8_t { write, update, read };

// How the dtype of an operand follows from its op.
enum class DtypeRule : uint8_t {
    fixed,   // the row's
    value,   // the op's value dtype
    wide,    // the op's, f32 when the op is wide (attrs.matmul.wide)
    master,  // of what makes the fp32 master beside weights of the value dtype (master_dtype)
};

struct OperandRow {
    const char* name;
    Access access;
    bool optional;
    DtypeRule rule;
    Dtype dtype;
    // Whether an op with these attributes adds to an operand that the row has as `write`; nullptr:
    // never. Ask operand_access(), not the fields.
    bool (*accumulates)(const Attrs& attrs) = nullptr;
};

class Gradient;  // autodiff.h

struct OpRow {
    OpKind kind;
    const char* name;
    int operand_count;
    OperandRow operand[kMaxOperands];
    // Checks the shapes of all present operands against each other; throws Error naming the op and
    // both numbers. shape[i].rank == 0 when operand i is absent.
    void (*check_shapes)(const Op& op, const Shape* shape);
    // Floating-point operations of its matrix products; nullptr for none.
    double (*flops)(const Op& op, const Shape* shape);
    // Records the gradient ops of `op`; nullptr when the op has no gradient.
    void (*gradient)(Gradient& gradient, const Op& op);
    // The op belongs to the backward section of a training program, where its gradient op does its
    // work as well (the loss: logits are made once).
    bool deferred = false;
    Lane lane = Lane::compute;
};

const OpRow& op_row(OpKind kind);

// The dtype that an operand of this very op must have.
Dtype operand_dtype(const Op& op, int operand);

// The dtype of the tensor that completes weights of a value dtype to fp32 masters: u16 beside bf16,
// f32 beside f16, u8 (none) beside f32.
constexpr Dtype master_dtype(Dtype value) {
    return value == Dtype::bf16 ? Dtype::u16 : value == Dtype::f16 ? Dtype::f32 : Dtype::u8;
}

// The access of an operand of this very op: the row's, but `update` where the op accumulates.
Access operand_access(const Op& op, int operand);

// Least bytes an op moves: every present operand once, twice when updated.
double op_bytes(const Op& op, const Shape* shape);
double op_flops(const Op& op, const Shape* shape);

}  // namespace plumb
