#include "runtime/plan/plan.h"

#include <gtest/gtest.h>

#include <functional>
#include <numeric>

#include "runtime/base/error.h"
#include "runtime/plan/outside.h"
#include "tests/runtime/plan/small_program.h"

namespace plumb {
namespace {

constexpr int kSlots = static_cast<int>(SlotClass::forward_backward);

int64_t bytes_of(const Plan& plan, Arena arena) {
    return plan.arena_bytes[static_cast<int>(arena)];
}

const Placement& place_of(const Plan& plan, TensorId id) {
    return plan.placement[static_cast<size_t>(id)];
}

TEST(Plan, ArenasOfTheSmallProgram) {
    const auto [p, t] = make_training_program();
    const Plan plan = make_plan(p.program, test_device());
    EXPECT_EQ(bytes_of(plan, Arena::weights), 1024);
    EXPECT_EQ(bytes_of(plan, Arena::grads), 1024);
    EXPECT_EQ(bytes_of(plan, Arena::moments), 2048);
    // Slot: 640 and 320 live together; the pool is smaller than the cache that overlays it.
    EXPECT_EQ(plan.pool[kSlots].slot_bytes, 960);
    EXPECT_EQ(plan.pool[kSlots].slot_count, 1);
    EXPECT_EQ(bytes_of(plan, Arena::stash), 4096);
    EXPECT_EQ(bytes_of(plan, Arena::kv_cache), 0);
    // Backward has 1280 + 192 at once, forward at most 512.
    EXPECT_EQ(bytes_of(plan, Arena::scratch), 1472);
    EXPECT_EQ(bytes_of(plan, Arena::staging), 3008);
    // Scalars 136 -> 192, loss 8 -> 64; two rows of 128 + 64.
    EXPECT_EQ(plan.io_row_bytes, 192);
    EXPECT_EQ(plan.io_row_offset_bytes, 256);
    EXPECT_EQ(bytes_of(plan, Arena::io), 256 + 2 * 192);
    EXPECT_EQ(plan.total_bytes, std::accumulate(std::begin(plan.arena_bytes),
                                                std::end(plan.arena_bytes), int64_t{0}));
    int64_t outside = 0;
    for (const OutsideRow& row : plan.outside) outside += row.bytes;
    EXPECT_EQ(plan.outside_bytes, outside);
    EXPECT_GT(outside, 0);
}

TEST(Plan, ScalarsHeadTheIoArenaWhateverTheirId) {
    const auto [p, t] = make_training_program();
    ASSERT_LT(t.loss, t.scalars);
    for (const int64_t zone : {0, 128}) {
        const Plan plan = make_plan(p.program, test_device(), {zone});
        EXPECT_EQ(place_of(plan, t.scalars).offset_bytes, 0);
        EXPECT_EQ(place_of(plan, t.scalars).arena, Arena::io);
        EXPECT_EQ(place_of(plan, t.scalars).base, Base::arena);
        EXPECT_EQ(place_of(plan, t.loss).offset_bytes, 192 + zone);
    }
}

TEST(Plan, AliasesLieInTheirRoots) {
    const auto [p, t] = make_training_program();
    const Plan plan = make_plan(p.program, test_device());
    EXPECT_EQ(place_of(plan, t.weight_view).arena, Arena::weights);
    EXPECT_EQ(place_of(plan, t.weight_view).offset_bytes,
              place_of(plan, t.weights).offset_bytes + 516);
}

TEST(Plan, AGeneratingProgramKeepsItsCache) {
    auto [p, t] = make_training_program();
    p.program.sections[static_cast<size_t>(t.forward)].kind = SectionKind::prefill;
    const Plan plan = make_plan(p.program, test_device());
    EXPECT_EQ(bytes_of(plan, Arena::kv_cache), 4096);
    EXPECT_EQ(bytes_of(plan, Arena::stash), 960);
    for (const PhasePlan& phase : plan.phases)
        EXPECT_EQ(phase.arena_bytes[static_cast<int>(Arena::kv_cache)], 4096);
}

TEST(Plan, PhasesAndTheirPeaks) {
    const auto [p, t] = make_training_program();
    const Plan plan = make_plan(p.program, test_device());
    const int64_t always = 1024 + 1024 + 2048 + 256 + 2 * 192;
    ASSERT_EQ(plan.phases.size(), 4u);
    const PhasePlan& step = plan.phases[0];
    EXPECT_EQ(step.kind, PhaseKind::step);
    // At op 5 live d_y 1280, d_x 192 and saved_early 640; saved_late died at op 4, where
    // 1280 + 640 + 320 is more.
    EXPECT_EQ(step.peak_live_bytes, always + 1280 + 640 + 320);
    EXPECT_EQ(step.peak_section, t.backward);
    EXPECT_EQ(step.peak_op, 4);
    EXPECT_EQ(step.arena_bytes[static_cast<int>(Arena::stash)], 960);
    EXPECT_EQ(step.arena_bytes[static_cast<int>(Arena::staging)], 0);
    EXPECT_EQ(step.total_bytes, always + 960 + 1472);
    const PhasePlan& evaluate = plan.phases[1];
    EXPECT_EQ(evaluate.peak_live_bytes, always + 704);
    EXPECT_EQ(evaluate.peak_op, 8);
    EXPECT_EQ(evaluate.total_bytes, always + 704);
    const PhasePlan& save = plan.phases[2];
    EXPECT_EQ(save.peak_live_bytes, always + 3008);
    EXPECT_EQ(save.peak_section, t.save);
    EXPECT_EQ(save.total_bytes, always + 3008);
    const PhasePlan& generate = plan.phases[3];
    EXPECT_EQ(generate.peak_live_bytes, always + 4096);
    EXPECT_EQ(generate.total_bytes, always + 4096);
    EXPECT_EQ(plan.peak_phase, 3);
    EXPECT_EQ(plan.lower_bound_unrolled_bytes, always + 4096);
    EXPECT_EQ(plan.lower_bound_slots_bytes, plan.total_bytes);
}

TEST(Plan, SlotsThatWaitForTheirBackwardCountUnrolled) {
    // Forward, forward, forward, then backward in reverse: three copies of the saved tensors.
    const auto [p, t] = make_training_program(3, true);
    const Plan plan = make_plan(p.program, test_device());
    EXPECT_EQ(plan.pool[kSlots].slot_count, 3);
    const int64_t always = 1024 + 1024 + 2048 + 256 + 3 * 192;
    // The third micro-batch's op 4 beside the copies of the first two.
    EXPECT_EQ(plan.phases[0].peak_live_bytes, always + 2 * 960 + 1280 + 960);
    EXPECT_EQ(plan.phases[0].arena_bytes[static_cast<int>(Arena::stash)], 3 * 960);
}

TEST(Plan, BoundsAreOrderedWithAndWithoutRedZones) {
    for (const int32_t micro_batches : {1, 2, 5}) {
        for (const bool all_first : {false, true}) {
            const auto [p, t] = make_training_program(micro_batches, all_first);
            for (const int64_t zone : {0, 64, 4096}) {
                const Plan plan = make_plan(p.program, test_device(), {zone});
                EXPECT_GE(plan.total_bytes, plan.lower_bound_slots_bytes);
                EXPECT_GE(plan.lower_bound_slots_bytes, plan.lower_bound_unrolled_bytes);
                for (const PhasePlan& phase : plan.phases) {
                    EXPECT_LE(phase.peak_live_bytes, phase.total_bytes);
                    EXPECT_LE(phase.total_bytes, plan.total_bytes);
                }
            }
        }
    }
}

TEST(Plan, RedZonesLieOnBothSides) {
    const auto [p, t] = make_training_program();
    constexpr int64_t kZone = 192;
    const Plan plan = make_plan(p.program, test_device(), {kZone});
    for (const TensorId id : {t.weights, t.grads, t.d_y, t.d_x, t.saved_early, t.saved_late,
                              t.tokens, t.cache, t.staging})
        EXPECT_GE(place_of(plan, id).offset_bytes, kZone) << id;
    EXPECT_EQ(bytes_of(plan, Arena::weights), kZone + 1024 + kZone);
    EXPECT_EQ(plan.pool[kSlots].slot_bytes, kZone + 640 + kZone + 320 + kZone);
    EXPECT_EQ(plan.io_row_bytes, kZone + 128 + kZone + 64 + kZone);
    EXPECT_THROW(make_plan(p.program, test_device(), {100}), Error);
    EXPECT_THROW(make_plan(p.program, test_device(), {-64}), Error);
}

TEST(Plan, TerabytesArePlannedAndOverflowIsAnError) {
    auto [p, t] = make_training_program();
    p.at(t.moments).size_bytes = int64_t{3} << 40;
    EXPECT_GT(make_plan(p.program, test_device()).total_bytes, int64_t{3} << 40);
    p.at(t.moments).size_bytes = INT64_MAX - 10;
    EXPECT_THROW(make_plan(p.program, test_device()), Error);
    p.at(t.moments).size_bytes = int64_t{1} << 62;
    p.at(t.grads).size_bytes = int64_t{1} << 62;
    EXPECT_THROW(make_plan(p.program, test_device()), Error);
}

TEST(Plan, WhatRunsBesideAPhaseIsPartOfIt) {
    auto [p, t] = make_training_program();
    const Plan alone = make_plan(p.program, test_device());
    for (size_t phase = 0; phase < 2; ++phase) p.program.phases[phase].beside = {t.save};
    const Plan both = make_plan(p.program, test_device());
    EXPECT_EQ(both.total_bytes, alone.total_bytes) << "staging shares its arena with no one";
    EXPECT_NE(both.digest, alone.digest);
    for (size_t i = 0; i < 4; ++i) {
        const int64_t staging = i < 2 ? 3008 : 0;
        EXPECT_EQ(both.phases[i].total_bytes, alone.phases[i].total_bytes + staging) << i;
        EXPECT_EQ(both.phases[i].peak_live_bytes, alone.phases[i].peak_live_bytes + staging) << i;
        EXPECT_EQ(both.phases[i].peak_op, alone.phases[i].peak_op) << i;
    }
    EXPECT_EQ(both.outside_bytes, alone.outside_bytes + kSavingStackBytes);
    EXPECT_STREQ(both.outside.back().source, "reserved");
}

TEST(Plan, PlacesAsText) {
    auto [p, t] = make_training_program();
    const TensorId idle = p.tensor("idle", Role::activation, 64);
    const Plan plan = make_plan(p.program, test_device());
    EXPECT_EQ(placement_text(plan, t.weight_view), "weights+516");
    EXPECT_EQ(placement_text(plan, t.saved_early).find("slot[forward_backward]+"), 0u);
    EXPECT_EQ(placement_text(plan, t.targets), "io_row+128");
    EXPECT_EQ(placement_text(plan, idle), "unused");
}

TEST(PlanDeathTest, SlotsThatDoNotExist) {
    auto [p, t] = make_training_program();
    p.program.phases[0].entries[0].slot[kSlots] = 1;
    EXPECT_DEATH(make_plan(p.program, test_device()), "slot");
    p.program.slot_count[kSlots] = 0;
    EXPECT_DEATH(make_plan(p.program, test_device()), "without slots");
}

TEST(PlanDigest, DependsOnAllThatChangesBytesAndOnNothingElse) {
    const auto [p, t] = make_training_program();
    const Hash128 reference = make_plan(p.program, test_device()).digest;
    EXPECT_EQ(make_plan(p.program, test_device()).digest, reference);

    DeviceRecord renamed = test_device();
    renamed.name[0] = 'x';
    EXPECT_EQ(make_plan(p.program, renamed).digest, reference);

    const std::vector<std::function<void(DeviceRecord&)>> devices = {
        [](DeviceRecord& d) { d.isa = Isa::avx512; },
        [](DeviceRecord& d) { d.threads = 3; },
    };
    for (size_t i = 0; i < devices.size(); ++i) {
        DeviceRecord device = test_device();
        devices[i](device);
        EXPECT_NE(make_plan(p.program, device).digest, reference) << "device change " << i;
    }

    const TrainingIds ids = t;
    const std::vector<std::function<void(SmallProgram&)>> changes = {
        [&](SmallProgram& q) { q.at(ids.x).name = "z"; },
        [&](SmallProgram& q) { q.at(ids.x).shape = make_shape(8, 8); },
        [&](SmallProgram& q) { q.at(ids.x).dtype = Dtype::i32; },
        [&](SmallProgram& q) { q.at(ids.x).size_bytes -= 4; },
        [&](SmallProgram& q) { q.at(ids.d_y).size_bytes += 64; },
        [&](SmallProgram& q) { q.at(ids.weight_view).alias_offset_bytes -= 4; },
        [&](SmallProgram& q) { q.program.ops[0].kind = OpKind::norm; },
        [&](SmallProgram& q) { q.program.ops[0].lane = Lane::copy; },
        [&](SmallProgram& q) { q.program.ops[0].attrs.bytes[47] = 1; },
        [&](SmallProgram& q) { q.program.ops[9].operand[3] = ids.tokens; },
        [&](SmallProgram& q) { q.program.ops[1].scratch = kNoTensor; },
        [&](SmallProgram& q) { q.program.sections[0].name = "f"; },
        [&](SmallProgram& q) { q.program.micro_batch_count = 3; },
        [&](SmallProgram& q) { q.program.slot_count[kSlots] = 2; },
        [&](SmallProgram& q) {
            for (const size_t entry : {2u, 3u}) q.program.phases[0].entries[entry].micro_batch = 0;
        },
        [&](SmallProgram& q) { q.program.phases.pop_back(); },
        [&](SmallProgram& q) { q.tensor("more", Role::state, 64); },
    };
    for (size_t i = 0; i < changes.size(); ++i) {
        SmallProgram changed = p;
        changes[i](changed);
        EXPECT_NE(make_plan(changed.program, test_device()).digest, reference) << "change " << i;
    }
    EXPECT_NE(make_plan(p.program, test_device(), {64}).digest, reference);
}

}  // namespace
}  // namespace plumb
