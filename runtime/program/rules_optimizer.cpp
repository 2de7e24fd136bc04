#include "runtime/program/rules.h"

namespace plumb::rules {

namespace {

void check_optional_scale(const Op& op, const Shape& scale) {
    if (scale.rank != 0) require_same(op, "loss_scale", scale, make_shape(2));
}

}  // namespace

void check_grad_norm(const Op& op, const Shape* shape) {
    require_same(op, "sum", shape[GradNormOperands::sum], make_shape(4));
}

void check_clip(const Op& op, const Shape* shape) {
    require_same(op, "clip", shape[ClipOperands::clip], make_shape(4));
    require_same(op, "sum", shape[ClipOperands::sum], make_shape(4));
    check_optional_scale(op, shape[ClipOperands::loss_scale]);
}

void check_adamw(const Op& op, const Shape* shape) {
    using In = AdamwOperands;
    // Weights of fewer bits than fp32 are updated through their masters.
    require_dim(op, "master present", shape[In::master].rank != 0, op.dtype != Dtype::f32);
    if (shape[In::master].rank != 0)
        require_same(op, "master and w", shape[In::master], shape[In::w]);
    require_same(op, "g and w", shape[In::g], shape[In::w]);
    require_same(op, "m and w", shape[In::m], shape[In::w]);
    require_same(op, "v and w", shape[In::v], shape[In::w]);
    require_same(op, "clip", shape[In::clip], make_shape(4));
}

void check_loss_scale(const Op& op, const Shape* shape) {
    require_same(op, "state", shape[LossScaleOperands::state], make_shape(2));
    require_same(op, "clip", shape[LossScaleOperands::clip], make_shape(4));
}

void check_init(const Op& op, const Shape* shape) {
    if (shape[InitOperands::master].rank != 0)
        require_same(op, "master and w", shape[InitOperands::master], shape[InitOperands::w]);
}

void check_digest(const Op& op, const Shape* shape) {
    using In = DigestOperands;
    require_same(op, "digest", shape[In::digest], make_shape(2));
    require_dim(op, "low present", shape[In::low].rank != 0, op.dtype == Dtype::bf16);
    if (shape[In::low].rank != 0) require_same(op, "low and t", shape[In::low], shape[In::t]);
}

}  // namespace plumb::rules
