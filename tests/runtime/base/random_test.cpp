#include "runtime/base/random.h"

#include <gtest/gtest.h>

#include <vector>

namespace plumb {
namespace {

// Known answer of Random123's philox4x32-10 for all-zero and all-one input.
TEST(Philox, KnownAnswers) {
    const Philox4 zero = philox(0, 0, 0);
    EXPECT_EQ(zero.word[0], 0x6627e8d5u);
    EXPECT_EQ(zero.word[1], 0xe169c58du);
    EXPECT_EQ(zero.word[2], 0xbc57ac4cu);
    EXPECT_EQ(zero.word[3], 0x9b00dbd8u);
    const Philox4 ones = philox(~uint64_t{0}, ~uint64_t{0}, ~uint64_t{0});
    EXPECT_EQ(ones.word[0], 0x408f276du);
}

TEST(RandomNormal, MomentsOfStandardNormal) {
    double sum = 0, squares = 0;
    const int count = 200000;
    const uint64_t key = random_key(7, "test");
    for (int i = 0; i < count; ++i) {
        const double x = random_normal(key, static_cast<uint64_t>(i));
        sum += x;
        squares += x * x;
    }
    EXPECT_NEAR(sum / count, 0.0, 0.01);
    EXPECT_NEAR(squares / count, 1.0, 0.02);
}

TEST(RandomPermute, IsABijectionForEveryCount) {
    for (const int64_t count : {1, 2, 3, 5, 16, 17, 1000, 4097}) {
        std::vector<bool> seen(static_cast<size_t>(count), false);
        for (int64_t i = 0; i < count; ++i) {
            const int64_t j = random_permute(42, i, count);
            ASSERT_GE(j, 0);
            ASSERT_LT(j, count);
            EXPECT_FALSE(seen[static_cast<size_t>(j)]) << count << " " << i;
            seen[static_cast<size_t>(j)] = true;
        }
    }
}

TEST(RandomPermute, DependsOnTheKey) {
    int same = 0;
    for (int64_t i = 0; i < 1000; ++i)
        same += random_permute(1, i, 1000) == random_permute(2, i, 1000) ? 1 : 0;
    EXPECT_LT(same, 20);
}

}  // namespace
}  // namespace plumb
