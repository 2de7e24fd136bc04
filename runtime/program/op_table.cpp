#include "runtime/program/op_table.h"

#include "runtime/base/check.h"
#include "runtime/program/rules.h"

namespace plumb {

namespace {

constexpr Dtype kValue = Dtype::f32;  // of a value operand when nothing else is said

// Value operands: `v` before the access.
constexpr OperandRow vout(const char* name) {
    return {name, Access::write, false, DtypeRule::value, kValue};
}
constexpr OperandRow maybe_vout(const char* name) {
    return {name, Access::write, true, DtypeRule::value, kValue};
}
constexpr OperandRow vupd(const char* name) {
    return {name, Access::update, false, DtypeRule::value, kValue};
}
constexpr OperandRow vin(const char* name) {
    return {name, Access::read, false, DtypeRule::value, kValue};
}
constexpr OperandRow maybe_vin(const char* name) {
    return {name, Access::read, true, DtypeRule::value, kValue};
}
constexpr OperandRow vout_or_upd(const char* name, bool (*accumulates)(const Attrs&)) {
    return {name, Access::write, false, DtypeRule::value, kValue, accumulates};
}
// Operands of one dtype always.
constexpr OperandRow out(const char* name, Dtype dtype = Dtype::f32) {
    return {name, Access::write, false, DtypeRule::fixed, dtype};
}
constexpr OperandRow maybe_out(const char* name, Dtype dtype = Dtype::f32) {
    return {name, Access::write, true, DtypeRule::fixed, dtype};
}
constexpr OperandRow upd(const char* name, Dtype dtype = Dtype::f32) {
    return {name, Access::update, false, DtypeRule::fixed, dtype};
}
constexpr OperandRow maybe_upd(const char* name, Dtype dtype = Dtype::f32) {
    return {name, Access::update, true, DtypeRule::fixed, dtype};
}
constexpr OperandRow in(const char* name, Dtype dtype = Dtype::f32) {
    return {name, Access::read, false, DtypeRule::fixed, dtype};
}
constexpr OperandRow maybe_in(const char* name, Dtype dtype = Dtype::f32) {
    return {name, Access::read, true, DtypeRule::fixed, dtype};
}
constexpr OperandRow maybe_master(const char* name, Access access) {
    return {name, access, true, DtypeRule::master, kValue};
}

bool norm_accumulates(const Attrs& attrs) {
    return attrs.norm.accumulate != 0;
}
bool matmul_accumulates(const Attrs& attrs) {
    return attrs.matmul.accumulate != 0;
}

using namespace rules;
constexpr Dtype kI32 = Dtype::i32;
constexpr Dtype kI64 = Dtype::i64;
constexpr Dtype kF64 = Dtype::f64;
constexpr Dtype kU8 = Dtype::u8;
constexpr Dtype kU16 = Dtype::u16;

// clang-format off
const OpRow kRows[] = {
    {OpKind::embed, "embed", EmbedOperands::count,
     {vout("x"), vin("wte"), maybe_vin("wpe"), in("tokens", kI32), maybe_in("positions", kI32)},
     check_embed, nullptr, gradient_embed},
    {OpKind::embed_backward, "embed_backward", EmbedBackwardOperands::count,
     {maybe_upd("dwte"), maybe_upd("dwpe"), vin("dx"), in("tokens", kI32),
      maybe_in("positions", kI32)},
     check_embed_backward, nullptr, nullptr},

    {OpKind::norm, "norm", NormOperands::count,
     {vout("y"), maybe_out("stats"), vin("x"), in("gamma"), maybe_in("beta")},
     check_norm, nullptr, gradient_norm},
    {OpKind::norm_backward, "norm_backward", NormBackwardOperands::count,
     {vout_or_upd("dx", norm_accumulates), maybe_upd("dgamma"), maybe_upd("dbeta"), vin("dy"),
      vin("x"), in("stats"), in("gamma")},
     check_norm_backward, nullptr, nullptr},

    {OpKind::matmul, "matmul", MatmulOperands::count,
     {{"y", Access::write, false, DtypeRule::wide, kValue}, maybe_vout("pre"), vin("x"), vin("w"),
      maybe_in("bias"), maybe_vin("residual")},
     check_matmul, flops_matmul, gradient_matmul},
    {OpKind::matmul_dx, "matmul_dx", MatmulDxOperands::count,
     {vout_or_upd("dx", matmul_accumulates), vin("dy"), vin("w")},
     check_matmul_dx, flops_matmul_dx, nullptr},
    {OpKind::matmul_dw, "matmul_dw", MatmulDwOperands::count,
     {maybe_upd("dw"), maybe_upd("dbias"), vin("dy"), vin("x")},
     check_matmul_dw, flops_matmul_dw, nullptr},

    {OpKind::gelu, "gelu", GeluOperands::count,
     {vout("y"), vin("x")},
     check_same_two, nullptr, gradient_gelu},
    {OpKind::gelu_backward, "gelu_backward", GeluBackwardOperands::count,
     {vupd("d"), vin("pre")},
     check_same_two, nullptr, nullptr},
    {OpKind::swiglu, "swiglu", SwigluOperands::count,
     {vout("h"), vin("gate_up")},
     check_swiglu, nullptr, gradient_swiglu},
    {OpKind::swiglu_backward, "swiglu_backward", SwigluBackwardOperands::count,
     {vout("dgate_up"), vin("dh"), vin("gate_up")},
     check_swiglu_backward, nullptr, nullptr},

    {OpKind::rope, "rope", RopeOperands::count,
     {vupd("qkv"), in("positions", kI32)},
     check_rope, nullptr, gradient_rope},
    {OpKind::attention, "attention", AttentionOperands::count,
     {vout("o"), maybe_out("lse"), vin("qkv"), in("segment_start", kI32)},
     check_attention, flops_attention, gradient_attention},
    {OpKind::attention_backward, "attention_backward", AttentionBackwardOperands::count,
     {vout("dqkv"), vin("d_o"), vin("qkv"), vin("o"), in("lse"), in("segment_start", kI32)},
     check_attention_backward, flops_attention_backward, nullptr},
    {OpKind::attention_cached, "attention_cached", AttentionCachedOperands::count,
     {vout("o"), vupd("k_cache"), vupd("v_cache"), vin("qkv"), in("positions", kI32),
      maybe_in("sequences", kI32)},
     check_attention_cached, flops_attention_cached, nullptr},

    {OpKind::head_loss, "head_loss", HeadLossOperands::count,
     {upd("loss", kF64), vin("x"), vin("w"), in("targets", kI32), in("loss_weights"),
      maybe_in("loss_scale")},
     check_head_loss, flops_head_loss, gradient_head_loss, true},
    {OpKind::head_loss_backward, "head_loss_backward", HeadLossBackwardOperands::count,
     {upd("loss", kF64), vout("dx"), maybe_upd("dw"), vin("x"), vin("w"), in("targets", kI32),
      in("loss_weights"), maybe_in("loss_scale")},
     check_head_loss_backward, flops_head_loss_backward, nullptr},
    {OpKind::select_rows, "select_rows", SelectRowsOperands::count,
     {vout("y"), vin("x"), in("rows", kI32)},
     check_select_rows, nullptr, nullptr},
    {OpKind::sample, "sample", SampleOperands::count,
     {out("token", kI32), in("logits"), in("seen", kU8), in("draws", kI64),
      maybe_in("sequences", kI32)},
     check_sample, nullptr, nullptr},

    {OpKind::add, "add", AddOperands::count,
     {vupd("a"), vin("b")},
     check_same_two, nullptr, nullptr},
    {OpKind::fold, "fold", FoldOperands::count,
     {upd("total"), upd("part")},
     check_same_two, nullptr, nullptr},
    {OpKind::grad_norm, "grad_norm", GradNormOperands::count,
     {upd("sum", kI64), in("g")},
     check_grad_norm, nullptr, nullptr},
    {OpKind::clip, "clip", ClipOperands::count,
     {upd("clip", kF64), in("sum", kI64), maybe_in("loss_scale")},
     check_clip, nullptr, nullptr},
    {OpKind::adamw, "adamw", AdamwOperands::count,
     {vupd("w"), maybe_master("master", Access::update), upd("g"), upd("m"), upd("v"),
      in("clip", kF64)},
     check_adamw, nullptr, nullptr},
    {OpKind::loss_scale, "loss_scale", LossScaleOperands::count,
     {upd("state"), in("clip", kF64)},
     check_loss_scale, nullptr, nullptr},

    {OpKind::init, "init", InitOperands::count,
     {vout("w"), maybe_master("master", Access::write)},
     check_init, nullptr, nullptr},
    {OpKind::zero, "zero", ZeroOperands::count,
     {out("t")},
     check_nothing, nullptr, nullptr},
    {OpKind::digest, "digest", DigestOperands::count,
     {upd("digest", kI64), vin("t"), maybe_in("low", kU16)},
     check_digest, nullptr, nullptr},
    {OpKind::checkpoint_write, "checkpoint_write", CheckpointOperands::count,
     {maybe_upd("raw", kU8), upd("planes", kU8), upd("stored", kU8), upd("context", kU8),
      maybe_upd("index", kU8), maybe_upd("passage", kU8)},
     check_nothing, nullptr, nullptr, false, Lane::host},
    {OpKind::checkpoint_read, "checkpoint_read", CheckpointOperands::count,
     {maybe_upd("raw", kU8), upd("planes", kU8), upd("stored", kU8), upd("context", kU8),
      maybe_upd("index", kU8), maybe_upd("passage", kU8)},
     check_nothing, nullptr, nullptr, false, Lane::host},
};
// clang-format on
static_assert(std::size(kRows) == kOpKindCount);

}  // namespace

const OpRow& op_row(OpKind kind) {
    const OpRow& row = kRows[static_cast<size_t>(kind)];
    CHECK(row.kind == kind);
    return row;
}

Dtype operand_dtype(const Op& op, int operand) {
    const OperandRow& row = op_row(op.kind).operand[operand];
    switch (row.rule) {
        case DtypeRule::fixed:
            return row.dtype;
        case DtypeRule::value:
            return op.dtype;
        case DtypeRule::wide:
            return op.attrs.matmul.wide != 0 ? Dtype::f32 : op.dtype;
        case DtypeRule::master:
            return master_dtype(op.dtype);
    }
    return row.dtype;
}

Access operand_access(const Op& op, int operand) {
    const OperandRow& row = op_row(op.kind).operand[operand];
    return row.accumulates != nullptr && row.accumulates(op.attrs) ? Access::update : row.access;
}

double op_bytes(const Op& op, const Shape* shape) {
    const OpRow& row = op_row(op.kind);
    double bytes = 0;
    for (int i = 0; i < row.operand_count; ++i) {
        if (op.operand[i] == kNoTensor) continue;
        const double once = static_cast<double>(shape[i].elements()) *
                            static_cast<double>(dtype_bytes(operand_dtype(op, i)));
        bytes += operand_access(op, i) == Access::update ? 2 * once : once;
    }
    return bytes;
}

double op_flops(const Op& op, const Shape* shape) {
    const OpRow& row = op_row(op.kind);
    return row.flops == nullptr ? 0.0 : row.flops(op, shape);
}

}  // namespace plumb
