#include "runtime/plan/pack.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <sstream>

#include "runtime/base/error.h"
#include "runtime/base/random.h"
#include "runtime/plan/exact.h"
#include "runtime/plan/prove.h"

namespace plumb {
namespace {

// Numbers below `limit` from the counter-based generator: the same instances on every machine.
class Dice {
  public:
    explicit Dice(uint64_t key) : key_(key) {}
    int64_t below(int64_t limit) {
        const double unit = random_uniform(key_, counter_++);
        return std::min(static_cast<int64_t>(unit * static_cast<double>(limit)), limit - 1);
    }

  private:
    uint64_t key_;
    uint64_t counter_ = 0;
};

std::vector<PackItem> random_items(Dice& dice, int64_t count, int64_t times, int64_t size_max) {
    std::vector<PackItem> items;
    for (int64_t i = 0; i < count; ++i) {
        const int64_t a = dice.below(times), b = dice.below(times);
        items.push_back({kAlignBytes * (1 + dice.below(size_max)),
                         static_cast<int32_t>(std::min(a, b)),
                         static_cast<int32_t>(std::max(a, b))});
    }
    return items;
}

// The sweep of the prover, which shares no code with the packer.
std::string flaw_of(const std::vector<PackItem>& items, const Packing& packing) {
    Program program;
    std::vector<Block> blocks;
    for (size_t i = 0; i < items.size(); ++i) {
        program.tensors.emplace_back().name = "item" + std::to_string(i);
        const int64_t begin = packing.offset_bytes[i];
        if (begin < 0 || begin + items[i].size_bytes > packing.height_bytes) return "outside";
        blocks.push_back({begin, begin + items[i].size_bytes, items[i].first, items[i].last,
                          static_cast<TensorId>(i)});
    }
    return find_overlap(program, blocks);
}

// Optimum by trying every order: placed in order of offset at the lowest free place, some order
// gives an optimal packing.
int64_t brute_force_height(const std::vector<PackItem>& items) {
    std::vector<size_t> order(items.size());
    std::iota(order.begin(), order.end(), 0);
    int64_t best = INT64_MAX;
    do {
        std::vector<int64_t> offset(items.size(), -1);
        int64_t height = 0;
        for (const size_t i : order) {
            int64_t at = 0;
            for (bool moved = true; moved;) {
                moved = false;
                for (size_t j = 0; j < items.size(); ++j) {
                    if (offset[j] < 0 || items[j].first > items[i].last ||
                        items[i].first > items[j].last)
                        continue;
                    if (at < offset[j] + items[j].size_bytes &&
                        offset[j] < at + items[i].size_bytes) {
                        at = offset[j] + items[j].size_bytes;
                        moved = true;
                    }
                }
            }
            offset[i] = at;
            height = std::max(height, at + items[i].size_bytes);
        }
        best = std::min(best, height);
    } while (std::next_permutation(order.begin(), order.end()));
    return best;
}

TEST(Pack, NothingTakesNothing) {
    const Packing packing = pack({});
    EXPECT_EQ(packing.height_bytes, 0);
    EXPECT_EQ(packing.lower_bound_bytes, 0);
    EXPECT_TRUE(packing.optimal);
}

TEST(Pack, ItemsThatNeverMeetShareOffsetZero) {
    const Packing packing = pack({{640, 0, 3}, {128, 4, 4}, {1280, 5, 9}});
    EXPECT_EQ(packing.offset_bytes, (std::vector<int64_t>{0, 0, 0}));
    EXPECT_EQ(packing.height_bytes, 1280);
}

TEST(Pack, LivesAreClosedIntervals) {
    EXPECT_EQ(pack({{64, 0, 3}, {64, 3, 5}}).height_bytes, 128);
    EXPECT_EQ(pack({{64, 0, 2}, {64, 3, 5}}).height_bytes, 64);
}

TEST(Pack, NestedLivesReachTheBound) {
    // Forward and backward of a chain: saved tensors live like brackets.
    std::vector<PackItem> items;
    for (int32_t i = 0; i < 300; ++i) items.push_back({64 * (1 + i % 7), i, 1000 - i});
    const Packing packing = pack(items);
    EXPECT_EQ(packing.height_bytes, packing.lower_bound_bytes);
    EXPECT_EQ(flaw_of(items, packing), "");
}

TEST(Pack, OptimalOnSmallInstances) {
    Dice dice(11);
    for (int round = 0; round < 150; ++round) {
        const auto items = random_items(dice, 3 + round % 5, 6, 6);
        const Packing packing = pack(items);
        EXPECT_EQ(flaw_of(items, packing), "") << round;
        EXPECT_TRUE(packing.optimal) << round;
        EXPECT_EQ(packing.height_bytes, brute_force_height(items)) << round;
    }
}

// Live bytes never exceed 8, yet no packing of height 8 exists: the search must know when to stop.
TEST(Pack, OptimumAboveTheLowerBound) {
    const std::vector<PackItem> items = {{2, 4, 5}, {2, 2, 5}, {3, 4, 4}, {4, 1, 3}, {1, 5, 6},
                                         {3, 6, 8}, {1, 3, 6}, {2, 5, 7}, {3, 7, 7}};
    const Packing packing = pack(items);
    EXPECT_EQ(packing.lower_bound_bytes, 8);
    EXPECT_EQ(packing.height_bytes, 9);
    EXPECT_TRUE(packing.optimal);
    EXPECT_EQ(brute_force_height(items), 9);
}

TEST(Pack, SearchImprovesABadStart) {
    Dice dice(12);
    for (int round = 0; round < 100; ++round) {
        const auto items = random_items(dice, 6, 6, 6);
        Packing stacked;  // one above the other
        for (const PackItem& item : items) {
            stacked.offset_bytes.push_back(stacked.height_bytes);
            stacked.height_bytes += item.size_bytes;
        }
        search_packing(items, max_live_bytes(items), 1'000'000, stacked);
        EXPECT_EQ(flaw_of(items, stacked), "") << round;
        EXPECT_EQ(stacked.height_bytes, brute_force_height(items)) << round;
        EXPECT_TRUE(stacked.optimal) << round;
    }
}

TEST(Pack, RandomInstancesAreSoundAndAligned) {
    Dice dice(13);
    for (int round = 0; round < 40; ++round) {
        const auto items = random_items(dice, 20 + round * 5, 60, 100);
        const Packing packing = pack(items, {300});
        EXPECT_EQ(flaw_of(items, packing), "") << round;
        EXPECT_GE(packing.height_bytes, packing.lower_bound_bytes);
        EXPECT_EQ(packing.lower_bound_bytes, max_live_bytes(items));
        for (const int64_t offset : packing.offset_bytes) EXPECT_EQ(offset % kAlignBytes, 0);
    }
}

TEST(Pack, DependsOnItsArgumentsOnly) {
    Dice dice(14);
    const auto items = random_items(dice, 120, 50, 40);
    const Packing a = pack(items, {500});
    const Packing b = pack(items, {500});
    EXPECT_EQ(a.offset_bytes, b.offset_bytes);
    // More nodes never make it worse.
    int64_t height = pack(items, {0}).height_bytes;
    for (const int64_t budget : {30, 300, 3'000, 30'000}) {
        const int64_t now = pack(items, {budget}).height_bytes;
        EXPECT_LE(now, height) << budget;
        height = now;
    }
}

TEST(Pack, RejectsSizesWhoseSumOverflows) {
    const int64_t half = int64_t{1} << 62;
    EXPECT_THROW(pack({{half, 0, 0}, {half, 1, 1}}), Error);
}

TEST(PackDeathTest, ZeroSizeAndBackwardLife) {
    EXPECT_DEATH(pack({{0, 0, 0}}), "size_bytes > 0");
    EXPECT_DEATH(pack({{64, 2, 1}}), "first <= item.last");
}

#ifdef PLUMB_HAS_TEST_DATA
// Public instances (google/minimalloc): columns id, lower, upper (half-open), size; a packing
// within 1 MiB exists for each. Ours must be sound; the height is printed beside the capacity.
TEST(Pack, PublicInstances) {
    const std::filesystem::path folder = std::filesystem::path(PLUMB_TEST_DATA) / "packing";
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::directory_iterator(folder))
        if (entry.path().extension() == ".csv") files.push_back(entry.path());
    std::sort(files.begin(), files.end());
    for (const auto& file : files) {
        std::ifstream in(file);
        std::vector<PackItem> items;
        std::string line;
        std::getline(in, line);
        while (std::getline(in, line)) {
            std::replace(line.begin(), line.end(), ',', ' ');
            std::istringstream row(line);
            int64_t id, lower, upper, size;
            ASSERT_TRUE(row >> id >> lower >> upper >> size) << file << ": " << line;
            items.push_back({size, static_cast<int32_t>(lower), static_cast<int32_t>(upper - 1)});
        }
        ASSERT_FALSE(items.empty()) << file;
        const Packing packing = pack(items);
        EXPECT_EQ(flaw_of(items, packing), "") << file;
        EXPECT_GE(packing.height_bytes, packing.lower_bound_bytes);
        constexpr double kCapacity = 1048576;
        std::printf("%-20s %4zu items, height %8lld = %.3f of capacity, bound %.3f\n",
                    file.filename().c_str(), items.size(),
                    static_cast<long long>(packing.height_bytes),
                    static_cast<double>(packing.height_bytes) / kCapacity,
                    static_cast<double>(packing.lower_bound_bytes) / kCapacity);
    }
}
#endif

}  // namespace
}  // namespace plumb
