#include "runtime/base/error.h"
#include "runtime/program/autodiff.h"
#include "runtime/program/rules.h"

namespace plumb::rules {

namespace {

double product_flops(const Shape& rows_of, const Shape& w) {
    return 2.0 * static_cast<double>(rows_of.rows()) * static_cast<double>(w.elements());
}

}  // namespace

void check_matmul(const Op& op, const Shape* shape) {
    using In = MatmulOperands;
    require_rank(op, "w", shape[In::w], 2);
    require_dim(op, "rows of y and x", shape[In::y].rows(), shape[In::x].rows());
    require_dim(op, "inputs of x and w", shape[In::x].last(), shape[In::w].dim[1]);
    require_dim(op, "outputs of y and w", shape[In::y].last(), shape[In::w].dim[0]);
    if (shape[In::pre].rank != 0) require_same(op, "pre and y", shape[In::pre], shape[In::y]);
    if (shape[In::residual].rank != 0)
        require_same(op, "residual and y", shape[In::residual], shape[In::y]);
    if (shape[In::bias].rank != 0) {
        require_rank(op, "bias", shape[In::bias], 1);
        require_dim(op, "bias and outputs", shape[In::bias].dim[0], shape[In::w].dim[0]);
    }
}

void check_matmul_dx(const Op& op, const Shape* shape) {
    using In = MatmulDxOperands;
    require_rank(op, "w", shape[In::w], 2);
    require_dim(op, "rows of dx and dy", shape[In::dx].rows(), shape[In::dy].rows());
    require_dim(op, "inputs of dx and w", shape[In::dx].last(), shape[In::w].dim[1]);
    require_dim(op, "outputs of dy and w", shape[In::dy].last(), shape[In::w].dim[0]);
}

void check_matmul_dw(const Op& op, const Shape* shape) {
    using In = MatmulDwOperands;
    require_dim(op, "rows of dy and x", shape[In::dy].rows(), shape[In::x].rows());
    if (shape[In::dw].rank != 0) {
        require_rank(op, "dw", shape[In::dw], 2);
        require_dim(op, "inputs of x and dw", shape[In::x].last(), shape[In::dw].dim[1]);
        require_dim(op, "outputs of dy and dw", shape[In::dy].last(), shape[In::dw].dim[0]);
    }
    if (shape[In::dbias].rank != 0)
        require_dim(op, "dbias and outputs", shape[In::dbias].elements(), shape[In::dy].last());
}

double flops_matmul(const Op&, const Shape* shape) {
    return product_flops(shape[MatmulOperands::x], shape[MatmulOperands::w]);
}

double flops_matmul_dx(const Op&, const Shape* shape) {
    return product_flops(shape[MatmulDxOperands::dy], shape[MatmulDxOperands::w]);
}

double flops_matmul_dw(const Op&, const Shape* shape) {
    return product_flops(shape[MatmulDwOperands::dy], shape[MatmulDwOperands::dw]);
}

void gradient_matmul(Gradient& g, const Op& op) {
    using In = MatmulOperands;
    Builder& b = g.builder();
    const TensorId dy = g.of(op.operand[In::y]);
    if (dy == kNoTensor) return;
    const TensorId residual = op.operand[In::residual];
    if (op.attrs.matmul.activation == Activation::gelu_tanh) {
        // The gradient of y turns into that of pre in place, so it cannot serve a residual too.
        if (residual != kNoTensor)
            throw Error(ExitCode::bad_input, "op matmul: GELU and residual have no joint gradient");
        b.record(OpKind::gelu_backward, {}, {dy, op.operand[In::pre]});
    }
    const TensorId x = op.operand[In::x];
    if (g.needed(x)) {
        bool accumulate = false;
        const TensorId dx = g.target(x, &accumulate);
        Attrs attrs;
        attrs.matmul = {Activation::none, accumulate ? 1 : 0, 0, 0};
        b.record(OpKind::matmul_dx, attrs, {dx, dy, op.operand[In::w]});
    }
    const TensorId dw = g.parameter(op.operand[In::w]);
    const TensorId dbias = g.parameter(op.operand[In::bias]);
    if (dw != kNoTensor || dbias != kNoTensor) b.record(OpKind::matmul_dw, {}, {dw, dbias, dy, x});
    if (g.needed(residual)) g.hand_over(op.operand[In::y], residual);
}

}  // namespace plumb::rules
