#include "runtime/program/builder.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>

#include "runtime/base/error.h"
#include "runtime/program/op_table.h"

namespace plumb {
namespace {

const KernelTraits kHundredBytes{"hundred", [](const Op& op, const Shape*, const DeviceRecord&) {
                                     return int64_t{op.kind == OpKind::matmul ? 100 : 0};
                                 }};

Param make_param(const char* name, const Shape& shape) {
    Param param;
    param.name = name;
    param.shape = shape;
    return param;
}

std::string message_of(const std::function<void()>& body) {
    try {
        body();
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ExitCode::bad_input);
        return error.what();
    }
    return "no error";
}

TEST(Builder, ShapesAreCheckedWhenRecorded) {
    Builder b(kHundredBytes, DeviceRecord{});
    b.begin_unit("u");
    const ParamId w = b.declare(make_param("w", make_shape(5, 7)));
    b.allocate_units({false, false});
    b.begin_section(SectionKind::evaluate, "evaluate");
    const TensorId x = b.tensor("x", Dtype::f32, make_shape(2, 3, 6), Role::activation);
    EXPECT_EQ(message_of([&] { b.matmul(x, b.weight(w), kNoTensor); }),
              "op matmul: inputs of x and w: 6 is not 7");
    const TensorId fits = b.tensor("x", Dtype::f32, make_shape(2, 3, 7), Role::activation);
    const TensorId y = b.matmul(fits, b.weight(w), kNoTensor);
    EXPECT_EQ(b.shape(y), make_shape(2, 3, 5));
    AttentionAttrs attention{};
    attention.heads = 3;
    attention.kv_heads = 2;
    attention.head_size = 4;
    const TensorId qkv = b.tensor("qkv", Dtype::f32, make_shape(2, 3, 28), Role::activation);
    const TensorId start = b.tensor("start", Dtype::i32, make_shape(2, 3), Role::activation);
    EXPECT_EQ(message_of([&] { b.attention(qkv, start, attention); }),
              "op attention: heads modulo kv_heads: 1 is not 0");
}

TEST(Builder, SizesThatOverflowAreErrors) {
    Builder b(kHundredBytes, DeviceRecord{});
    b.begin_unit("u");
    const std::string message = message_of(
        [&] { b.declare(make_param("huge", make_shape(int64_t{1} << 40, int64_t{1} << 40))); });
    EXPECT_NE(message.find("huge"), std::string::npos) << message;
}

TEST(Builder, ScratchIsAskedFromTheTraits) {
    Builder b(kHundredBytes, DeviceRecord{});
    b.begin_unit("u");
    const ParamId w = b.declare(make_param("w", make_shape(5, 7)));
    b.allocate_units({false, false});
    b.begin_section(SectionKind::evaluate, "evaluate");
    const TensorId x = b.tensor("x", Dtype::f32, make_shape(2, 3, 7), Role::activation);
    b.matmul(x, b.weight(w), kNoTensor);
    b.end_section();
    const Program program = b.finish();
    ASSERT_EQ(program.ops.size(), 1u);
    const Tensor& scratch = program.tensors[static_cast<size_t>(program.ops[0].scratch)];
    EXPECT_EQ(scratch.size_bytes, 100);
    EXPECT_EQ(scratch.role, Role::scratch);
}

TEST(Builder, AdjacentParametersAreOneMatrix) {
    Builder b(kHundredBytes, DeviceRecord{});
    b.begin_unit("u");
    const ParamId q = b.declare(make_param("q", make_shape(4, 8)));
    const ParamId k = b.declare(make_param("k", make_shape(2, 8)));
    b.allocate_units({});
    const TensorId qk = b.weight({q, k});
    EXPECT_EQ(b.shape(qk), make_shape(6, 8));
    const TensorId grad = b.weight_grad(qk);
    ASSERT_NE(grad, kNoTensor);
    EXPECT_EQ(b.shape(grad), make_shape(6, 8));
    EXPECT_EQ(b.at(grad).alias_of, b.program().units[0].grad);
    EXPECT_EQ(b.program().units[0].elements, 48);
    EXPECT_EQ(b.at(b.weight(k)).alias_offset_bytes, 4 * 8 * 4);
}

TEST(Builder, AFurtherUseHasItsOwnAccumulatorOnlyInExactMode) {
    for (const bool exact : {false, true}) {
        Builder b(kHundredBytes, DeviceRecord{});
        b.begin_unit("u");
        const ParamId w = b.declare(make_param("w", make_shape(4, 8)), 2);
        b.allocate_units({true, exact});
        const TensorId first = b.weight_grad(b.weight(w, 0));
        const TensorId second = b.weight_grad(b.weight(w, 1));
        const auto storage = [&](TensorId id) { return b.program().root(id); };
        EXPECT_EQ(storage(first) == storage(second), !exact);
    }
}

TEST(Builder, OptionalOutputsNobodyReadsAreDropped) {
    Builder b(kHundredBytes, DeviceRecord{});
    b.begin_unit("u");
    const ParamId gain = b.declare(make_param("gain", make_shape(7)));
    b.allocate_units({false, false});
    b.begin_section(SectionKind::evaluate, "evaluate");
    const TensorId x = b.tensor("x", Dtype::f32, make_shape(2, 3, 7), Role::activation);
    b.norm(NormKind::rms, 1e-5, x, b.weight(gain), kNoTensor);
    b.end_section();
    const Program program = b.finish();
    EXPECT_EQ(program.ops[0].operand[NormOperands::stats], kNoTensor);
    EXPECT_NE(program.ops[0].operand[NormOperands::y], kNoTensor);
}

TEST(OpTable, RowsAreWhole) {
    for (int k = 0; k < kOpKindCount; ++k) {
        const OpRow& row = op_row(static_cast<OpKind>(k));
        EXPECT_GT(std::strlen(row.name), 0u);
        EXPECT_LE(row.operand_count, kMaxOperands);
        EXPECT_NE(row.check_shapes, nullptr) << row.name;
        bool inputs = false;  // outputs and updates come before inputs
        for (int i = 0; i < row.operand_count; ++i) {
            ASSERT_NE(row.operand[i].name, nullptr) << row.name;
            const bool input = row.operand[i].access == Access::read;
            EXPECT_TRUE(input || !inputs) << row.name << " " << row.operand[i].name;
            inputs = inputs || input;
        }
    }
}

TEST(OpTable, AccumulatingOpsUpdateWhatOthersWrite) {
    Shape shape[kMaxOperands];
    for (Shape& s : shape) s = make_shape(2, 3);
    for (const OpKind kind : {OpKind::norm_backward, OpKind::matmul_dx}) {
        Op op;
        op.kind = kind;
        op.operand[0] = 0;  // dx alone: only its bytes count
        EXPECT_EQ(operand_access(op, 0), Access::write);
        EXPECT_EQ(op_bytes(op, shape), 24);
        (kind == OpKind::norm_backward ? op.attrs.norm.accumulate : op.attrs.matmul.accumulate) = 1;
        EXPECT_EQ(operand_access(op, 0), Access::update);
        EXPECT_EQ(op_bytes(op, shape), 48);
        EXPECT_EQ(operand_access(op, op_row(kind).operand_count - 1), Access::read);
    }
}

TEST(OpTable, HostOpsAreRecordedOnTheHostLane) {
    Builder b(kHundredBytes, DeviceRecord{});
    b.begin_section(SectionKind::save, "save");
    const TensorId bytes = b.tensor("bytes", Dtype::u8, make_shape(64), Role::staging);
    const TensorId x = b.tensor("x", Dtype::f32, make_shape(4), Role::activation);
    b.record(OpKind::zero, {}, {x});
    b.record(OpKind::checkpoint_write, {}, {kNoTensor, bytes, bytes, bytes, kNoTensor, kNoTensor});
    b.record(OpKind::checkpoint_read, {}, {kNoTensor, bytes, bytes, bytes, kNoTensor, kNoTensor});
    b.end_section();
    const Program program = b.finish();
    ASSERT_EQ(program.ops.size(), 3u);
    EXPECT_EQ(program.ops[0].lane, Lane::compute);
    EXPECT_EQ(program.ops[1].lane, Lane::host);
    EXPECT_EQ(program.ops[2].lane, Lane::host);
}

TEST(OpTable, FlopsOfProducts) {
    Op op;
    op.kind = OpKind::matmul;
    Shape shape[kMaxOperands];
    shape[MatmulOperands::x] = make_shape(2, 3, 7);
    shape[MatmulOperands::w] = make_shape(5, 7);
    EXPECT_EQ(op_flops(op, shape), 2.0 * 6 * 5 * 7);
}

}  // namespace
}  // namespace plumb
