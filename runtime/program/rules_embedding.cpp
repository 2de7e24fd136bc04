#include "runtime/program/autodiff.h"
#include "runtime/program/rules.h"

namespace plumb::rules {

namespace {

void check_tokens(const Op& op, const Shape& x, const Shape& tokens, const Shape& positions) {
    require_rank(op, "x", x, 3);
    require_rank(op, "tokens", tokens, 2);
    require_dim(op, "batch of tokens and x", tokens.dim[0], x.dim[0]);
    require_dim(op, "length of tokens and x", tokens.dim[1], x.dim[1]);
    if (positions.rank != 0) require_same(op, "positions and tokens", positions, tokens);
}

}  // namespace

void check_embed(const Op& op, const Shape* shape) {
    using In = EmbedOperands;
    check_tokens(op, shape[In::x], shape[In::tokens], shape[In::positions]);
    require_dim(op, "width of wte", shape[In::wte].last(), shape[In::x].last());
    require_dim(op, "presence of wpe and positions", shape[In::wpe].rank != 0,
                shape[In::positions].rank != 0);
    if (shape[In::wpe].rank != 0)
        require_dim(op, "width of wpe", shape[In::wpe].last(), shape[In::x].last());
}

void check_embed_backward(const Op& op, const Shape* shape) {
    using In = EmbedBackwardOperands;
    check_tokens(op, shape[In::dx], shape[In::tokens], shape[In::positions]);
    if (shape[In::dwte].rank != 0)
        require_dim(op, "width of dwte", shape[In::dwte].last(), shape[In::dx].last());
    if (shape[In::dwpe].rank != 0)
        require_dim(op, "width of dwpe", shape[In::dwpe].last(), shape[In::dx].last());
}

void gradient_embed(Gradient& g, const Op& op) {
    using In = EmbedOperands;
    const TensorId dx = g.of(op.operand[In::x]);
    if (dx == kNoTensor) return;
    g.builder().record(OpKind::embed_backward, {},
                       {g.parameter(op.operand[In::wte]), g.parameter(op.operand[In::wpe]), dx,
                        op.operand[In::tokens], op.operand[In::positions]});
}

}  // namespace plumb::rules
