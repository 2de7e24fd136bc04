#include "runtime/plan/lifetime.h"

#include <gtest/gtest.h>

#include "tests/runtime/plan/small_program.h"

namespace plumb {
namespace {

void expect_life(const std::vector<Life>& lives, TensorId id, int32_t first, int32_t last) {
    EXPECT_EQ(lives[static_cast<size_t>(id)].first, first) << id;
    EXPECT_EQ(lives[static_cast<size_t>(id)].last, last) << id;
}

TEST(Lifetime, FirstTouchToLastTouch) {
    const auto [p, t] = make_training_program();
    const std::vector<Life> lives = lifetimes(p.program);
    expect_life(lives, t.x, 0, 1);
    expect_life(lives, t.y, 2, 3);
    expect_life(lives, t.matmul_scratch, 1, 1);
    expect_life(lives, t.saved_early, 1, 6);
    expect_life(lives, t.saved_late, 3, 4);
    expect_life(lives, t.d_y, 4, 5);
    expect_life(lives, t.d_x, 5, 6);
}

TEST(Lifetime, AliasesProlongTheirRoot) {
    auto [p, t] = make_training_program();
    const TensorId part = p.view("part", t.x, 64, 128);
    p.program.ops[3].operand[p.program.ops[3].operand_count++] = part;
    const std::vector<Life> lives = lifetimes(p.program);
    expect_life(lives, t.x, 0, 3);
    EXPECT_FALSE(lives[static_cast<size_t>(part)].used());
    // The view of the weights is read by op 0, the weights themselves by op 9.
    expect_life(lives, t.weights, 0, 9);
}

TEST(Lifetime, UntouchedTensorsHaveNone) {
    auto [p, t] = make_training_program();
    const TensorId idle = p.tensor("idle", Role::activation, 64);
    EXPECT_FALSE(lifetimes(p.program)[static_cast<size_t>(idle)].used());
}

TEST(Lifetime, CachesOverlayTheStashOnlyWhereTrainingHappens) {
    auto [p, t] = make_training_program();
    EXPECT_EQ(arena_of(p.program, Role::kv_cache), Arena::stash);
    p.program.sections[static_cast<size_t>(t.forward)].kind = SectionKind::prefill;
    EXPECT_EQ(arena_of(p.program, Role::kv_cache), Arena::kv_cache);
    EXPECT_EQ(arena_of(p.program, Role::saved), Arena::stash);
    EXPECT_EQ(arena_of(p.program, Role::io_row), Arena::io);
}

TEST(LifetimeDeathTest, MalformedPrograms) {
    const auto [good, t] = make_training_program();
    auto p = good;
    p.program.ops[5].operand[0] = t.x;  // an activation of forward used in backward
    EXPECT_DEATH(lifetimes(p.program), "x");
    p = good;
    p.program.ops[2].scratch = t.matmul_scratch;  // scratch of two ops
    EXPECT_DEATH(lifetimes(p.program), "matmul.scratch");
    p = good;
    p.at(t.weight_view).alias_offset_bytes = 1024 - 252;  // past the end of its root
    EXPECT_DEATH(lifetimes(p.program), "weight_view");
    p = good;
    p.at(t.saved_late).slot_class = SlotClass::none;
    EXPECT_DEATH(lifetimes(p.program), "saved_late");
    p = good;
    p.program.sections[1].first_op = 3;  // op 3 would belong to both
    EXPECT_DEATH(lifetimes(p.program), "two sections");
}

}  // namespace
}  // namespace plumb
