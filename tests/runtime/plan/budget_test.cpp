#include "runtime/plan/budget.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "kernels/kernels.h"
#include "runtime/base/error.h"
#include "runtime/models/model_program.h"

namespace plumb {
namespace {

// The run of a preset on a fixed device, and its plans with one more override.
class Planned {
  public:
    explicit Planned(std::vector<std::string> overrides, Purpose purpose = Purpose::train)
        : overrides_(std::move(overrides)), purpose_(purpose) {
        overrides_.insert(overrides_.begin(), "--train.dtype=fp32");  // not the machine's choice
        config = load_run("tiny", overrides_);
        plan = make(overrides_);
    }
    const Plan& with(const std::string& setting) { return with(std::vector<std::string>{setting}); }
    const Plan& with(const std::vector<std::string>& settings) {
        for (const std::string& setting : settings) ++asked[setting];
        ++plans;
        std::vector<std::string> more = overrides_;
        more.insert(more.end(), settings.begin(), settings.end());
        return made_[settings] = make(more);
    }
    std::vector<BudgetChange> changes(int64_t memory_bytes) {
        asked.clear();
        return budget_changes(config, plan, memory_bytes, plan_with());
    }
    PlanWith plan_with() {
        return [this](const std::vector<std::string>& s) -> const Plan& { return with(s); };
    }
    int64_t needed() const { return needed_bytes(plan); }

    RunConfig config;
    Plan plan;
    std::map<std::string, int> asked;
    int plans = 0;

  private:
    Plan make(const std::vector<std::string>& overrides) const {
        DeviceRecord device{};
        named_device("cpu-avx512", 2, &device);
        const RunConfig run = load_run("tiny", overrides);
        // Staging as the codec's, so that the size of its chunks counts.
        const int64_t chunk = run.run.checkpoint.chunk_bytes;
        if (run.run.run.threads > 0) device.threads = static_cast<int32_t>(run.run.run.threads);
        return make_plan(
            build_program(run, {cpu_traits(), device, {chunk, chunk, chunk, 64, 64}}, purpose_),
            device);
    }
    std::vector<std::string> overrides_;
    Purpose purpose_;
    std::map<std::vector<std::string>, Plan> made_;
};

const BudgetChange* find(const std::vector<BudgetChange>& changes, const std::string& setting) {
    const auto at = std::find_if(changes.begin(), changes.end(), [&](const BudgetChange& c) {
        return c.setting.find(setting) != std::string::npos;
    });
    return at == changes.end() ? nullptr : &*at;
}

// Every number is that of the plan with the change, to the byte.
TEST(BudgetChanges, AreThePlansOfTheirSettings) {
    Planned run({});
    const int64_t memory = run.needed() / 2;
    const std::vector<BudgetChange> changes = run.changes(memory);
    ASSERT_GE(changes.size(), 5u);
    for (const BudgetChange& change : changes) {
        EXPECT_EQ(change.needed_bytes, needed_bytes(run.with(change.setting))) << change.setting;
        EXPECT_EQ(change.saved_bytes, run.needed() - change.needed_bytes) << change.setting;
        EXPECT_EQ(change.fits, change.needed_bytes <= memory) << change.setting;
        EXPECT_GE(change.saved_bytes * 100, run.needed() - memory) << change.setting;
    }
}

TEST(BudgetChanges, WhatFitsComesFirstTheCheapestBeforeTheRest) {
    Planned run({});
    const std::vector<BudgetChange> changes = run.changes(run.needed() * 3 / 4);
    ASSERT_GE(changes.size(), 5u);
    EXPECT_EQ(changes[0].setting, "--layout.recompute=block:1");
    EXPECT_EQ(changes[1].setting, "--batch.micro_batch=2");
    EXPECT_EQ(changes[2].setting, "--train.dtype=bf16");
    EXPECT_EQ(changes[3].setting, "--batch.sequence_length=128");
    for (size_t i = 0; i < changes.size(); ++i) EXPECT_EQ(changes[i].fits, i < 4) << i;
    for (size_t i = 5; i < changes.size(); ++i)
        EXPECT_GE(changes[i - 1].saved_bytes, changes[i].saved_bytes) << changes[i].setting;
}

// To the byte: what a change needs is enough for it, one byte less is not.
TEST(BudgetChanges, FitsToTheByte) {
    Planned run({});
    const int64_t needed = needed_bytes(run.with("--layout.recompute=attention"));
    const BudgetChange* fitting = nullptr;
    const std::vector<BudgetChange> enough = run.changes(needed);
    ASSERT_NE(fitting = find(enough, "recompute=attention"), nullptr);
    EXPECT_TRUE(fitting->fits);
    const std::vector<BudgetChange> short_by_one = run.changes(needed - 1);
    ASSERT_NE(fitting = find(short_by_one, "recompute=attention"), nullptr);
    EXPECT_FALSE(fitting->fits);
}

TEST(BudgetChanges, ASettingIsChangedNoMoreThanItMust) {
    Planned run({});
    run.changes(needed_bytes(run.with("--batch.sequence_length=128")));
    EXPECT_EQ(run.asked.count("--batch.sequence_length=128"), 1u);
    EXPECT_EQ(run.asked.count("--batch.sequence_length=64"), 0u);
    // When nothing is enough, the strongest value is the advice.
    const std::vector<BudgetChange> changes = run.changes(kMiB);
    EXPECT_NE(find(changes, "--batch.sequence_length=64"), nullptr);
    EXPECT_NE(find(changes, "--batch.micro_batch=1"), nullptr);
    EXPECT_EQ(find(changes, "--batch.micro_batch=2"), nullptr);
    EXPECT_FALSE(changes.front().fits);
}

// Halves of 6 that divide a global batch of 36 are 3 and 1; of 18 in a batch of 54, 9 but not 4.
TEST(BudgetChanges, OnlyWhatTheRunCanHave) {
    Planned run({"--batch.micro_batch=18", "--batch.global_batch=54"});
    run.changes(kMiB);
    EXPECT_EQ(run.asked.count("--batch.micro_batch=9"), 1u);
    EXPECT_EQ(run.asked.count("--batch.micro_batch=4"), 1u) << "refused by the settings, not here";
    const std::vector<BudgetChange> changes =
        run.changes(needed_bytes(run.with("--batch.micro_batch=9")) - 1);
    EXPECT_NE(find(changes, "--batch.micro_batch=2"), nullptr) << "4 does not divide 54";
    // What the run has already saves nothing.
    Planned recomputing({"--layout.recompute=block:1", "--train.sample_tokens=0"});
    const std::vector<BudgetChange> rest = recomputing.changes(kMiB);
    EXPECT_EQ(find(rest, "layout.recompute"), nullptr);
    EXPECT_EQ(find(rest, "train.sample_tokens"), nullptr);
    EXPECT_EQ(find(rest, "layout.reduction"), nullptr);
}

TEST(BudgetChanges, LossChunkWhereLogitsAreLarge) {
    Planned run({"--train.loss_chunk=1024", "--model.vocab_size=50000"});
    const std::vector<BudgetChange> changes = run.changes(run.needed() * 9 / 10);
    ASSERT_NE(find(changes, "--train.loss_chunk=512"), nullptr);
    EXPECT_TRUE(find(changes, "--train.loss_chunk=512")->fits);
}

TEST(BudgetChanges, ExactReductionAndGeneration) {
    Planned exact({"--layout.reduction=exact"});
    const std::vector<BudgetChange> changes = exact.changes(exact.needed() / 2);
    EXPECT_NE(find(changes, "--layout.reduction=fast"), nullptr);
    Planned generate({"--generate.context=256"}, Purpose::generate);
    const std::vector<BudgetChange> advice = generate.changes(generate.needed() - 1);
    ASSERT_NE(find(advice, "--generate.context=128"), nullptr);
    EXPECT_NE(find(advice, "--generate.dtype=bf16"), nullptr);
    EXPECT_EQ(find(advice, "batch."), nullptr);
    EXPECT_EQ(find(advice, "layout."), nullptr);
}

TEST(BudgetChanges, HalfTheBytesOfValues) {
    Planned run({});
    const BudgetChange* change = nullptr;
    const std::vector<BudgetChange> changes = run.changes(run.needed() - 1);
    ASSERT_NE(change = find(changes, "--train.dtype=bf16"), nullptr);
    EXPECT_TRUE(change->fits);
    // Half of the stash, and more.
    EXPECT_GT(change->saved_bytes, run.plan.arena_bytes[static_cast<int>(Arena::stash)] / 2);
    Planned already({"--train.dtype=bf16"});
    EXPECT_EQ(find(already.changes(kMiB), "train.dtype"), nullptr);
}

// Errors other than a setting that the run cannot have are not swallowed.
TEST(BudgetChanges, OtherErrorsPass) {
    const Planned run({});
    EXPECT_THROW(budget_changes(run.config, run.plan, kMiB,
                                [](const std::vector<std::string>&) -> const Plan& {
                                    throw Error(ExitCode::io, "the file is gone");
                                }),
                 Error);
}

TEST(BudgetPair, TheCheapestThatFitsWhereNoChangeOfItsKindDoes) {
    Planned run({});
    const auto pair_for = [&](int64_t memory_bytes) {
        const std::vector<BudgetChange> changes = run.changes(memory_bytes);
        run.plans = 0;
        return budget_pair(changes, run.plan, memory_bytes, run.plan_with());
    };
    const char* block = "--layout.recompute=block:1";
    const int64_t alone = needed_bytes(run.with(block));
    EXPECT_FALSE(pair_for(alone)) << "one change of the cheapest kind is enough";
    EXPECT_EQ(run.plans, 0);
    // What recomputation with smaller micro-batches needs, to the byte; neither alone is enough.
    const int64_t needed =
        needed_bytes(run.with(std::vector<std::string>{block, "--batch.micro_batch=1"}));
    ASSERT_LT(needed, needed_bytes(run.with("--batch.micro_batch=1")));
    const std::optional<BudgetPair> pair = pair_for(needed);
    ASSERT_TRUE(pair);
    EXPECT_EQ(pair->settings[0], block);
    EXPECT_EQ(pair->settings[1], "--batch.micro_batch=1");
    EXPECT_EQ(pair->needed_bytes, needed);
    EXPECT_LE(run.plans, 6);
    const std::optional<BudgetPair> other = pair_for(needed - 1);
    EXPECT_LE(run.plans, 6);
    if (other) {
        EXPECT_LT(other->needed_bytes, needed);
    }
    EXPECT_FALSE(pair_for(kMiB));
    EXPECT_LE(run.plans, 6);
}

TEST(RecomputeChoices, AreThePlansOfEachKind) {
    for (const char* chosen : {"none", "attention", "block:2", "block:3"}) {
        Planned run({std::string("--layout.recompute=") + chosen});
        const std::vector<RecomputeChoice> choices =
            recompute_choices(run.config, run.plan, run.plan_with());
        std::vector<std::string> names;
        for (const RecomputeChoice& choice : choices) {
            names.push_back(choice.recompute);
            const Plan& plan = run.with("--layout.recompute=" + choice.recompute);
            EXPECT_EQ(choice.total_bytes, plan.total_bytes) << choice.recompute;
            EXPECT_EQ(choice.stash_bytes, plan.arena_bytes[static_cast<int>(Arena::stash)]);
            EXPECT_EQ(choice.chosen, choice.recompute == chosen);
        }
        std::vector<std::string> expected = {"none",    "selective", "attention",
                                             "block:1", "block:2",   "block:4"};
        if (std::string(chosen) == "block:3") expected.push_back(chosen);
        EXPECT_EQ(names, expected);
        EXPECT_GT(choices[0].stash_bytes, choices[1].stash_bytes);
        EXPECT_GT(choices[0].stash_bytes, choices[2].stash_bytes);
        EXPECT_GT(choices[1].stash_bytes, choices[3].stash_bytes);
    }
}

}  // namespace
}  // namespace plumb
