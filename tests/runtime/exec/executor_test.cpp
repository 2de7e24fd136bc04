#include "runtime/exec/executor.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "runtime/base/error.h"
#include "runtime/exec/machine_limits.h"
#include "runtime/exec/memory_use.h"
#include "runtime/program/builder.h"

namespace plumb {
namespace {

constexpr int64_t kZone = 64;

// a, b, c live in one section: zero(a); a += b ... with a fixed output.
struct Small {
    Program program;
    TensorId scalars, total, part;
    DeviceRecord device = host_device(1);

    Small() {
        Builder b(cpu_traits(), device);
        scalars = b.tensor("scalars", Dtype::u8, make_shape(sizeof(StepScalars)), Role::io);
        total = b.tensor("total", Dtype::f32, make_shape(5), Role::io);
        part = b.tensor("part", Dtype::f32, make_shape(5), Role::io_row);
        b.begin_section(SectionKind::evaluate, "evaluate");
        const TensorId a = b.tensor("a", Dtype::f32, make_shape(5), Role::activation);
        b.record(OpKind::zero, {}, {a});
        b.record(OpKind::add, {}, {a, part});
        b.record(OpKind::add, {}, {total, a});
        b.end_section();
        b.program().micro_batch_count = 3;
        std::vector<Entry> entries(3);
        for (int m = 0; m < 3; ++m) {
            entries[static_cast<size_t>(m)].section = 0;
            entries[static_cast<size_t>(m)].micro_batch = m;
        }
        b.program().phases.push_back({PhaseKind::evaluate, entries});
        b.program().io.scalars = scalars;
        program = b.finish();
    }
};

TEST(Executor, EntriesChooseTheirIoRow) {
    for (const int64_t zone : {int64_t{0}, kZone}) {
        const Small small;
        const Plan plan = make_plan(small.program, small.device, {zone});
        const ArenaSet arenas(plan, 0);
        Executor executor(small.program, plan, arenas, kernel_table(host_isa()), {});
        std::memset(executor.data<float>(small.total), 0, 5 * sizeof(float));
        for (int m = 0; m < 3; ++m)
            for (int i = 0; i < 5; ++i)
                executor.data<float>(small.part, m)[i] = static_cast<float>(10 * m + i);
        for (const Entry& entry : small.program.phases[0].entries) executor.run(entry);
        for (int i = 0; i < 5; ++i)
            EXPECT_EQ(executor.data<float>(small.total)[i], static_cast<float>(30 + 3 * i));
    }
}

// Entries op by op, and of one the last op once more.
TEST(Executor, AnOpAloneIsThatOfItsEntry) {
    const Small small;
    const Plan plan = make_plan(small.program, small.device);
    const ArenaSet arenas(plan, 0);
    Executor executor(small.program, plan, arenas, kernel_table(host_isa()), {});
    for (int m = 0; m < 3; ++m) *executor.data<float>(small.part, m) = static_cast<float>(1 << m);
    for (const Entry& entry : small.program.phases[0].entries)
        for (int32_t op = 0; op < 3; ++op) executor.run_op(entry, op);
    EXPECT_EQ(*executor.data<float>(small.total), 7.0F);
    executor.run_op(small.program.phases[0].entries[0], 2);
    EXPECT_EQ(*executor.data<float>(small.total), 11.0F);
}

TEST(Executor, ReservedBytesArePlannedBytes) {
    const Small small;
    const Plan plan = make_plan(small.program, small.device);
    const ArenaSet arenas(plan, 0);
    EXPECT_EQ(arenas.reserved_bytes(), plan.total_bytes);
    EXPECT_GE(arenas.mapped_bytes(), plan.total_bytes);
    for (int a = 0; a < kArenaCount; ++a)
        EXPECT_EQ(reinterpret_cast<uintptr_t>(arenas.base(static_cast<Arena>(a))) % kAlignBytes,
                  0u);
}

TEST(Executor, APlanAboveTheLimitIsRefusedWithBothNumbers) {
    const Small small;
    const Plan plan = make_plan(small.program, small.device);
    try {
        const ArenaSet arenas(plan, 1000);
        FAIL();
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ExitCode::does_not_fit);
        const std::string text = error.what();
        EXPECT_NE(text.find(std::to_string(plan.total_bytes)), std::string::npos) << text;
        EXPECT_NE(text.find("run.memory is 1000 bytes"), std::string::npos) << text;
    }
}

TEST(Executor, APlanAboveTheMachineIsRefused) {
    const Small small;
    Plan plan = make_plan(small.program, small.device);
    const char* source = nullptr;
    const int64_t available = available_memory_bytes(&source);
    plan.arena_bytes[static_cast<int>(Arena::stash)] += available;
    plan.total_bytes += available;
    plan.space_bytes[static_cast<int>(MemorySpace::host)] += available;
    try {
        const ArenaSet arenas(plan, 0);
        FAIL();
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ExitCode::does_not_fit);
    }
}

TEST(MemoryUse, SeesAMappedArena) {
    const MemoryUse before = memory_use();
    Small small;
    Plan plan = make_plan(small.program, small.device);
    const int64_t extra = 64 * kMiB;
    plan.arena_bytes[static_cast<int>(Arena::stash)] += extra;
    plan.total_bytes += extra;
    const ArenaSet arenas(plan, 0);
    const int64_t grown = memory_use().anonymous_bytes - before.anonymous_bytes;
    EXPECT_GE(grown, extra);
    EXPECT_LE(grown, extra + 4 * kMiB);
}

// A kernel that writes one float past its output, and one that reads a dead tensor.
void writes_past_its_end(const KernelArgs& args) noexcept {
    args.at<float>(ZeroOperands::t)[16] = 1.0f;
}

TEST(PoisonDeathTest, AWritePastTheEndIsCaughtRightAfterTheOp) {
    const Small small;
    const Plan plan = make_plan(small.program, small.device, {kZone});
    const ArenaSet arenas(plan, 0);
    KernelTable table = kernel_table(host_isa());
    table.kernel[static_cast<size_t>(OpKind::zero)][0] = writes_past_its_end;
    Executor executor(small.program, plan, arenas, table, {});
    EXPECT_DEATH(executor.run(small.program.phases[0].entries[0]), "kPattern a");
}

void does_nothing(const KernelArgs&) noexcept {}

TEST(Poison, WhatNobodyWroteIsNan) {
    const Small small;
    const Plan plan = make_plan(small.program, small.device, {kZone});
    const ArenaSet arenas(plan, 0);
    KernelTable table = kernel_table(host_isa());
    table.kernel[static_cast<size_t>(OpKind::zero)][0] = does_nothing;
    Executor executor(small.program, plan, arenas, table, {});
    for (int run = 0; run < 2; ++run) {
        for (int i = 0; i < 5; ++i) {
            executor.data<float>(small.total)[i] = 0;
            executor.data<float>(small.part, 0)[i] = 1;
        }
        executor.run(small.program.phases[0].entries[0]);
        EXPECT_TRUE(std::isnan(executor.data<float>(small.total)[0])) << run;
    }
}

}  // namespace
}  // namespace plumb
