#include "runtime/program/autodiff.h"
#include "runtime/program/rules.h"

namespace plumb::rules {

namespace {

void check_stats(const Op& op, const Shape& x, const Shape& stats) {
    if (stats.rank == 0) return;
    require_dim(op, "rows of stats", stats.rows(), x.rows());
    require_dim(op, "numbers per row of stats", stats.last(), 2);
}

void check_gain(const Op& op, const char* what, const Shape& x, const Shape& gain) {
    if (gain.rank == 0) return;
    require_rank(op, what, gain, 1);
    require_dim(op, what, gain.dim[0], x.last());
}

}  // namespace

void check_norm(const Op& op, const Shape* shape) {
    using In = NormOperands;
    require_same(op, "y and x", shape[In::y], shape[In::x]);
    check_stats(op, shape[In::x], shape[In::stats]);
    check_gain(op, "gamma", shape[In::x], shape[In::gamma]);
    check_gain(op, "beta", shape[In::x], shape[In::beta]);
    if (op.attrs.norm.kind == NormKind::rms)
        require_dim(op, "operand beta of an RMSNorm", shape[In::beta].rank, 0);
}

void check_norm_backward(const Op& op, const Shape* shape) {
    using In = NormBackwardOperands;
    require_same(op, "dx and x", shape[In::dx], shape[In::x]);
    require_same(op, "dy and x", shape[In::dy], shape[In::x]);
    check_stats(op, shape[In::x], shape[In::stats]);
    check_gain(op, "gamma", shape[In::x], shape[In::gamma]);
    check_gain(op, "dgamma", shape[In::x], shape[In::dgamma]);
    check_gain(op, "dbeta", shape[In::x], shape[In::dbeta]);
}

void gradient_norm(Gradient& g, const Op& op) {
    using In = NormOperands;
    const TensorId dy = g.of(op.operand[In::y]);
    if (dy == kNoTensor) return;
    bool accumulate = false;
    const TensorId x = op.operand[In::x];
    const TensorId dx = g.target(x, &accumulate);
    Attrs attrs = op.attrs;
    attrs.norm.accumulate = accumulate ? 1 : 0;
    g.builder().record(OpKind::norm_backward, attrs,
                       {dx, g.parameter(op.operand[In::gamma]), g.parameter(op.operand[In::beta]),
                        dy, x, op.operand[In::stats], op.operand[In::gamma]});
}

}  // namespace plumb::rules
