#include "runtime/program/autodiff.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "runtime/base/error.h"
#include "runtime/program/op_table.h"

namespace plumb {
namespace {

const KernelTraits kNoScratch{
    "none", [](const Op&, const Shape*, const DeviceRecord&) { return int64_t{0}; }};

// y = x W1' ; z = y W2' + x ; loss(z W1'): W1 used twice, x consumed twice.
struct Mini {
    Builder b{kNoScratch, DeviceRecord{}};
    ParamId w1, w2, wte;
    TensorId tokens, targets, weights, loss;
    Program program;

    explicit Mini(bool train_w2 = true, bool train_wte = true, bool recompute = false) {
        b.begin_unit("embed");
        wte = declare("wte", make_shape(11, 8), train_wte);
        b.begin_unit("body");
        w1 = declare("w1", make_shape(8, 8), true);
        w2 = declare("w2", make_shape(8, 8), train_w2);
        b.allocate_units({});
        const Shape row = make_shape(2, 3);
        tokens = b.tensor("tokens", Dtype::i32, row, Role::io_row);
        targets = b.tensor("targets", Dtype::i32, row, Role::io_row);
        weights = b.tensor("weights", Dtype::f32, row, Role::io_row);
        loss = b.tensor("loss", Dtype::f64, make_shape(1), Role::io);
        b.begin_section(SectionKind::forward, "forward");
        const TensorId x = b.embed(b.weight(wte), kNoTensor, tokens, kNoTensor);
        if (recompute) b.recompute_begin();
        const TensorId y = b.matmul(x, b.weight(w1), kNoTensor);
        const TensorId z = b.matmul(y, b.weight(w2), kNoTensor, x);
        if (recompute) b.recompute_end();
        b.head_loss(loss, z, b.weight(wte), targets, weights, kNoTensor, 4);
        b.end_section();
        const auto tape = b.take_tape();
        b.begin_section(SectionKind::backward, "backward");
        differentiate(b, tape);
        b.end_section();
        program = b.finish();
    }

    ParamId declare(const char* name, const Shape& shape, bool trainable) {
        Param param;
        param.name = name;
        param.shape = shape;
        param.trainable = trainable;
        return b.declare(param);
    }
    std::vector<OpKind> kinds(SectionKind kind) const {
        const Section& s = program.sections[static_cast<size_t>(program.section(kind))];
        std::vector<OpKind> kinds;
        for (int i = s.first_op; i < s.first_op + s.op_count; ++i)
            kinds.push_back(program.ops[static_cast<size_t>(i)].kind);
        return kinds;
    }
    int64_t saved_bytes() const {
        int64_t sum = 0;
        for (const Tensor& t : program.tensors)
            if (t.role == Role::saved && t.alias_of == kNoTensor) sum += t.size_bytes;
        return sum;
    }
};

using Kinds = std::vector<OpKind>;

TEST(Autodiff, WalksBackwardsAndTheLossIsMadeInTheBackward) {
    const Mini mini;
    EXPECT_EQ(mini.kinds(SectionKind::forward),
              (Kinds{OpKind::embed, OpKind::matmul, OpKind::matmul}));
    EXPECT_EQ(mini.kinds(SectionKind::backward),
              (Kinds{OpKind::head_loss_backward, OpKind::matmul_dx, OpKind::matmul_dw,
                     OpKind::matmul_dx, OpKind::matmul_dw, OpKind::embed_backward}));
}

TEST(Autodiff, TwoConsumersAccumulateInPlace) {
    const Mini mini;
    std::vector<const Op*> dx;
    for (const Op& op : mini.program.ops)
        if (op.kind == OpKind::matmul_dx) dx.push_back(&op);
    ASSERT_EQ(dx.size(), 2u);
    // The residual handed z's gradient over to x; the first product adds to it.
    EXPECT_EQ(dx[0]->attrs.matmul.accumulate, 0);
    EXPECT_EQ(dx[1]->attrs.matmul.accumulate, 1);
    EXPECT_EQ(dx[1]->operand[MatmulDxOperands::dx], dx[0]->operand[MatmulDxOperands::dy]);
}

TEST(Autodiff, FrozenParametersPrune) {
    const Mini frozen_matrix(false, true);
    int products = 0;
    for (const OpKind kind : frozen_matrix.kinds(SectionKind::backward))
        products += kind == OpKind::matmul_dw ? 1 : 0;
    EXPECT_EQ(products, 1);
    // Without a trainable embedding nothing below the first matmul is needed.
    const Mini frozen_embedding(true, false);
    EXPECT_EQ(frozen_embedding.kinds(SectionKind::backward),
              (Kinds{OpKind::head_loss_backward, OpKind::matmul_dx, OpKind::matmul_dw,
                     OpKind::matmul_dw}));
    for (const Op& op : frozen_embedding.program.ops)
        if (op.kind == OpKind::head_loss_backward) {
            EXPECT_EQ(op.operand[HeadLossBackwardOperands::dw], kNoTensor);
        }
}

TEST(Autodiff, ARecomputedSegmentKeepsOnlyItsBoundary) {
    const Mini plain;
    const Mini again(true, true, true);
    const int64_t activation = 2 * 3 * 8 * 4;
    EXPECT_EQ(plain.saved_bytes(), 3 * activation);  // x, y, z
    EXPECT_EQ(again.saved_bytes(), 2 * activation);  // x, z
    const Kinds kinds = again.kinds(SectionKind::backward);
    EXPECT_EQ(kinds, (Kinds{OpKind::head_loss_backward, OpKind::matmul, OpKind::matmul_dx,
                            OpKind::matmul_dw, OpKind::matmul_dx, OpKind::matmul_dw,
                            OpKind::embed_backward}));
}

TEST(Autodiff, EverythingReadInTheBackwardLiesInASlotOrIsMadeThere) {
    const Mini mini;
    for (const Section& section : mini.program.sections) {
        const auto index = static_cast<SectionId>(&section - mini.program.sections.data());
        for (int i = section.first_op; i < section.first_op + section.op_count; ++i) {
            const Op& op = mini.program.ops[static_cast<size_t>(i)];
            for (int k = 0; k < op.operand_count; ++k) {
                if (op.operand[k] == kNoTensor) continue;
                const Tensor& t = mini.program.tensors[static_cast<size_t>(op.operand[k])];
                if (t.section >= 0 && t.section != index) {
                    EXPECT_EQ(t.slot_class, SlotClass::forward_backward) << t.name;
                }
            }
        }
    }
}

}  // namespace
}  // namespace plumb
