#include "runtime/program/rules.h"

namespace plumb::rules {

void check_grad_norm(const Op& op, const Shape* shape) {
    require_same(op, "sum", shape[GradNormOperands::sum], make_shape(4));
}

void check_clip(const Op& op, const Shape* shape) {
    require_same(op, "clip", shape[ClipOperands::clip], make_shape(4));
    require_same(op, "sum", shape[ClipOperands::sum], make_shape(4));
}

void check_adamw(const Op& op, const Shape* shape) {
    using In = AdamwOperands;
    require_same(op, "g and w", shape[In::g], shape[In::w]);
    require_same(op, "m and w", shape[In::m], shape[In::w]);
    require_same(op, "v and w", shape[In::v], shape[In::w]);
    require_same(op, "clip", shape[In::clip], make_shape(4));
}

void check_digest(const Op& op, const Shape* shape) {
    require_same(op, "digest", shape[DigestOperands::digest], make_shape(2));
}

}  // namespace plumb::rules
