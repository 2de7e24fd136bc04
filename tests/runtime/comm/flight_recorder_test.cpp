#include "runtime/comm/flight_recorder.h"

#include <csignal>
#include <filesystem>
#include <fstream>

#include "tests/runtime/comm/local_ranks.h"
#include "tests/runtime/comm/rank_bodies.h"

namespace plumb {
namespace {

class Rings : public testing::Test {
  protected:
    void SetUp() override {
        folder_ = testing::TempDir() + "rings_" +
                  testing::UnitTest::GetInstance()->current_test_info()->name();
        std::filesystem::remove_all(folder_);
        std::filesystem::create_directories(folder_);
    }
    void TearDown() override { std::filesystem::remove_all(folder_); }

    // Of three ranks, of which the last one does something between two exchanges.
    RanksOutcome exchange(const std::function<void()>& last_rank) {
        return run_ranks(
            3,
            [&](World& world) {
                FlightRecorder recorder(folder_, world.rank(), world.size());
                world.set_recorder(&recorder);
                exchange_twice(world, [&] {
                    if (world.rank() == 2) last_rank();
                });
            },
            5.0);
    }

    std::string folder_;
};

TEST_F(Rings, HoldWhatEveryRankDid) {
    ASSERT_EQ(exchange([] {}).code, 0);
    const std::vector<FlightRing> rings = read_rings(folder_);
    ASSERT_EQ(rings.size(), 3u);
    for (int32_t r = 0; r < 3; ++r) {
        const FlightRing& ring = rings[static_cast<size_t>(r)];
        EXPECT_EQ(ring.rank, r);
        EXPECT_EQ(ring.rank_count, 3);
        ASSERT_EQ(ring.events.size(), 6u);
        EXPECT_EQ(ring.events[0].kind, FlightKind::arrived);
        EXPECT_STREQ(ring.events[0].what, "first");
        EXPECT_EQ(ring.events[5].kind, FlightKind::closed);
        EXPECT_EQ(ring.events[5].step, 17);
        EXPECT_EQ(ring.events[5].sequence, 2u);
        EXPECT_EQ(ring.events[5].group, 0);
        EXPECT_EQ(ring.events[5].axis, GroupAxis::data);
    }
    const std::vector<std::string> text = explain_rings(rings);
    EXPECT_EQ(text.front(), "no rank is missing at an exchange that others arrived at");
    ASSERT_EQ(text.size(), 4u);
    EXPECT_NE(text[1].find("has ended): left reduce_scatter block.3 of step 17 (axis data)"),
              std::string::npos)
        << text[1];
}

TEST_F(Rings, OfARankThatWasKilledSayWhereItIsMissing) {
    EXPECT_EQ(exchange([] { ::raise(SIGKILL); }).code, 5);
    const std::vector<std::string> text = explain_rings(read_rings(folder_));
    EXPECT_EQ(text.front(),
              "rank 2 is missing at reduce_scatter block.3 of step 17 (axis data): others arrived "
              "there");
    EXPECT_NE(text.back().find("has ended): left first of step 16"), std::string::npos)
        << text.back();
}

TEST_F(Rings, KeepTheNewestEvents) {
    {
        FlightRecorder recorder(folder_, 7, 8);
        for (int64_t step = 0; step < 2 * FlightRecorder::kEvents + 5; ++step)
            recorder.record(FlightKind::sent, {step, "a name of more than thirty-eight characters"},
                            GroupAxis::pipeline, 3, static_cast<uint32_t>(step), 1);
    }
    const FlightRing ring = read_ring(folder_ + "/rank-00007.ring");
    ASSERT_EQ(ring.events.size(), static_cast<size_t>(FlightRecorder::kEvents));
    EXPECT_EQ(ring.events.front().step, FlightRecorder::kEvents + 5);
    EXPECT_EQ(ring.events.back().step, 2 * FlightRecorder::kEvents + 4);
    EXPECT_STREQ(ring.events.back().what, "a name of more than thirty-eight chara");
    const std::vector<std::string> text = explain_rings({ring});
    EXPECT_EQ(text.front(), "rank 0 left no ring");
}

TEST_F(Rings, ThatAreNoneAreRefused) {
    EXPECT_THROW(read_rings(folder_), Error);
    EXPECT_THROW(read_ring(folder_ + "/rank-00000.ring"), Error);
    std::ofstream(folder_ + "/rank-00000.ring") << "PLMBRING and too short";
    EXPECT_THROW(read_rings(folder_), Error);
    EXPECT_THROW(FlightRecorder(folder_ + "/nowhere", 0, 1), Error);
}

}  // namespace
}  // namespace plumb
