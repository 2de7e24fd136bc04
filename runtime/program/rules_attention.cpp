#include "runtime/base/check.h"
#include "runtime/program/autodiff.h"
#include "runtime/program/rules.h"

namespace plumb::rules {

namespace {

int64_t qkv_width(const AttentionAttrs& a) {
    return (int64_t{a.heads} + 2 * int64_t{a.kv_heads}) * a.head_size;
}

void check_qkv(const Op& op, const Shape& qkv) {
    const AttentionAttrs& a = op.attrs.attention;
    require_rank(op, "qkv", qkv, 3);
    require_dim(op, "width of qkv", qkv.dim[2], qkv_width(a));
    require_dim(op, "heads modulo kv_heads", a.heads % a.kv_heads, 0);
}

void check_output(const Op& op, const Shape& o, const Shape& qkv) {
    const AttentionAttrs& a = op.attrs.attention;
    require_same(op, "o", o, make_shape(qkv.dim[0], qkv.dim[1], int64_t{a.heads} * a.head_size));
}

void check_lse(const Op& op, const Shape& lse, const Shape& qkv) {
    if (lse.rank != 0)
        require_same(op, "lse", lse, make_shape(qkv.dim[0], op.attrs.attention.heads, qkv.dim[1]));
}

void check_row(const Op& op, const char* what, const Shape& row, const Shape& qkv) {
    require_same(op, what, row, make_shape(qkv.dim[0], qkv.dim[1]));
}

// Scores and values of the causal half: 2 products of T*T/2 x K per head.
double causal_flops(const Op& op, const Shape& qkv) {
    const AttentionAttrs& a = op.attrs.attention;
    const auto batch = static_cast<double>(qkv.dim[0]);
    const auto tokens = static_cast<double>(qkv.dim[1]);
    return 2.0 * batch * a.heads * tokens * (tokens + 1) * a.head_size;
}

}  // namespace

void check_rope(const Op& op, const Shape* shape) {
    using In = RopeOperands;
    check_qkv(op, shape[In::qkv]);
    check_row(op, "positions", shape[In::positions], shape[In::qkv]);
    require_dim(op, "head size modulo 2", op.attrs.attention.head_size % 2, 0);
}

void check_attention(const Op& op, const Shape* shape) {
    using In = AttentionOperands;
    check_qkv(op, shape[In::qkv]);
    check_output(op, shape[In::o], shape[In::qkv]);
    check_lse(op, shape[In::lse], shape[In::qkv]);
    check_row(op, "segment_start", shape[In::segment_start], shape[In::qkv]);
}

void check_attention_backward(const Op& op, const Shape* shape) {
    using In = AttentionBackwardOperands;
    check_qkv(op, shape[In::qkv]);
    require_same(op, "dqkv and qkv", shape[In::dqkv], shape[In::qkv]);
    check_output(op, shape[In::o], shape[In::qkv]);
    require_same(op, "d_o and o", shape[In::d_o], shape[In::o]);
    check_lse(op, shape[In::lse], shape[In::qkv]);
    check_row(op, "segment_start", shape[In::segment_start], shape[In::qkv]);
}

void check_attention_cached(const Op& op, const Shape* shape) {
    using In = AttentionCachedOperands;
    const AttentionAttrs& a = op.attrs.attention;
    check_qkv(op, shape[In::qkv]);
    check_output(op, shape[In::o], shape[In::qkv]);
    check_row(op, "positions", shape[In::positions], shape[In::qkv]);
    require_same(op, "caches of keys and values", shape[In::k_cache], shape[In::v_cache]);
    const int64_t sequences =
        check_sequences(op, shape[In::sequences], shape[In::qkv].dim[0], shape[In::k_cache].dim[0]);
    require_same(op, "k_cache", shape[In::k_cache],
                 make_shape(sequences, shape[In::k_cache].dim[1], a.kv_heads, a.head_size));
}

double flops_attention(const Op& op, const Shape* shape) {
    return causal_flops(op, shape[AttentionOperands::qkv]);
}

// Scores again, then dV, dP, dQ, dK: five products where the forward pass has two.
double flops_attention_backward(const Op& op, const Shape* shape) {
    return 2.5 * causal_flops(op, shape[AttentionBackwardOperands::qkv]);
}

double flops_attention_cached(const Op& op, const Shape* shape) {
    const AttentionAttrs& a = op.attrs.attention;
    const Shape& qkv = shape[AttentionCachedOperands::qkv];
    const auto positions = static_cast<double>(shape[AttentionCachedOperands::k_cache].dim[1]);
    return 4.0 * static_cast<double>(qkv.rows()) * a.heads * positions * a.head_size;
}

void gradient_rope(Gradient& g, const Op& op) {
    using In = RopeOperands;
    const TensorId dqkv = g.of(op.operand[In::qkv]);
    if (dqkv == kNoTensor) return;
    Attrs attrs = op.attrs;
    attrs.attention.inverse = attrs.attention.inverse != 0 ? 0 : 1;
    g.builder().record(OpKind::rope, attrs, {dqkv, op.operand[In::positions]});
}

void gradient_attention(Gradient& g, const Op& op) {
    using In = AttentionOperands;
    const TensorId d_o = g.of(op.operand[In::o]);
    if (d_o == kNoTensor) return;
    bool accumulate = false;
    const TensorId qkv = op.operand[In::qkv];
    const TensorId dqkv = g.target(qkv, &accumulate);
    CHECK_NOTE(!accumulate, "qkv has one consumer");
    g.builder().record(
        OpKind::attention_backward, op.attrs,
        {dqkv, d_o, qkv, op.operand[In::o], op.operand[In::lse], op.operand[In::segment_start]});
}

}  // namespace plumb::rules
