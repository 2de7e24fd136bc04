#include "runtime/engine/data_loader.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <vector>

#include "runtime/base/error.h"

namespace plumb {
namespace {

// A file whose token i is i, so that a window tells where it came from.
class Loader : public ::testing::Test {
  protected:
    void SetUp() override {
        folder_ = ::testing::TempDir() + "plumb_loader_XXXXXX";
        ASSERT_NE(::mkdtemp(folder_.data()), nullptr);
    }
    void TearDown() override { std::filesystem::remove_all(folder_); }

    std::string counting_file(int count) const {
        std::ofstream file(folder_ + "/t.bin", std::ios::binary);
        for (int i = 0; i < count; ++i) {
            const auto id = static_cast<uint16_t>(i);
            file.write(reinterpret_cast<const char*>(&id), sizeof id);
        }
        return folder_ + "/t.bin";
    }

    std::string folder_;
};

struct Sequence {
    explicit Sequence(int64_t length)
        : tokens(static_cast<size_t>(length), -1),
          targets(tokens),
          weights(tokens.size(), -1),
          positions(tokens),
          segment_start(tokens) {}
    SequencePlace place() {
        return {tokens.data(), targets.data(), weights.data(), positions.data(),
                segment_start.data()};
    }
    std::vector<int32_t> tokens, targets;
    std::vector<float> weights;
    std::vector<int32_t> positions, segment_start;
};

TEST_F(Loader, FillsOneSequence) {
    const TokenFile tokens(counting_file(23), 2);
    const DataLoader loader(tokens, 5, DataOrder::sequential, 1);
    EXPECT_EQ(loader.sequence_count(), 4);
    for (int64_t k = 0; k < 4; ++k) {
        Sequence s(5);
        EXPECT_EQ(loader.fill(k, s.place()), 5);
        for (size_t t = 0; t < 5; ++t) {
            EXPECT_EQ(s.tokens[t], 5 * k + static_cast<int64_t>(t));
            EXPECT_EQ(s.targets[t], s.tokens[t] + 1);
            EXPECT_EQ(s.weights[t], 1.0f);
            EXPECT_EQ(s.positions[t], static_cast<int32_t>(t));
            EXPECT_EQ(s.segment_start[t], 0);
        }
    }
}

TEST_F(Loader, SequentialOrderEndsInPaddingOfWeightZero) {
    const TokenFile tokens(counting_file(23), 2);
    const DataLoader loader(tokens, 5, DataOrder::sequential, 1);
    Sequence s(5);
    EXPECT_EQ(loader.sequence_at(4), -1);
    EXPECT_EQ(loader.fill(4, s.place()), 0);
    EXPECT_EQ(s.weights, std::vector<float>(5, 0.0f));
    EXPECT_EQ(s.tokens, std::vector<int32_t>(5, 0));
    EXPECT_EQ(s.targets, std::vector<int32_t>(5, 0));
    EXPECT_EQ(s.positions, (std::vector<int32_t>{0, 1, 2, 3, 4}));
}

TEST_F(Loader, EveryEpochShowsEverySequenceOnceInItsOwnOrder) {
    const TokenFile tokens(counting_file(101), 2);
    const DataLoader loader(tokens, 1, DataOrder::shuffled, 7);
    ASSERT_EQ(loader.sequence_count(), 100);
    std::set<std::vector<int64_t>> orders;
    for (int64_t epoch = 0; epoch < 5; ++epoch) {
        std::vector<int64_t> order;
        for (int64_t i = 0; i < 100; ++i) order.push_back(loader.sequence_at(100 * epoch + i));
        EXPECT_EQ(std::set<int64_t>(order.begin(), order.end()).size(), 100u);
        EXPECT_EQ(*std::min_element(order.begin(), order.end()), 0);
        EXPECT_EQ(*std::max_element(order.begin(), order.end()), 99);
        orders.insert(order);
    }
    EXPECT_EQ(orders.size(), 5u);
}

TEST_F(Loader, OrderIsAFunctionOfSeedAndIndexOnly) {
    const TokenFile tokens(counting_file(1000), 2);
    const DataLoader loader(tokens, 3, DataOrder::shuffled, 7);
    const DataLoader again(tokens, 3, DataOrder::shuffled, 7);
    const DataLoader other(tokens, 3, DataOrder::shuffled, 8);
    int same = 0;
    for (int64_t i = 999; i >= 0; --i) {  // backwards: nothing depends on what was asked before
        EXPECT_EQ(loader.sequence_at(i), again.sequence_at(i));
        same += loader.sequence_at(i) == other.sequence_at(i) ? 1 : 0;
        Sequence s(3);
        EXPECT_EQ(loader.fill(i, s.place()), 3);
        EXPECT_EQ(s.tokens[0], 3 * loader.sequence_at(i));
        EXPECT_EQ(s.targets[2], s.tokens[0] + 3);
    }
    EXPECT_LT(same, 20);
}

TEST_F(Loader, AFileOfOneSequence) {
    const TokenFile tokens(counting_file(9), 2);
    const DataLoader loader(tokens, 8, DataOrder::shuffled, 7);
    EXPECT_EQ(loader.sequence_count(), 1);
    Sequence s(8);
    EXPECT_EQ(loader.fill(12345, s.place()), 8);
    EXPECT_EQ(s.tokens[0], 0);
    EXPECT_EQ(s.targets[7], 8);
}

TEST_F(Loader, RejectsAFileShorterThanOneSequence) {
    const TokenFile tokens(counting_file(8), 2);
    try {
        const DataLoader loader(tokens, 8, DataOrder::shuffled, 7);
        FAIL();
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ExitCode::bad_input);
        const std::string text = error.what();
        EXPECT_NE(text.find("has 8 tokens"), std::string::npos) << text;
        EXPECT_NE(text.find("at least 9"), std::string::npos) << text;
    }
}

}  // namespace
}  // namespace plumb
