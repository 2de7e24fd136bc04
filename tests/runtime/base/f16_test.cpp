#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "runtime/base/dtype.h"

namespace plumb {
namespace {

TEST(F16, EveryPatternIsExactAndComesBack) {
    for (uint32_t bits = 0; bits < 0x10000; ++bits) {
        const auto half = static_cast<uint16_t>(bits);
        const float value = f16_value(half);
        const uint32_t exponent = bits >> 10 & 31, mantissa = bits & 0x3FF;
        if (exponent == 31 && mantissa != 0) {
            EXPECT_TRUE(std::isnan(value) && (f16_bits(value) & 0x7E00) == 0x7E00) << bits;
            continue;
        }
        EXPECT_EQ(f16_bits(value), half);
        const double magnitude = exponent == 31 ? std::numeric_limits<double>::infinity()
                                 : exponent == 0
                                     ? std::ldexp(mantissa, -24)
                                     : std::ldexp(1024 + mantissa, static_cast<int>(exponent) - 25);
        EXPECT_EQ(std::fabs(value), magnitude);
        EXPECT_EQ(std::signbit(value), bits >> 15 != 0);
    }
}

// Between neighbours: to the nearer one, at the middle to the even one.
TEST(F16, RoundsToNearestEven) {
    for (uint32_t bits = 0; bits < 0x7BFF; ++bits) {
        const float low = f16_value(static_cast<uint16_t>(bits));
        const float high = f16_value(static_cast<uint16_t>(bits + 1));
        const float middle = (low + high) / 2;  // exact in fp32
        EXPECT_EQ(f16_bits(middle), bits % 2 == 0 ? bits : bits + 1);
        EXPECT_EQ(f16_bits(-middle), (bits % 2 == 0 ? bits : bits + 1) | 0x8000);
        EXPECT_EQ(f16_bits(std::nextafter(middle, 0.0F)), bits);
        EXPECT_EQ(f16_bits(std::nextafter(middle, 1e9F)), bits + 1);
    }
    EXPECT_EQ(f16_bits(65519.996F), 0x7BFF);
    EXPECT_EQ(f16_bits(65520.0F), 0x7C00);
    EXPECT_EQ(f16_bits(1e30F), 0x7C00);
    EXPECT_EQ(f16_bits(-1e-30F), 0x8000);
}

}  // namespace
}  // namespace plumb
