#include "runtime/base/check.h"
#include "runtime/program/autodiff.h"
#include "runtime/program/rules.h"

namespace plumb::rules {

// The gradient of y turns into that of x in place, as in matmul's epilogue.
void gradient_gelu(Gradient& g, const Op& op) {
    using In = GeluOperands;
    const TensorId dy = g.of(op.operand[In::y]);
    if (dy == kNoTensor) return;
    g.builder().record(OpKind::gelu_backward, {}, {dy, op.operand[In::x]});
    g.hand_over(op.operand[In::y], op.operand[In::x]);
}

void check_swiglu(const Op& op, const Shape* shape) {
    using In = SwigluOperands;
    require_dim(op, "rows of h and gate_up", shape[In::h].rows(), shape[In::gate_up].rows());
    require_dim(op, "twice the width of h", 2 * shape[In::h].last(), shape[In::gate_up].last());
}

void check_swiglu_backward(const Op& op, const Shape* shape) {
    using In = SwigluBackwardOperands;
    require_same(op, "dgate_up and gate_up", shape[In::dgate_up], shape[In::gate_up]);
    require_dim(op, "rows of dh", shape[In::dh].rows(), shape[In::gate_up].rows());
    require_dim(op, "twice the width of dh", 2 * shape[In::dh].last(), shape[In::gate_up].last());
}

void gradient_swiglu(Gradient& g, const Op& op) {
    using In = SwigluOperands;
    const TensorId dh = g.of(op.operand[In::h]);
    if (dh == kNoTensor) return;
    bool accumulate = false;
    const TensorId gate_up = op.operand[In::gate_up];
    const TensorId dgate_up = g.target(gate_up, &accumulate);
    CHECK_NOTE(!accumulate, "gate_up has one consumer");
    g.builder().record(OpKind::swiglu_backward, {}, {dgate_up, dh, gate_up});
}

}  // namespace plumb::rules
