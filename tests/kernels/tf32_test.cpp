// Products of f32 whose factors may be rounded to tf32: within what that rounding can do, and only
// where they are asked for.
#include <gtest/gtest.h>

#include "tests/kernels/bound_case.h"
#include "tests/kernels/reference.h"

namespace plumb::testing {
namespace {

// The relative error of a factor. tf32 has 10 bits of mantissa behind the leading one, so rounding
// to the nearest errs by at most half a unit of the last: 2^-11. The emulation does that; cuBLASLt
// does not say how it rounds, and dropping bits errs by a whole unit.
#ifdef PLUMB_CUDA_EMULATION
constexpr double kTf32Error = 0x1p-11;
#else
constexpr double kTf32Error = 0x1p-10;
#endif

// A case and the operands that are factors. A product of two errs by (1 + e)^2 - 1 = 2 (e + e^2 /
// 2) of itself: `share` is 1 for factors that meet each other, each paying for itself, and 2 for
// those that also meet one that is no operand (a gradient of logits) and pay for it.
struct Tf32Case {
    KernelCase kernel_case;
    std::vector<int> factors;
    double share = 1;
};

std::vector<Tf32Case> tf32_cases() {
    using M = MatmulOperands;
    using Dx = MatmulDxOperands;
    using Dw = MatmulDwOperands;
    using H = HeadLossOperands;
    using B = HeadLossBackwardOperands;
    return {{matmul_case(24, 96, 48, {false, false, false, false}), {M::x, M::w}},
            {matmul_case(9, 17, 33, {true, false, false, true}), {M::x, M::w}},
            {matmul_case(13, 256, 31, {true, true, true, true}), {M::x, M::w}},
            {matmul_dx_case(97, 40, 11, true), {Dx::dy, Dx::w}},
            {matmul_dx_case(24, 33, 65, false), {Dx::dy, Dx::w}},
            {matmul_dw_case(63, 24, 31, true, false), {Dw::dy, Dw::x}},
            {head_loss_case(false, 37, 19, 101, 8), {H::x, H::w}},
            {head_loss_case(true, 37, 19, 101, 8), {B::x, B::w}, 2},
            {head_loss_case(true, 21, 17, 259, 16, true), {B::x, B::w}, 2}};
}

std::unique_ptr<BoundCase> run_case(const KernelCase& c, const Values& values, Isa isa, bool tf32) {
    auto bound = std::make_unique<BoundCase>(c, values, isa, 1);
    bound->poison_outputs();
    bound->tf32 = tf32;
    bound->run();
    EXPECT_TRUE(bound->red_zones_intact()) << c.name;
    return bound;
}

bool equal_bits(BoundCase& a, BoundCase& b, int operand) {
    return std::memcmp(a.operand(operand).data(), b.operand(operand).data(),
                       static_cast<size_t>(a.operand(operand).size_bytes())) == 0;
}

void compare(const Tf32Case& tested, const Values& values, BoundCase& bound) {
    const KernelCase& c = tested.kernel_case;
    Operands<Tracked> expected;
    for (const auto& v : values) expected.emplace_back(v.begin(), v.end());
    for (const int f : tested.factors)
        for (Tracked& t : expected[static_cast<size_t>(f)])
            t.flip = tested.share * kTf32Error * (1 + kTf32Error / 2) * std::fabs(t.value);
    run_reference(c, test_scalars(), &expected);
    for (int i = 0; i < c.operands(); ++i) {
        if (c.shape[i].rank == 0 || !c.writes(i)) continue;
        int64_t wrong = 0;
        for (int64_t j = 0; j < c.shape[i].elements(); ++j) {
            const Tracked& e = expected[static_cast<size_t>(i)][static_cast<size_t>(j)];
            // Written so that NaN is wrong.
            if (!(std::fabs(bound.get(i, j) - e.value) <= tolerance_of(e))) ++wrong;
        }
        EXPECT_EQ(wrong, 0) << c.name << " operand " << i;
    }
}

TEST(Tf32, ErrsByTheRoundingOfItsFactors) {
    const auto isa = gpu::isa();
    if (!isa) GTEST_SKIP() << "no GPU";
    for (const Tf32Case& tested : tf32_cases()) {
        const Values values = fill_case(tested.kernel_case, 5);
        compare(tested, values, *run_case(tested.kernel_case, values, *isa, true));
    }
}

#ifdef PLUMB_CUDA_EMULATION

// To nearest, ties away from zero.
double rounded_to_tf32(double x) {
    if (x == 0) return x;
    const int last = std::ilogb(x) - 10;
    return std::ldexp(std::round(std::ldexp(x, -last)), last);
}

// By the bit the products of rounded factors: all that is no factor (bias, residual, what is added
// to) is as it was, and the rounding is there in every product.
TEST(Tf32, IsTheProductOfRoundedFactors) {
    for (const Tf32Case& tested : tf32_cases()) {
        const KernelCase& c = tested.kernel_case;
        const Values values = fill_case(c, 6);
        Values rounded = values;
        for (const int f : tested.factors)
            for (double& x : rounded[static_cast<size_t>(f)]) x = rounded_to_tf32(x);
        const auto tf32 = run_case(c, values, Isa::sm80, true);
        const auto plain = run_case(c, values, Isa::sm80, false);
        const auto of_rounded = run_case(c, rounded, Isa::sm80, false);
        for (int i = 0; i < c.operands(); ++i) {
            if (c.shape[i].rank == 0 || !c.writes(i)) continue;
            EXPECT_FALSE(equal_bits(*tf32, *plain, i)) << c.name << " operand " << i;
            // The gradients of logits are factors too, rounded only here.
            const bool of_logits = c.kind == OpKind::head_loss_backward && i > 0;
            EXPECT_NE(equal_bits(*tf32, *of_rounded, i), of_logits) << c.name << " operand " << i;
        }
    }
}

// Ties and the neighbours of a tie, overflow, infinity, a small number, and NaN.
TEST(Tf32, RoundsToNearestWithTiesAwayFromZero) {
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    const std::pair<float, float> rows[] = {{1.0F, 1.0F},
                                            {0x1.002p0F, 0x1.004p0F},
                                            {-0x1.002p0F, -0x1.004p0F},
                                            {0x1.006p0F, 0x1.008p0F},
                                            {0x1.001ffep0F, 1.0F},
                                            {0x1.002002p0F, 0x1.004p0F},
                                            {0x1.fffp0F, 0x1p1F},
                                            {0x1.fffffep127F, kInfinity},
                                            {0x1.ffdp127F, 0x1.ffcp127F},
                                            {-kInfinity, -kInfinity},
                                            {0x1.002p-126F, 0x1.004p-126F}};
    const auto count = static_cast<int64_t>(std::size(rows));
    const KernelCase c = matmul_case(count + 1, 1, 1, {false, false, false, false});
    Values values = fill_case(c, 1);
    values[MatmulOperands::w] = {1};
    auto& x = values[MatmulOperands::x];
    x.clear();
    for (const auto& [from, to] : rows) x.push_back(static_cast<double>(from));
    x.push_back(std::numeric_limits<double>::quiet_NaN());
    const auto bound = run_case(c, values, Isa::sm80, true);
    const float* y = bound->at<float>(MatmulOperands::y);
    for (int64_t i = 0; i < count; ++i) EXPECT_EQ(y[i], rows[i].second) << rows[i].first;
    EXPECT_TRUE(std::isnan(y[count]));
}

#endif

// What is not a product of f32 on tensor cores keeps its bits: few rows, 16-bit values, CPUs.
TEST(Tf32, LeavesAllElseAsItIs) {
    const KernelCase few = matmul_case(8, 96, 48, {true, false, false, true});
    const KernelCase many = matmul_case(24, 96, 48, {true, false, false, true});
    for (const Isa isa : tested_isas()) {
        std::vector<KernelCase> cases = {few, in_dtype(many, Dtype::bf16),
                                         in_dtype(many, Dtype::f16)};
        if (!is_cuda(isa)) cases.push_back(many);
        for (const KernelCase& c : cases) {
            const Values values = fill_case(c, 7);
            EXPECT_TRUE(equal_bits(*run_case(c, values, isa, true),
                                   *run_case(c, values, isa, false), MatmulOperands::y))
                << c.name << " " << isa_name(isa);
        }
    }
}

}  // namespace
}  // namespace plumb::testing
