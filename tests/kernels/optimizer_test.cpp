#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "runtime/base/digest.h"
#include "tests/kernels/bound_case.h"

namespace plumb::testing {
namespace {

class Optimizer : public ::testing::TestWithParam<Isa> {};

TEST_P(Optimizer, AdamwOfANonFiniteStepOnlyZeroesTheGradient) {
    using O = AdamwOperands;
    const KernelCase c = flat_case(OpKind::adamw, 1003);
    Values values = fill_case(c, 1);
    values[O::clip] = {1.0, 0.0, 0.0, 0.0};
    values[O::g][5] = std::numeric_limits<double>::quiet_NaN();
    for (const int32_t threads : {1, 2}) {
        BoundCase bound(c, values, GetParam(), threads);
        bound.run();
        for (int64_t i = 0; i < 1003; ++i) {
            for (const int operand : {O::w, O::m, O::v})
                EXPECT_EQ(bound.get(operand, i),
                          values[static_cast<size_t>(operand)][static_cast<size_t>(i)]);
            EXPECT_EQ(bound.get(O::g, i), 0.0);
        }
    }
}

TEST_P(Optimizer, AdamwWithoutDecayAttributeKeepsAWeightWithoutGradient) {
    KernelCase c = flat_case(OpKind::adamw, 40);
    Values values = fill_case(c, 2);
    for (const int zeroed : {AdamwOperands::g, AdamwOperands::m, AdamwOperands::v})
        for (double& value : values[static_cast<size_t>(zeroed)]) value = 0.0;
    BoundCase plain(c, values, GetParam(), 1);
    plain.run();
    c.attrs.state.decay = 1;
    BoundCase decayed(c, values, GetParam(), 1);
    decayed.run();
    for (int64_t i = 0; i < 40; ++i) {
        const double w = values[0][static_cast<size_t>(i)];
        EXPECT_EQ(plain.get(0, i), w);
        EXPECT_NEAR(decayed.get(0, i), w * (1 - 1e-2 * 0.1), 2e-7 * std::fabs(w));
    }
}

TEST_P(Optimizer, FoldCopiesTheFirstMicroBatchWhenAsked) {
    KernelCase c = flat_case(OpKind::fold, 131);
    c.attrs.state.copy_first = 1;
    Values values = fill_case(c, 3);
    values[0][7] = std::numeric_limits<double>::quiet_NaN();  // never read when copying
    BoundCase first(c, values, GetParam(), 2);
    first.run();
    c.micro_batch = 1;
    BoundCase second(c, values, GetParam(), 2);
    second.run();
    for (int64_t i = 0; i < 131; ++i) {
        const auto j = static_cast<size_t>(i);
        EXPECT_EQ(first.get(0, i), values[1][j]);
        EXPECT_EQ(first.get(1, i), 0.0);
        if (i == 7) continue;
        EXPECT_EQ(second.at<float>(0)[i],
                  static_cast<float>(values[0][j]) + static_cast<float>(values[1][j]));
    }
}

// The definition, one element at a time in integers.
unsigned __int128 fixed_square(float g) {
    int exponent = 0;
    const auto mantissa = static_cast<int64_t>(std::ldexp(std::frexp(std::fabs(g), &exponent), 24));
    const auto square = static_cast<unsigned __int128>(mantissa) * static_cast<uint64_t>(mantissa);
    const int shift = 2 * (exponent - 24) + 80;
    if (shift <= -128) return 0;
    return shift >= 0 ? square << shift : square >> -shift;
}

struct Sum {
    uint64_t low, high, flag;
    bool operator==(const Sum&) const = default;
};

Sum grad_norm(const std::vector<float>& g, Isa isa, int32_t threads, bool begin = true,
              Sum start = {~uint64_t{0}, 5, 0}) {
    KernelCase c = flat_case(OpKind::grad_norm, static_cast<int64_t>(g.size()));
    c.attrs.state.begin = begin ? 1 : 0;
    BoundCase bound(c, fill_case(c, 4), isa, threads);
    std::memcpy(bound.at<float>(1), g.data(), g.size() * sizeof(float));
    std::memcpy(bound.at<uint64_t>(0), &start, sizeof start);
    bound.run();
    EXPECT_TRUE(bound.red_zones_intact());
    Sum sum{};
    std::memcpy(&sum, bound.at<uint64_t>(0), sizeof sum);
    return sum;
}

// Magnitudes of every kind: normal, tiny (square below 2^-80), subnormal, zero, up to 2^23.
std::vector<float> gradients(int64_t count) {
    std::vector<float> g(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) {
        const auto exponent = static_cast<int>(integer(8, i, i > count / 2 ? 70 : 30)) - 50;
        g[static_cast<size_t>(i)] =
            i % 97 == 0 ? 1e-41F : std::ldexp(static_cast<float>(number(9, i)), exponent);
    }
    return g;
}

TEST_P(Optimizer, GradNormIsTheIntegerSumInAnyOrder) {
    for (const int64_t count : {1, 17, 4096, 20011}) {
        std::vector<float> g = gradients(count);
        unsigned __int128 total = 0;
        for (const float x : g) total += fixed_square(x);
        const Sum expected{static_cast<uint64_t>(total), static_cast<uint64_t>(total >> 64), 0};
        for (const int32_t threads : {1, 2, 3})
            EXPECT_EQ(grad_norm(g, GetParam(), threads), expected);
        std::shuffle(g.begin(), g.end(), std::mt19937(1));
        EXPECT_EQ(grad_norm(g, GetParam(), 2), expected);
        // In two parts.
        const size_t half = g.size() / 2 + 1;
        const std::vector<float> a(g.begin(), g.begin() + static_cast<int64_t>(half));
        const std::vector<float> b(g.begin() + static_cast<int64_t>(half), g.end());
        Sum sum = grad_norm(a, GetParam(), 1);
        if (!b.empty()) sum = grad_norm(b, GetParam(), 1, false, sum);
        EXPECT_EQ(sum, expected);
    }
}

TEST_P(Optimizer, GradNormFlagsWhatIsNotASum) {
    const float infinity = std::numeric_limits<float>::infinity();
    for (const float bad : {infinity, -infinity, std::numeric_limits<float>::quiet_NaN(), 0x1p24F,
                            std::numeric_limits<float>::max()}) {
        for (const size_t where : {0U, 4000U, 8191U}) {
            std::vector<float> g(8192, 0.5F);
            EXPECT_EQ(grad_norm(g, GetParam(), 2).flag, 0U);
            g[where] = bad;
            const Sum sum = grad_norm(g, GetParam(), 2);
            EXPECT_EQ(sum.flag, 1U) << bad;
            EXPECT_EQ(grad_norm(g, GetParam(), 1), sum);
        }
    }
    // Each square fits (2^46), their sum of 2^47 does not; one fewer does.
    EXPECT_EQ(grad_norm({0x1p23F, 0x1p23F}, GetParam(), 1).flag, 1U);
    EXPECT_EQ(grad_norm({0x1p23F, 0x1.fffffep22F}, GetParam(), 2).flag, 0U);
    // A flag stays until the next begin.
    EXPECT_EQ(grad_norm({1.0F}, GetParam(), 1, false, {0, 0, 1}).flag, 1U);
    EXPECT_EQ(grad_norm({1.0F}, GetParam(), 1, true, {0, 0, 1}).flag, 0U);
}

// Many blocks and ragged ends; gradients of a scaled loss, whose squares are large.
TEST_P(Optimizer, GradNormOfLargeGradientsInManyBlocks) {
    for (const int64_t count : {4095, 4097, 33001}) {
        std::vector<float> g(static_cast<size_t>(count));
        unsigned __int128 total = 0;
        for (int64_t i = 0; i < count; ++i) {
            const auto x = static_cast<float>(number(12, i) * (i % 3 == 0 ? 3e3 : 5.0));
            g[static_cast<size_t>(i)] = x;
            total += fixed_square(x);
        }
        const Sum expected{static_cast<uint64_t>(total), static_cast<uint64_t>(total >> 64), 0};
        for (const int32_t threads : {1, 2}) EXPECT_EQ(grad_norm(g, GetParam(), threads), expected);
    }
}

// Every exponent, and what stands around 2^4 and 2^23.5, where squares are treated otherwise.
TEST_P(Optimizer, GradNormOfEveryExponent) {
    for (const float mantissa : {1.0F, 1.5F, 0x1.fffffep0F, 0x1.555556p0F, -0x1.6a09e6p0F}) {
        std::vector<float> g;
        unsigned __int128 total = 0;
        for (int exponent = -149; exponent < 23; ++exponent) {
            g.push_back(std::ldexp(mantissa, exponent));
            total += fixed_square(g.back());
        }
        const Sum expected{static_cast<uint64_t>(total), static_cast<uint64_t>(total >> 64), 0};
        EXPECT_EQ(grad_norm(g, GetParam(), 1), expected) << mantissa;
    }
    EXPECT_EQ(grad_norm({11863283.0F}, GetParam(), 1).flag, 0U);
    EXPECT_EQ(grad_norm({11863284.0F}, GetParam(), 1).flag, 1U);
}

TEST_P(Optimizer, ClipScalesToTheLimit) {
    const KernelCase c = [] {
        KernelCase made = flat_case(OpKind::clip, 4);
        return made;
    }();
    const auto run = [&](uint64_t low, uint64_t high, uint64_t flag, double limit) {
        Values values = fill_case(c, 1);
        values[ClipOperands::clip] = {0.0, 0.0, 0.0, 2.0};  // two steps were skipped before
        BoundCase bound(c, values, GetParam(), 1);
        const uint64_t sum[] = {low, high, flag, 0};
        std::memcpy(bound.at<uint64_t>(1), sum, sizeof sum);
        bound.scalars.clip = limit;
        bound.run();
        return std::vector<double>{bound.get(0, 0), bound.get(0, 1), bound.get(0, 2),
                                   bound.get(0, 3)};
    };
    const uint64_t nine = uint64_t{9} << 16;  // 9 * 2^80 = 9 * 2^16 * 2^64
    EXPECT_EQ(run(0, nine, 0, 1.0), (std::vector<double>{1.0 / 3.0, 3.0, 1.0, 2.0}));
    EXPECT_EQ(run(0, nine, 0, 4.0), (std::vector<double>{1.0, 3.0, 1.0, 2.0}));
    EXPECT_EQ(run(0, nine, 0, 0.0), (std::vector<double>{1.0, 3.0, 1.0, 2.0}));
    EXPECT_EQ(run(0, nine, 1, 1.0), (std::vector<double>{1.0 / 3.0, 3.0, 0.0, 3.0}));
    EXPECT_EQ(run(0, 0, 0, 1.0), (std::vector<double>{1.0, 0.0, 1.0, 2.0}));
    EXPECT_EQ(run(uint64_t{1} << 63, 0, 0, 0.0)[1], std::sqrt(0x1p-17));
}

// A step that was issued before it was known whether the one before it is skipped.
TEST_P(Optimizer, CorrectionsFollowTheSkippedSteps) {
    KernelCase c = flat_case(OpKind::adamw, 5);
    const auto weights = [&](double skipped, double known, double correction,
                             double correction_skipped) {
        Values values = fill_case(c, 1);
        values[AdamwOperands::clip] = {1.0, 1.0, 1.0, skipped};
        BoundCase bound(c, values, GetParam(), 1);
        bound.scalars.skipped_steps = known;
        bound.scalars.bias_correction1 = bound.scalars.bias_correction2 = correction;
        bound.scalars.bias_correction1_skipped = correction_skipped;
        bound.scalars.bias_correction2_skipped = correction_skipped;
        bound.run();
        std::vector<double> all;
        for (int64_t i = 0; i < 5; ++i) all.push_back(bound.get(AdamwOperands::w, i));
        return all;
    };
    EXPECT_EQ(weights(2, 2, 0.3, 0.2), weights(0, 0, 0.3, 0.3));
    EXPECT_EQ(weights(3, 2, 0.3, 0.2), weights(0, 0, 0.2, 0.2));
    EXPECT_NE(weights(0, 0, 0.3, 0.3), weights(0, 0, 0.2, 0.2));
}

TEST_P(Optimizer, ClipDividesByTheLossScale) {
    KernelCase c = flat_case(OpKind::clip, 4);
    c.shape[ClipOperands::loss_scale] = make_shape(2);
    Values values = fill_case(c, 1);
    values[ClipOperands::loss_scale] = {64.0, 3.0};
    BoundCase bound(c, values, GetParam(), 1);
    const uint64_t sum[] = {0, (uint64_t{9} << 16) * 64 * 64, 0, 0};
    std::memcpy(bound.at<uint64_t>(ClipOperands::sum), sum, sizeof sum);
    bound.scalars.clip = 1.5;
    bound.run();
    EXPECT_EQ(bound.get(0, 0), 0.5 / 64);
    EXPECT_EQ(bound.get(0, 1), 3.0);
    bound.scalars.clip = 0;
    bound.run();
    EXPECT_EQ(bound.get(0, 0), 1.0 / 64);
}

TEST_P(Optimizer, LossScaleHalvesAndDoubles) {
    KernelCase c = flat_case(OpKind::loss_scale, 4);
    c.shape[LossScaleOperands::state] = make_shape(2);
    const auto run = [&](double scale, double steps, bool finite) {
        Values values = fill_case(c, 1);
        values[LossScaleOperands::state] = {scale, steps};
        values[LossScaleOperands::clip] = {1.0, 1.0, finite ? 1.0 : 0.0, 0.0};
        BoundCase bound(c, values, GetParam(), 1);
        bound.scalars.loss_scale_window = 3;
        bound.run();
        return std::pair{bound.get(0, 0), bound.get(0, 1)};
    };
    using State = std::pair<double, double>;
    EXPECT_EQ(run(64, 0, true), State(64, 1));
    EXPECT_EQ(run(64, 1, true), State(64, 2));
    EXPECT_EQ(run(64, 2, true), State(128, 0));
    EXPECT_EQ(run(64, 2, false), State(32, 0));
    EXPECT_EQ(run(1, 0, false), State(1, 0));
    EXPECT_EQ(run(0x1p24, 2, true), State(0x1p24, 0));
}

TEST_P(Optimizer, InitIsAFunctionOfKeyAndElement) {
    KernelCase c = flat_case(OpKind::init, 1009);
    c.attrs.state = {42, 1000, 0.02, 7.0, 0, 0, 0, 0};
    for (const int32_t threads : {1, 2, 3}) {
        BoundCase bound(c, fill_case(c, 1), GetParam(), threads);
        bound.run();
        for (int64_t i = 0; i < 1009; ++i)
            EXPECT_EQ(
                bound.at<float>(0)[i],
                static_cast<float>(0.02 * random_normal(42, static_cast<uint64_t>(1000 + i))));
    }
    c.attrs.state.std = 0;
    BoundCase constant(c, fill_case(c, 1), GetParam(), 2);
    constant.run();
    for (int64_t i = 0; i < 1009; ++i) EXPECT_EQ(constant.at<float>(0)[i], 7.0F);
}

TEST_P(Optimizer, ZeroClears) {
    for (const int64_t count : {1, 1023, 4097}) {
        const KernelCase c = flat_case(OpKind::zero, count);
        BoundCase bound(c, fill_case(c, 1), GetParam(), 2);
        bound.run();
        EXPECT_TRUE(bound.red_zones_intact());
        for (int64_t i = 0; i < count; ++i) EXPECT_EQ(bound.at<uint32_t>(0)[i], 0U);
    }
}

TEST_P(Optimizer, DigestIsTheDigestOfItsElements) {
    KernelCase c = flat_case(OpKind::digest, 5003);
    c.attrs.state.key = 99;
    c.attrs.state.first = 17;
    c.attrs.state.begin = 1;
    const Values values = fill_case(c, 1);
    for (const int32_t threads : {1, 2, 3}) {
        BoundCase bound(c, values, GetParam(), threads);
        bound.at<uint64_t>(0)[0] = 1234;  // begin forgets it
        bound.run();
        const Hash128 expected = digest_elements(99, 17, bound.at<uint32_t>(1), 5003);
        EXPECT_EQ(bound.at<uint64_t>(0)[0], expected.low);
        EXPECT_EQ(bound.at<uint64_t>(0)[1], expected.high);
        bound.kernel_case().attrs.state.begin = 0;
        bound.run();
        const Hash128 twice = digest_add(expected, expected);
        EXPECT_EQ(bound.at<uint64_t>(0)[0], twice.low);
        EXPECT_EQ(bound.at<uint64_t>(0)[1], twice.high);
    }
}

TEST_P(Optimizer, DigestOfEverySize) {
    for (const int64_t count : {1, 3, 4, 1023, 4096, 4097, 16387}) {
        KernelCase c = flat_case(OpKind::digest, count);
        c.attrs.state.key = 7;
        c.attrs.state.first = int64_t{1} << 40;
        c.attrs.state.begin = 1;
        BoundCase bound(c, fill_case(c, 1), GetParam(), 2);
        bound.run();
        EXPECT_TRUE(bound.red_zones_intact());
        const Hash128 expected =
            digest_elements(7, c.attrs.state.first, bound.at<uint32_t>(1), count);
        EXPECT_EQ(bound.at<uint64_t>(0)[0], expected.low);
        EXPECT_EQ(bound.at<uint64_t>(0)[1], expected.high);
    }
}

INSTANTIATE_TEST_SUITE_P(Kernels, Optimizer, ::testing::ValuesIn(tested_isas()),
                         [](const auto& tested) { return std::string(isa_name(tested.param)); });

}  // namespace
}  // namespace plumb::testing
