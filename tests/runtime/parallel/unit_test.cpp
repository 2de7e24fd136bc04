#include "runtime/parallel/unit.h"

#include <gtest/gtest.h>

namespace plumb {
namespace {

const KernelTraits kNoScratch{
    "none", [](const Op&, const Shape*, const DeviceRecord&) { return int64_t{0}; }};

Param make_param(const char* name, const Shape& shape, bool trainable = true) {
    Param param;
    param.name = name;
    param.shape = shape;
    param.decay = shape.rank >= 2;
    param.trainable = trainable;
    return param;
}

Program update_program(bool exact) {
    Builder b(kNoScratch, DeviceRecord{});
    b.begin_unit("a");
    b.declare(make_param("gain", make_shape(3)));
    b.declare(make_param("w1", make_shape(3, 5)));
    b.declare(make_param("w2", make_shape(2, 5)), 2);
    b.declare(make_param("frozen", make_shape(4, 4), false));
    b.declare(make_param("bias", make_shape(7)));
    b.begin_unit("all_frozen");
    b.declare(make_param("f", make_shape(9), false));
    b.begin_unit("b");
    b.declare(make_param("w3", make_shape(6, 2)));
    b.allocate_units({true, exact, Dtype::f32});
    const TensorId sum = b.tensor("sum", Dtype::i64, make_shape(4), Role::io);
    const TensorId clip = b.tensor("clip", Dtype::f64, make_shape(4), Role::io);
    if (exact) {
        b.begin_section(SectionKind::reduce, "reduce");
        record_fold_parts(b);
        b.end_section();
    }
    record_update(b, sum, clip, kNoTensor);
    return b.finish();
}

std::vector<OpKind> kinds_of(const Program& program, SectionKind kind) {
    const Section& s = program.sections[static_cast<size_t>(program.section(kind))];
    std::vector<OpKind> kinds;
    for (int i = s.first_op; i < s.first_op + s.op_count; ++i)
        kinds.push_back(program.ops[static_cast<size_t>(i)].kind);
    return kinds;
}

TEST(Update, AdamwRunsOverPiecesOfEqualDecayAndSkipsWhatIsFrozen) {
    const Program program = update_program(false);
    std::vector<std::pair<int64_t, int>> pieces;  // elements, decay
    for (const Op& op : program.ops)
        if (op.kind == OpKind::adamw)
            pieces.emplace_back(
                program.tensors[static_cast<size_t>(op.operand[AdamwOperands::w])].shape.elements(),
                op.attrs.state.decay);
    EXPECT_EQ(pieces, (std::vector<std::pair<int64_t, int>>{{25, 1}, {10, 0}, {12, 1}}));
}

TEST(Update, TheNormStartsAtZeroOnceAndSeesEveryTrainableUnitOnce) {
    const Program program = update_program(false);
    std::vector<int> begins;
    for (const Op& op : program.ops)
        if (op.kind == OpKind::grad_norm) begins.push_back(op.attrs.state.begin);
    EXPECT_EQ(begins, (std::vector<int>{1, 0}));
    EXPECT_EQ(kinds_of(program, SectionKind::update).front(), OpKind::grad_norm);
}

// A save that reads the units in order lets go of each as it passes it.
TEST(Update, EachTrainableUnitHasASectionThatTouchesNoOther) {
    const Program program = update_program(false);
    std::vector<UnitId> units;
    for (const Section& section : program.sections) {
        ASSERT_EQ(section.kind, SectionKind::update);
        units.push_back(section.unit);
        for (int i = section.first_op; i < section.first_op + section.op_count; ++i) {
            const Op& op = program.ops[static_cast<size_t>(i)];
            EXPECT_EQ(op.kind == OpKind::adamw, section.unit >= 0) << section.name;
            if (op.kind != OpKind::adamw) continue;
            const Unit& unit = program.units[static_cast<size_t>(section.unit)];
            const TensorId w = program.root(op.operand[AdamwOperands::w]);
            EXPECT_TRUE(w == unit.weight || w == unit.vectors);
            EXPECT_EQ(program.root(op.operand[AdamwOperands::m]), unit.moment1);
            EXPECT_EQ(program.root(op.operand[AdamwOperands::v]), unit.moment2);
        }
    }
    EXPECT_EQ(units, (std::vector<UnitId>{-1, 0, 2})) << "norm, a, b; all_frozen has none";
}

TEST(Update, ExactFoldsPartsPerMicroBatchAndFurtherUsesOncePerStep) {
    const Program program = update_program(true);
    EXPECT_EQ(kinds_of(program, SectionKind::reduce),
              (std::vector<OpKind>{OpKind::fold, OpKind::fold, OpKind::fold}));
    const auto update = kinds_of(program, SectionKind::update);  // the first: norm
    EXPECT_EQ(update[0], OpKind::fold);
    EXPECT_EQ(update[1], OpKind::grad_norm);
    for (const Op& op : program.ops) {
        if (op.kind != OpKind::fold) continue;
        const auto at = static_cast<int>(&op - program.ops.data());
        const Section& reduce =
            program.sections[static_cast<size_t>(program.section(SectionKind::reduce))];
        EXPECT_EQ(op.attrs.state.copy_first, at < reduce.first_op + reduce.op_count ? 1 : 0);
    }
}

}  // namespace
}  // namespace plumb
