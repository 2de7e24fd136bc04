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

struct OperandRow {
    const char* name;
    Access access;
    bool optional;
    Dtype dtype;
};

// Floating-point operations and bytes that the op must move at least once.
struct Cost {
    double flops = 0;
    double bytes = 0;
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
    // Matrix-multiply flops and least bytes (every operand once per access).
    Cost (*cost)(const Op& op, const Shape* shape);
    // Records the gradient ops of `op`; nullptr when the op has no gradient.
    void (*gradient)(Gradient& gradient, const Op& op);
};

const OpRow& op_row(OpKind kind);

}  // namespace plumb
