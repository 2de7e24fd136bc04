#include "runtime/base/dtype.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "runtime/base/random.h"

namespace plumb {
namespace {

constexpr MasterPair pair_of(int high, int low) {
    return {static_cast<uint16_t>(high), static_cast<uint16_t>(low)};
}
static_assert(split_master(0x3F800000U) == pair_of(0x3F80, 0));
static_assert(split_master(0x3F807FFFU) == pair_of(0x3F80, 0x7FFF));
static_assert(split_master(0x3F808000U) == pair_of(0x3F81, 0x8000));  // a tie: away from zero
static_assert(split_master(0xBF808000U) == pair_of(0xBF81, 0x8000));
static_assert(split_master(0x00000001U) == pair_of(0, 1));
static_assert(split_master(0x7F7F7FFFU) == pair_of(0x7F7F, 0x7FFF));
static_assert(split_master(0x7F7F8000U) == pair_of(0x7F80, 0x8000));  // infinite weight
static_assert(split_master(0x7F7FFFFFU) == pair_of(0x7F80, 0xFFFF));
static_assert(split_master(0xFF800000U) == pair_of(0xFF80, 0));
static_assert(join_master(pair_of(0x7F80, 0xFFFF)) == 0x7F7FFFFFU);
static_assert(join_master(pair_of(0x0000, 0x0001)) == 1U);
// NaNs that would round to zero.
static_assert(split_master(0xFFFFFFFFU) == pair_of(0xFFFF, 0x7FFF));
static_assert(split_master(0x7FFF8000U) == pair_of(0x7FFF, 0x7FFF));
static_assert(split_master(0x7FFF7FFFU) == pair_of(0x7FFF, 0x7FFF));

void expect_exact(uint32_t bits) {
    const MasterPair pair = split_master(bits);
    const float x = std::bit_cast<float>(bits);
    const float weight = std::bit_cast<float>(static_cast<uint32_t>(pair.high) << 16);
    if ((bits & 0x7FFFFFFFU) < 0x7FFF8000U) {
        ASSERT_EQ(join_master(pair), bits);
    } else {
        ASSERT_TRUE(std::isnan(weight)) << bits;
        ASSERT_TRUE(std::isnan(std::bit_cast<float>(join_master(pair)))) << bits;
    }
    if (!std::isfinite(x) || !std::isfinite(weight)) return;
    // The nearest bf16: 8 significant bits, or the last bit of the subnormals.
    const double ulp = std::ldexp(1.0, std::max(x == 0 ? -126 : std::ilogb(x), -126) - 7);
    ASSERT_LE(std::fabs(static_cast<double>(weight) - static_cast<double>(x)), ulp / 2) << bits;
}

TEST(Dtype, MastersAreTheirPairs) {
    for (uint64_t i = 0; i < 1000000; ++i)
        expect_exact(static_cast<uint32_t>(random_uniform(3, i) * 0x1p32));
    // All high halves beside the low halves where rounding turns.
    for (uint32_t high = 0; high < 0x10000U; ++high)
        for (const uint32_t low : {0U, 1U, 0x7FFFU, 0x8000U, 0x8001U, 0xFFFFU})
            expect_exact((high << 16) | low);
    // And every pair is what its master splits into, if the weight is the master's rounding.
    for (uint32_t i = 0; i < 0x10000U; ++i) {
        const MasterPair pair = pair_of(0xC123, static_cast<int>(i));
        const MasterPair again = split_master(join_master(pair));
        ASSERT_EQ(again == pair, true) << i;
    }
}

}  // namespace
}  // namespace plumb
