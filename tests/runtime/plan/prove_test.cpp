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
