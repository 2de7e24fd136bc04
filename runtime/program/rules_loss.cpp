#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/program/autodiff.h"
#include "runtime/program/rules.h"

namespace plumb::rules {

namespace {

void check_head(const Op& op, const Shape& x, const Shape& w, const Shape& targets,
                const Shape& loss_weights) {
    require_rank(op, "x", x, 3);
    require_rank(op, "w", w, 2);
    require_dim(op, "width of x and w", x.dim[2], w.dim[1]);
    require_same(op, "targets", targets, make_shape(x.dim[0], x.dim[1]));
    require_same(op, "loss_weights", loss_weights, targets);
    if (op.attrs.loss.chunk < 1) require_dim(op, "loss chunk", op.attrs.loss.chunk, 1);
}

double head_flops(const Shape& x, const Shape& w) {
    return 2.0 * static_cast<double>(x.rows()) * static_cast<double>(w.elements());
}

}  // namespace

void check_head_loss(const Op& op, const Shape* shape) {
    using In = HeadLossOperands;
    check_head(op, shape[In::x], shape[In::w], shape[In::targets], shape[In::loss_weights]);
}

void check_head_loss_backward(const Op& op, const Shape* shape) {
    using In = HeadLossBackwardOperands;
    check_head(op, shape[In::x], shape[In::w], shape[In::targets], shape[In::loss_weights]);
    require_same(op, "dx and x", shape[In::dx], shape[In::x]);
    if (shape[In::dw].rank != 0) require_same(op, "dw and w", shape[In::dw], shape[In::w]);
}

double flops_head_loss(const Op&, const Shape* shape) {
    return head_flops(shape[HeadLossOperands::x], shape[HeadLossOperands::w]);
}

double flops_head_loss_backward(const Op&, const Shape* shape) {
    using In = HeadLossBackwardOperands;
    return (shape[In::dw].rank != 0 ? 3.0 : 2.0) * head_flops(shape[In::x], shape[In::w]);
}

void gradient_head_loss(Gradient& g, const Op& op) {
    using In = HeadLossOperands;
    bool accumulate = false;
    const TensorId x = op.operand[In::x];
    const TensorId dx = g.target(x, &accumulate);
    CHECK_NOTE(!accumulate, "the loss is the last consumer of x");
    g.builder().record(
        OpKind::head_loss_backward, op.attrs,
        {op.operand[In::loss], dx, g.parameter(op.operand[In::w]), x, op.operand[In::w],
         op.operand[In::targets], op.operand[In::loss_weights], op.operand[In::loss_scale]});
}

void check_select_rows(const Op& op, const Shape* shape) {
    using In = SelectRowsOperands;
    require_rank(op, "x", shape[In::x], 3);
    require_same(op, "y", shape[In::y], make_shape(shape[In::x].dim[0], shape[In::x].dim[2]));
    require_same(op, "rows", shape[In::rows], make_shape(shape[In::x].dim[0]));
}

void check_sample(const Op& op, const Shape* shape) {
    using In = SampleOperands;
    require_rank(op, "logits", shape[In::logits], 2);
    const int64_t rows = shape[In::logits].dim[0];
    require_same(op, "token", shape[In::token], make_shape(rows));
    const int64_t sequences =
        check_sequences(op, shape[In::sequences], rows, shape[In::draws].dim[0]);
    require_same(op, "seen", shape[In::seen], make_shape(sequences, shape[In::logits].dim[1]));
    require_same(op, "draws", shape[In::draws], make_shape(sequences, 2));
}

}  // namespace plumb::rules
