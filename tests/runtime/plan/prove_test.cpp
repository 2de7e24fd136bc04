#include "runtime/plan/prove.h"

#include <gtest/gtest.h>

#include "tests/runtime/plan/small_program.h"

namespace plumb {
namespace {

class Prove : public testing::Test {
  protected:
    void SetUp() override {
        std::tie(small_, ids_) = make_training_program();
        plan_ = make_plan(small_.program, test_device());
        ASSERT_EQ(find_flaw(small_.program, plan_), "");
    }
    Placement& place(TensorId id) { return plan_.placement[static_cast<size_t>(id)]; }
    std::string flaw() const { return find_flaw(small_.program, plan_); }

    SmallProgram small_;
    TrainingIds ids_{};
    Plan plan_;
};

TEST_F(Prove, FindsOverlapInASection) {
    place(ids_.d_x).offset_bytes = place(ids_.d_y).offset_bytes;
    EXPECT_NE(flaw().find("overlap"), std::string::npos) << flaw();
    EXPECT_NE(flaw().find("d_x"), std::string::npos) << flaw();
}

TEST_F(Prove, FindsOverlapOfOneByte) {
    const int64_t d_y = place(ids_.d_y).offset_bytes;
    const int64_t d_x = place(ids_.d_x).offset_bytes;
    ASSERT_NE(d_x, d_y);
    (d_x > d_y ? small_.at(ids_.d_y) : small_.at(ids_.d_x)).size_bytes += 1;
    EXPECT_NE(flaw(), "");
}

TEST_F(Prove, FindsOverlapInASlotAcrossSections) {
    place(ids_.saved_late).offset_bytes = place(ids_.saved_early).offset_bytes;
    EXPECT_NE(flaw().find("saved_early"), std::string::npos) << flaw();
}

TEST_F(Prove, FindsOverlapOfPersistentTensorsThatNoOpSharesATimeWith) {
    plan_.arena_bytes[static_cast<int>(Arena::io)] += 4096;
    place(ids_.loss).offset_bytes = place(ids_.scalars).offset_bytes;
    EXPECT_NE(flaw().find("scalars"), std::string::npos) << flaw();
}

TEST_F(Prove, FindsOverlapInARow) {
    place(ids_.targets).offset_bytes = place(ids_.tokens).offset_bytes;
    EXPECT_NE(flaw().find("tokens"), std::string::npos) << flaw();
}

TEST_F(Prove, FindsTensorsOutsideTheirArenaSlotOrRow) {
    const Plan good = plan_;
    for (const TensorId id : {ids_.weights, ids_.d_y, ids_.saved_late, ids_.targets, ids_.cache}) {
        plan_ = good;
        place(id).offset_bytes += 1 << 20;
        EXPECT_NE(flaw(), "") << id;
        plan_ = good;
        place(id).offset_bytes = -kAlignBytes;
        EXPECT_NE(flaw(), "") << id;
    }
}

TEST_F(Prove, FindsMisalignedRootsAndStrayAliases) {
    const Plan good = plan_;
    place(ids_.eval_x).offset_bytes += 4;
    plan_.arena_bytes[static_cast<int>(Arena::scratch)] += 64;
    EXPECT_NE(flaw().find("multiple of 64"), std::string::npos) << flaw();
    plan_ = good;
    place(ids_.weight_view).offset_bytes += 4;
    EXPECT_NE(flaw().find("weight_view"), std::string::npos) << flaw();
}

TEST_F(Prove, FindsPoolsAndRowsThatDoNotFit) {
    const Plan good = plan_;
    plan_.pool[static_cast<int>(SlotClass::forward_backward)].slot_count = 100;
    EXPECT_NE(flaw().find("pool"), std::string::npos) << flaw();
    plan_ = good;
    plan_.io_row_offset_bytes -= 64;
    EXPECT_NE(flaw().find("io rows"), std::string::npos) << flaw();
    plan_ = good;
    plan_.io_row_offset_bytes += 64;
    EXPECT_NE(flaw().find("io rows"), std::string::npos) << flaw();
}

// Faults in the schedule. Entries are f0 b0 f1 b1 update, all in slot 0.
TEST_F(Prove, FindsASlotWrittenBeforeItsBackward) {
    auto& entries = small_.program.phases[0].entries;
    std::swap(entries[1], entries[2]);  // f0 f1 b0 b1
    EXPECT_EQ(flaw(),
              "phase step, entry 1: forward on micro-batch 1 overwrites slot 0 of forward_backward "
              "before backward has read micro-batch 0");
}

TEST_F(Prove, FindsABackwardOfWhatItsSlotDoesNotHold) {
    const Program good = small_.program;
    auto& entries = small_.program.phases[0].entries;
    entries[1].micro_batch = 1;
    EXPECT_NE(flaw().find("entry 1: backward on micro-batch 1 reads slot 0"), std::string::npos)
        << flaw();
    small_.program = good;
    entries.erase(entries.begin());  // b0 f1 b1
    EXPECT_NE(flaw().find("entry 0: backward on micro-batch 0 reads slot 0"), std::string::npos)
        << flaw();
    small_.program = good;
    entries.insert(entries.begin() + 1, entries[1]);  // b0 twice
    EXPECT_NE(flaw().find("entry 2: backward on micro-batch 0 reads slot 0"), std::string::npos)
        << flaw();
}

TEST_F(Prove, FindsASavedTensorThatNobodyWrites) {
    for (Op& op : small_.program.ops)  // the forward's matmul writes elsewhere
        if (op.kind == OpKind::matmul && op.operand[MatmulOperands::y] == ids_.saved_early)
            op.operand[MatmulOperands::y] = ids_.y;
    for (Op& op : small_.program.ops)  // and its last op no longer makes the class
        if (op.operand[0] == ids_.saved_late) op.operand[0] = ids_.y;
    const std::string found = find_schedule_flaw(small_.program, plan_);
    EXPECT_NE(found.find("reads slot 0"), std::string::npos) << found;
}

TEST_F(Prove, FindsWhatRunsBesideAPhaseInItsBytes) {
    small_.program.phases[0].beside = {ids_.save};
    EXPECT_EQ(flaw(), "");
    small_.program.phases[0].beside = {ids_.evaluate};  // its eval_x lies where x and d_y do
    EXPECT_NE(flaw().find("of evaluate, which runs beside it"), std::string::npos) << flaw();
    small_.program.phases[0].beside = {};
    small_.program.phases[1].beside = {ids_.backward};  // the other way round
    EXPECT_NE(flaw().find("of backward, which runs beside it"), std::string::npos) << flaw();
}

TEST_F(Prove, FindsASlotThatNobodyReadsInItsPhase) {
    auto& entries = small_.program.phases[0].entries;
    entries.erase(entries.begin() + 3);  // no b1: the next step's f0 would overwrite it
    EXPECT_NE(flaw().find("ends before backward has read micro-batch 1"), std::string::npos)
        << flaw();
}

TEST_F(Prove, FindsSlotsBeyondTheirPool) {
    for (const int32_t slot : {-1, 1}) {
        small_.program.phases[0].entries[0].slot[static_cast<int>(SlotClass::forward_backward)] =
            slot;
        EXPECT_NE(flaw().find("of 1"), std::string::npos) << flaw();
    }
}

TEST_F(Prove, FindsACacheOverSlotsInOnePhase) {
    auto& entries = small_.program.phases[0].entries;
    entries.push_back(SmallProgram::entry(ids_.decode));
    EXPECT_NE(flaw().find("phase step: cache lies over the slots"), std::string::npos) << flaw();
    // Behind the slots, as red zones place it, it may be touched.
    const int64_t pool = plan_.pool[static_cast<int>(SlotClass::forward_backward)].slot_bytes;
    place(ids_.cache).offset_bytes = pool;
    plan_.arena_bytes[static_cast<int>(Arena::stash)] += pool;
    EXPECT_EQ(flaw(), "");
}

TEST(ProveSchedule, ManySlotsHoldManyMicroBatches) {
    auto [small, ids] = make_training_program(3, true);
    const Plan plan = make_plan(small.program, test_device());
    EXPECT_EQ(find_schedule_flaw(small.program, plan), "");
    small.program.phases[0].entries[2].slot[static_cast<int>(SlotClass::forward_backward)] = 1;
    EXPECT_NE(find_schedule_flaw(small.program, plan).find("overwrites slot 1"), std::string::npos);
}

TEST_F(Prove, RedZonesCount) {
    plan_.red_zone_bytes = 64;  // the plan was made without
    EXPECT_NE(flaw(), "");
}

TEST(FindOverlap, TouchingInTimeOrSpaceOnlyIsNoOverlap) {
    Program program;
    program.tensors.resize(3);
    EXPECT_EQ(find_overlap(program, {{0, 64, 0, 5, 0}, {64, 128, 0, 5, 1}, {0, 128, 6, 9, 2}}), "");
    EXPECT_NE(find_overlap(program, {{0, 64, 0, 5, 0}, {63, 128, 5, 5, 1}}), "");
    // A large block around a small one, the neighbours by address do not hide it.
    EXPECT_NE(find_overlap(program, {{0, 512, 0, 9, 0}, {128, 192, 3, 3, 1}}), "");
    EXPECT_NE(find_overlap(program, {{128, 192, 0, 9, 0}, {0, 512, 3, 3, 1}}), "");
}

}  // namespace
}  // namespace plumb
