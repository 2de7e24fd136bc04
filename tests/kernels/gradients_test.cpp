#include <gtest/gtest.h>

#include "tests/kernels/bound_case.h"
#include "tests/kernels/reference.h"

// The reference's gradients are proven here by finite differences of the reference's forward ops;
// kernels_test.cpp then holds the kernels to the reference. For a loss L = <output, r> with random
// r, central differences in fp64 along random directions d,
//   (L(x + h d) - L(x - h d)) / 2h = <dL/dx, d> + O(h^2) + O(2^-52 |L| / h),
// are exact to some 1e-9 at h = 1e-5: the bound is 1e-7 of the terms' magnitude.

namespace plumb::testing {
namespace {

constexpr double kStep = 1e-5;
constexpr double kBound = 1e-7;

// A forward op and the op that makes its gradients: which operands are the same tensor.
struct GradientPair {
    KernelCase forward;
    KernelCase backward;
    int output;                               // of forward, that the loss sees
    int upstream;                             // of backward, that receives r; -1: the loss itself
    std::vector<std::pair<int, int>> shared;  // forward operand (after the run) -> backward
    std::vector<std::pair<int, int>> grads;   // forward operand -> its gradient in backward
};

double loss_of(const GradientPair& pair, Values operands, const std::vector<double>& r) {
    run_reference(pair.forward, test_scalars(), &operands);
    const auto& y = operands[static_cast<size_t>(pair.output)];
    double loss = 0;
    for (size_t i = 0; i < y.size(); ++i) loss += y[i] * r[i];
    return loss;
}

void check_pair(const GradientPair& pair) {
    const auto place = [](int i) { return static_cast<size_t>(i); };
    Values x = fill_case(pair.forward, 21);
    std::vector<double> r(x[place(pair.output)].size());
    for (size_t i = 0; i < r.size(); ++i)
        r[i] = pair.upstream < 0 ? test_scalars().inverse_weight_sum
                                 : number(77, static_cast<int64_t>(i));
    Values after = x;
    run_reference(pair.forward, test_scalars(), &after);
    Values back = fill_case(pair.backward, 22);
    for (const auto& [from, to] : pair.shared) back[place(to)] = after[place(from)];
    if (pair.upstream >= 0) back[place(pair.upstream)] = r;
    // Gradients that accumulate start at zero, except where r itself is transformed in place.
    for (const auto& [input, gradient] : pair.grads)
        if (gradient != pair.upstream)
            std::fill(back[place(gradient)].begin(), back[place(gradient)].end(), 0.0);
    run_reference(pair.backward, test_scalars(), &back);
    for (const auto& [input, gradient] : pair.grads) {
        const auto& g = back[place(gradient)];
        ASSERT_EQ(g.size(), x[place(input)].size());
        for (uint64_t direction = 0; direction < 3; ++direction) {
            Values up = x, down = x;
            double slope = 0, magnitude = 1e-3;
            for (size_t i = 0; i < g.size(); ++i) {
                const double d = number(100 + direction, static_cast<int64_t>(i));
                up[place(input)][i] += kStep * d;
                down[place(input)][i] -= kStep * d;
                slope += g[i] * d;
                magnitude += std::fabs(g[i] * d);
            }
            const double difference = (loss_of(pair, up, r) - loss_of(pair, down, r)) / (2 * kStep);
            EXPECT_NEAR(slope, difference, kBound * magnitude)
                << pair.backward.name << " gradient of operand " << input;
        }
    }
}

TEST(Gradients, Embed) {
    check_pair({embed_case(false, 2, 7, 5, 4, 9),
                embed_case(true, 2, 7, 5, 4, 9),
                0,
                2,
                {{3, 3}, {4, 4}},
                {{1, 0}, {2, 1}}});
}

TEST(Gradients, LayerNormAndRmsNorm) {
    check_pair({norm_case(5, 13, NormKind::layer, true, true),
                norm_backward_case(5, 13, NormKind::layer, false, true),
                0,
                3,
                {{2, 4}, {1, 5}, {3, 6}},
                {{2, 0}, {3, 1}, {4, 2}}});
    check_pair({norm_case(5, 13, NormKind::rms, false, true),
                norm_backward_case(5, 13, NormKind::rms, true, true),
                0,
                3,
                {{2, 4}, {1, 5}, {3, 6}},
                {{2, 0}, {3, 1}}});
}

TEST(Gradients, Matmul) {
    const KernelCase forward = matmul_case(7, 5, 11, {true, false, false, true});
    check_pair({forward, matmul_dx_case(7, 5, 11, true), 0, 1, {{3, 2}}, {{2, 0}}});
    check_pair({forward, matmul_dw_case(7, 5, 11, true, true), 0, 2, {{2, 3}}, {{3, 0}, {4, 1}}});
}

// The bias is gelu's argument shifted, so gelu_backward gives the bias's gradient of one row.
TEST(Gradients, Gelu) {
    KernelCase backward = flat_case(OpKind::gelu_backward, 50);
    check_pair(
        {matmul_case(1, 3, 50, {true, true, true, false}), backward, 0, 0, {{1, 1}}, {{4, 0}}});
}

TEST(Gradients, GeluApart) {
    check_pair({flat_case(OpKind::gelu, 50),
                flat_case(OpKind::gelu_backward, 50),
                0,
                0,
                {{1, 1}},
                {{1, 0}}});
}

TEST(Gradients, Swiglu) {
    check_pair({swiglu_case(false, 3, 17), swiglu_case(true, 3, 17), 0, 1, {{1, 2}}, {{1, 0}}});
}

TEST(Gradients, RopeIsItsInverse) {
    KernelCase forward = attention_case(OpKind::rope, 2, 5, {4, 2, 6});
    KernelCase backward = forward;
    backward.attrs.attention.inverse = 1;
    check_pair({forward, backward, 0, 0, {{1, 1}}, {{0, 0}}});
}

TEST(Gradients, Attention) {
    for (const Heads& h : {Heads{1, 1, 3}, Heads{4, 2, 5}})
        check_pair({attention_case(OpKind::attention, 2, 9, h),
                    attention_case(OpKind::attention_backward, 2, 9, h),
                    0,
                    1,
                    {{2, 2}, {0, 3}, {1, 4}, {3, 5}},
                    {{2, 0}}});
}

TEST(Gradients, HeadLoss) {
    check_pair({head_loss_case(false, 9, 5, 13, 4),
                head_loss_case(true, 9, 5, 13, 4),
                0,
                -1,
                {{1, 3}, {2, 4}, {3, 5}, {4, 6}},
                {{1, 1}, {2, 2}}});
}

}  // namespace
}  // namespace plumb::testing
