// Conversions and fp32 masters of 16-bit values, on every instruction set, through kernels that do
// nothing else with the numbers in question.
#include <gtest/gtest.h>

#include <bit>

#include "runtime/base/digest.h"
#include "tests/kernels/bound_case.h"

namespace plumb::testing {
namespace {

constexpr int64_t kPatterns = 65536;

// Values of one number everywhere, for cases whose operands are then set bit by bit.
Values constant_case(const KernelCase& c, double value) {
    Values values(static_cast<size_t>(c.operands()));
    for (int i = 0; i < c.operands(); ++i)
        if (c.shape[i].rank > 0)
            values[static_cast<size_t>(i)].assign(static_cast<size_t>(c.shape[i].elements()),
                                                  value);
    return values;
}

class ValueDtypes : public ::testing::TestWithParam<Isa> {};

// -0 + x is x for every x.
TEST_P(ValueDtypes, EveryPatternIsLoadedExactly) {
    for (const Dtype dtype : {Dtype::bf16, Dtype::f16}) {
        const KernelCase c = in_dtype(embed_case(true, 1, 1, kPatterns, 1, 0), dtype);
        Values values = constant_case(c, -0.0);
        values[EmbedBackwardOperands::tokens] = {0};
        BoundCase bound(c, values, GetParam(), 2);
        auto* dx = bound.at<uint16_t>(EmbedBackwardOperands::dx);
        for (int64_t i = 0; i < kPatterns; ++i) dx[i] = static_cast<uint16_t>(i);
        bound.run();
        for (int64_t i = 0; i < kPatterns; ++i) {
            const double expected = half_value(dtype, static_cast<uint16_t>(i));
            const double got = bound.get(EmbedBackwardOperands::dwte, i);
            if (std::isnan(expected)) {
                ASSERT_TRUE(std::isnan(got)) << dtype_name(dtype) << " " << i;
            } else {
                ASSERT_EQ(got, expected) << dtype_name(dtype) << " " << i;
                ASSERT_EQ(std::signbit(got), std::signbit(expected)) << i;
            }
        }
    }
}

// RMSNorm of ones with eps = 0 stores gamma.
void expect_stored(BoundCase* bound, Dtype dtype, const std::vector<uint32_t>& bits) {
    using O = NormOperands;
    std::memcpy(bound->at<uint32_t>(O::gamma), bits.data(), bits.size() * sizeof(uint32_t));
    bound->poison_outputs();
    bound->run();
    for (size_t i = 0; i < bits.size(); ++i) {
        const auto x = static_cast<double>(std::bit_cast<float>(bits[i]));
        const uint16_t got = bound->at<uint16_t>(O::y)[i];
        if (std::isnan(x)) {
            ASSERT_TRUE(std::isnan(half_value(dtype, got))) << dtype_name(dtype) << " " << bits[i];
        } else {
            ASSERT_EQ(got, half_bits(dtype, rounded_to(dtype, x)))
                << dtype_name(dtype) << " " << bits[i];
        }
    }
}

// All high halves, beside the low halves around which either dtype turns: below, at and above ties
// of bf16 (bit 15) and f16 (bit 12, and above it where the result is subnormal), payloads of NaN.
TEST_P(ValueDtypes, StoreRoundsOnce) {
    for (const Dtype dtype : {Dtype::bf16, Dtype::f16}) {
        KernelCase c = in_dtype(norm_case(1, kPatterns, NormKind::rms, false, false), dtype);
        c.attrs.norm.eps = 0;
        BoundCase bound(c, constant_case(c, 1.0), GetParam(), 1);
        std::vector<uint32_t> bits(static_cast<size_t>(kPatterns));
        for (const uint32_t low : {0U, 1U, 0x0FFFU, 0x1000U, 0x1001U, 0x3000U, 0x7FFFU, 0x8000U,
                                   0x8001U, 0xB000U, 0xF001U, 0xFFFFU}) {
            for (uint32_t i = 0; i < bits.size(); ++i) bits[i] = (i << 16) | low;
            expect_stored(&bound, dtype, bits);
        }
        for (uint64_t i = 0; i < bits.size(); ++i)
            bits[i] = static_cast<uint32_t>(random_uniform(1, i) * 0x1p32);
        expect_stored(&bound, dtype, bits);
        // What was loaded is stored as it was.
        for (uint32_t i = 0; i < bits.size(); ++i)
            bits[i] = std::bit_cast<uint32_t>(
                static_cast<float>(half_value(dtype, static_cast<uint16_t>(i))));
        expect_stored(&bound, dtype, bits);
        for (uint32_t i = 0; i < bits.size(); ++i) {
            if (std::isnan(half_value(dtype, static_cast<uint16_t>(i)))) continue;
            ASSERT_EQ(bound.at<uint16_t>(NormOperands::y)[i], i);
        }
    }
}

// Masters of a case of adamw or init, whatever their form; w_operand is followed by the master.
uint32_t master_bits(BoundCase& bound, int64_t i) {
    switch (bound.kernel_case().value_dtype) {
        case Dtype::bf16:
            return join_master({bound.at<uint16_t>(0)[i], bound.at<uint16_t>(1)[i]});
        case Dtype::f16:
            return bound.at<uint32_t>(1)[i];
        default:
            return bound.at<uint32_t>(0)[i];
    }
}
void set_master(BoundCase& bound, int64_t i, uint32_t bits) {
    const Dtype dtype = bound.kernel_case().value_dtype;
    if (dtype == Dtype::f32) bound.at<uint32_t>(0)[i] = bits;
    if (dtype == Dtype::f16) bound.at<uint32_t>(1)[i] = bits;
    if (dtype != Dtype::bf16) return;
    const MasterPair pair = split_master(bits);
    bound.at<uint16_t>(0)[i] = pair.high;
    bound.at<uint16_t>(1)[i] = pair.low;
}
// w is the master's rounding, by the dtype's own definition.
void expect_rounded(BoundCase& bound, int64_t count) {
    const Dtype dtype = bound.kernel_case().value_dtype;
    for (int64_t i = 0; dtype != Dtype::f32 && i < count; ++i) {
        const auto master = static_cast<double>(std::bit_cast<float>(master_bits(bound, i)));
        ASSERT_EQ(bound.at<uint16_t>(0)[i], half_bits(dtype, rounded_to(dtype, master))) << i;
    }
}
static_assert(AdamwOperands::w == 0 && AdamwOperands::master == 1);
static_assert(InitOperands::w == 0 && InitOperands::master == 1);

// Weights as training has them, and the largest: their rounding is infinite in bf16 and f16.
uint32_t some_weight(int64_t i) {
    if (i % 50 == 7) return i % 100 == 7 ? 0x7F7FFFFFU : 0xFF7FFFFFU;
    if (i % 50 == 9) return 0x00000123U;
    return std::bit_cast<uint32_t>(static_cast<float>(number(77, i) * 0.02));
}

TEST_P(ValueDtypes, AdamwGivesTheSameMastersInEveryDtype) {
    using O = AdamwOperands;
    for (const int64_t count : {1, 15, 513, 4099}) {
        KernelCase f32 = flat_case(OpKind::adamw, count);
        f32.attrs.state.decay = 1;
        Values values = fill_case(f32, 6);
        values[O::master].resize(static_cast<size_t>(count));
        BoundCase expected(f32, values, GetParam(), 1);
        expected.scalars.weight_decay = 0.01;
        for (int64_t i = 0; i < count; ++i) set_master(expected, i, some_weight(i));
        for (int step = 0; step < 3; ++step) {
            for (int64_t i = 0; i < count; ++i) expected.set(O::g, i, number(80, i));
            expected.run();
        }
        for (const Dtype dtype : {Dtype::bf16, Dtype::f16})
            for (const int32_t threads : {1, 2, 3}) {
                const KernelCase c = in_dtype(f32, dtype);
                BoundCase bound(c, values, GetParam(), threads);
                bound.scalars.weight_decay = 0.01;
                for (int64_t i = 0; i < count; ++i) set_master(bound, i, some_weight(i));
                for (int step = 0; step < 3; ++step) {
                    for (int64_t i = 0; i < count; ++i) bound.set(O::g, i, number(80, i));
                    bound.run();
                }
                EXPECT_TRUE(bound.red_zones_intact());
                for (int64_t i = 0; i < count; ++i)
                    ASSERT_EQ(master_bits(bound, i), expected.at<uint32_t>(O::w)[i])
                        << c.name << " " << i << " threads " << threads;
                expect_rounded(bound, count);
                for (const int same : {O::g, O::m, O::v})
                    EXPECT_EQ(std::memcmp(bound.operand(same).data(), expected.operand(same).data(),
                                          static_cast<size_t>(bound.operand(same).size_bytes())),
                              0)
                        << same;
            }
        if (count == 1) continue;
        // The largest are finite masters of infinite weights: nothing was clamped.
        EXPECT_TRUE(std::isfinite(expected.at<float>(O::w)[7]));
        EXPECT_GT(std::fabs(expected.at<float>(O::w)[7]), 0x1.ffp127F);
    }
}

// Without gradient, moments and decay a step changes nothing: the vectors' pair is split_master's.
TEST_P(ValueDtypes, AdamwSplitsAsTheScalarDefinition) {
    using O = AdamwOperands;
    const KernelCase c = in_dtype(flat_case(OpKind::adamw, kPatterns), Dtype::bf16);
    Values values = constant_case(c, 0.0);
    values[O::clip] = {1.0, 0.0, 1.0, 0.0};
    BoundCase bound(c, values, GetParam(), 1);
    for (const uint32_t low : {0U, 1U, 0x7FFFU, 0x8000U, 0x8001U, 0xFFFFU}) {
        const auto bits_of = [&](int64_t i) { return (static_cast<uint32_t>(i) << 16) | low; };
        for (int64_t i = 0; i < kPatterns; ++i) set_master(bound, i, bits_of(i));
        bound.run();
        for (int64_t i = 0; i < kPatterns; ++i) {
            if (std::isnan(std::bit_cast<float>(bits_of(i)))) continue;
            const MasterPair pair = split_master(bits_of(i));
            ASSERT_EQ(bound.at<uint16_t>(O::w)[i], pair.high) << bits_of(i);
            ASSERT_EQ(bound.at<uint16_t>(O::master)[i], pair.low) << bits_of(i);
        }
    }
}

// A NaN of any payload, all bits set above all (the poison of the checked build), stays visible.
TEST_P(ValueDtypes, ANanMomentMakesANanWeight) {
    using O = AdamwOperands;
    for (const Dtype dtype : {Dtype::bf16, Dtype::f16}) {
        const KernelCase c = in_dtype(flat_case(OpKind::adamw, 40), dtype);
        BoundCase bound(c, fill_case(c, 3), GetParam(), 1);
        bound.at<uint32_t>(O::m)[3] = 0xFFFFFFFFU;
        bound.at<uint32_t>(O::m)[39] = 0x7FFFFFFFU;
        bound.run();
        for (int64_t i = 0; i < 40; ++i)
            EXPECT_EQ(std::isnan(half_value(dtype, bound.at<uint16_t>(O::w)[i])), i == 3 || i == 39)
                << i;
    }
}

TEST_P(ValueDtypes, AdamwOfANonFiniteStepKeepsTheMasters) {
    using O = AdamwOperands;
    for (const Dtype dtype : {Dtype::bf16, Dtype::f16}) {
        const KernelCase c = in_dtype(flat_case(OpKind::adamw, 1003), dtype);
        Values values = fill_case(c, 1);
        values[O::clip] = {1.0, 0.0, 0.0, 0.0};
        BoundCase before(c, values, GetParam(), 1), after(c, values, GetParam(), 2);
        after.run();
        for (const int kept : {O::w, O::master, O::m, O::v})
            EXPECT_EQ(std::memcmp(before.operand(kept).data(), after.operand(kept).data(),
                                  static_cast<size_t>(before.operand(kept).size_bytes())),
                      0);
        for (int64_t i = 0; i < 1003; ++i) EXPECT_EQ(after.get(O::g, i), 0.0);
    }
}

TEST_P(ValueDtypes, InitGivesTheSameMastersInEveryDtype) {
    KernelCase f32 = flat_case(OpKind::init, 1009);
    for (const double std_dev : {0.02, 0.0}) {
        f32.attrs.state = {42, 1000, std_dev, 0.3, 0, 0, 0, 0};
        BoundCase expected(f32, constant_case(f32, 0.0), GetParam(), 1);
        expected.run();
        for (const Dtype dtype : {Dtype::bf16, Dtype::f16})
            for (const int32_t threads : {1, 2, 3}) {
                KernelCase c = in_dtype(f32, dtype);
                BoundCase bound(c, constant_case(c, 0.0), GetParam(), threads);
                bound.poison_outputs();
                bound.run();
                EXPECT_TRUE(bound.red_zones_intact());
                for (int64_t i = 0; i < 1009; ++i)
                    ASSERT_EQ(master_bits(bound, i), expected.at<uint32_t>(0)[i]) << c.name;
                expect_rounded(bound, 1009);
                // Weights alone, as inference has them.
                c.shape[InitOperands::master] = {};
                BoundCase alone(c, constant_case(c, 0.0), GetParam(), threads);
                alone.poison_outputs();
                alone.run();
                EXPECT_TRUE(alone.red_zones_intact());
                EXPECT_EQ(std::memcmp(alone.operand(0).data(), bound.operand(0).data(), 2 * 1009),
                          0);
            }
    }
}

TEST_P(ValueDtypes, DigestOfPairsIsTheDigestOfTheirMasters) {
    using O = DigestOperands;
    const int64_t count = 5003;
    KernelCase c = in_dtype(flat_case(OpKind::digest, count), Dtype::bf16);
    c.attrs.state.key = 99;
    c.attrs.state.first = 17;
    c.attrs.state.begin = 1;
    std::vector<uint32_t> masters(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) masters[static_cast<size_t>(i)] = some_weight(i);
    const Hash128 expected = digest_elements(99, 17, masters.data(), count);
    for (const int32_t threads : {1, 2, 3}) {
        BoundCase bound(c, constant_case(c, 0.0), GetParam(), threads);
        for (int64_t i = 0; i < count; ++i) {
            const MasterPair pair = split_master(masters[static_cast<size_t>(i)]);
            bound.at<uint16_t>(O::t)[i] = pair.high;
            bound.at<uint16_t>(O::low)[i] = pair.low;
        }
        bound.run();
        EXPECT_EQ(bound.at<uint64_t>(O::digest)[0], expected.low);
        EXPECT_EQ(bound.at<uint64_t>(O::digest)[1], expected.high);
    }
}

INSTANTIATE_TEST_SUITE_P(Kernels, ValueDtypes, ::testing::ValuesIn(tested_isas()),
                         [](const auto& tested) { return std::string(isa_name(tested.param)); });

}  // namespace
}  // namespace plumb::testing
