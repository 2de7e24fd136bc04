#include <chrono>
#include <csignal>
#include <thread>

#include "tests/runtime/comm/local_ranks.h"
#include "tests/runtime/comm/rank_bodies.h"

namespace plumb {
namespace {

class Ranks : public testing::TestWithParam<RankBody> {};

TEST_P(Ranks, ExchangeInSharedMemory) {
    const RanksOutcome outcome = run_ranks(GetParam().rank_count, GetParam().run);
    EXPECT_EQ(outcome.code, 0) << outcome.errors;
}

INSTANTIATE_TEST_SUITE_P(Comm, Ranks, testing::ValuesIn(rank_bodies()),
                         [](const auto& body) { return body.param.name; });

TEST(SelfWorld, ShowsItself) {
    const auto world = make_self_world();
    EXPECT_EQ(world->all_gather("alone"), std::vector<std::string>{"alone"});
    const Window window = world->make_window(64);
    const auto group = world->make_group(GroupAxis::data, {0});
    const char* part = nullptr;
    group->open({1, "test"}, {window.data, 0, 64, nullptr}, &part);
    EXPECT_EQ(part, window.data);
    group->close({1, "test"});
}

// What ends all of them.

TEST(Failure, OfARankThatThrowsIsSaidOnce) {
    const RanksOutcome outcome = run_ranks(3, [](World& world) {
        exchange_twice(world, [&] {
            if (world.rank() == 1) world.fail(ExitCode::does_not_fit, "too big by 3 bytes");
        });
    });
    EXPECT_EQ(outcome.code, 3);
    EXPECT_EQ(outcome.errors, "error: rank 1: too big by 3 bytes\n");
}

TEST(Failure, OfARankThatIsKilledNamesItAndThePlace) {
    const RanksOutcome outcome = run_ranks(3, [](World& world) {
        exchange_twice(world, [&] {
            if (world.rank() == 2) ::raise(SIGKILL);
        });
    });
    EXPECT_EQ(outcome.code, 5);
    EXPECT_NE(outcome.errors.find("rank 2 was ended by signal 9"), std::string::npos)
        << outcome.errors;
    EXPECT_NE(outcome.errors.find("has ended: it is missing at reduce_scatter block.3 of step 17"),
              std::string::npos)
        << outcome.errors;
}

TEST(Failure, OfARankThatStandsStillEndsTheWaitInTime) {
    const RanksOutcome outcome = run_ranks(
        3,
        [](World& world) {
            exchange_twice(world, [&] {
                if (world.rank() == 0) ::raise(SIGSTOP);
            });
        },
        1.5);
    EXPECT_EQ(outcome.code, 5);
    EXPECT_NE(
        outcome.errors.find("did not arrive at reduce_scatter block.3 of step 17 within 1.5 s"),
        std::string::npos)
        << outcome.errors;
    EXPECT_NE(outcome.errors.find("rank 0 (process "), std::string::npos) << outcome.errors;
}

// Not one that takes its time and says so.
TEST(Failure, IsNoneOfARankThatWorks) {
    for (const bool says_so : {true, false}) {
        const RanksOutcome outcome = run_ranks(
            3,
            [&](World& world) {
                exchange_twice(world, [&] {
                    for (int i = 0; i < 20 && world.rank() == 1; ++i) {
                        if (says_so) world.beat();
                        std::this_thread::sleep_for(std::chrono::milliseconds(150));
                    }
                });
            },
            1.5);
        EXPECT_EQ(outcome.code, says_so ? 0 : 5) << outcome.errors;
    }
}

TEST(Failure, OfARankThatReturnsEarly) {
    const RanksOutcome outcome = run_ranks(2, [](World& world) {
        if (world.rank() == 0) throw Error(ExitCode::bad_input, "a bad setting");
        exchange_twice(world, [] {});
    });
    EXPECT_EQ(outcome.code, 2);
    EXPECT_NE(outcome.errors.find("a bad setting"), std::string::npos) << outcome.errors;
}

TEST(Failure, WantsARankCountThatMakesSense) {
    EXPECT_THROW(run_local_ranks(0, {}, [](World&) { return 0; }), Error);
}

}  // namespace
}  // namespace plumb
