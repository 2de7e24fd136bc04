// The C++ generator makes the weights and tokens that the golden numbers were computed from.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/golden/golden_file.h"
#include "tests/golden/golden_model.h"

namespace plumb {
namespace {

class GoldenModel : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenModel, WeightsAreThoseOfTheScript) {
    const Golden golden = read_golden(GetParam());
    for (const GoldenParameter& p : golden.parameters) {
        for (const auto& [index, value] : p.samples)
            EXPECT_EQ(golden_value(p.name, index), value) << p.name << " " << index;
        double sum = 0, square_sum = 0;  // dyadic values: both sums are exact in any order
        for (int64_t i = 0; i < p.elements(); ++i) {
            const double value = golden_value(p.name, i);
            sum += value;
            square_sum += value * value;
        }
        EXPECT_EQ(sum, p.initial_sum) << p.name;
        EXPECT_EQ(square_sum, p.initial_square_sum) << p.name;
    }
}

TEST_P(GoldenModel, TokensAreThoseOfTheScript) {
    const Golden golden = read_golden(GetParam());
    const GoldenForward& f = golden.forward;
    ASSERT_EQ(static_cast<int64_t>(f.tokens.size()), f.sequences * f.sequence_length);
    for (size_t i = 0; i < f.tokens.size(); ++i)
        EXPECT_EQ(golden_token(f.step, static_cast<int64_t>(i), golden.vocab_size), f.tokens[i]);
    EXPECT_GT(*std::max_element(f.tokens.begin(), f.tokens.end()), golden.vocab_size / 4);
}

TEST_P(GoldenModel, FileIsWhole) {
    const Golden golden = read_golden(GetParam());
    const GoldenTraining& t = golden.training;
    EXPECT_EQ(static_cast<int64_t>(golden.forward.logits.size()),
              golden.forward.sequences * golden.forward.sequence_length * golden.vocab_size);
    EXPECT_EQ(static_cast<int64_t>(t.loss.size()), t.steps);
    EXPECT_EQ(static_cast<int64_t>(t.grad_norm.size()), t.steps);
    ASSERT_EQ(static_cast<int64_t>(t.lr_per_step.size()), t.steps);
    EXPECT_LT(t.loss.back(), t.loss.front());
    for (int64_t step = 0; step < t.steps; ++step) {
        const double share = static_cast<double>(step + 1) / static_cast<double>(t.warmup_steps);
        EXPECT_NEAR(t.lr_per_step[static_cast<size_t>(step)], t.lr * std::min(1.0, share), 1e-12);
    }
    // The norm of the whole gradient from those of the parameters, with key biases as zero.
    double square_sum = 0;
    for (const GoldenParameter& p : golden.parameters)
        if (p.gradient_norm == p.gradient_norm) square_sum += p.gradient_norm * p.gradient_norm;
    EXPECT_NEAR(square_sum, t.grad_norm[0] * t.grad_norm[0], 1e-9 * square_sum);
    EXPECT_EQ(golden.parameter("embed.tokens").shape[0], golden.vocab_size);
}

INSTANTIATE_TEST_SUITE_P(Files, GoldenModel, ::testing::Values("gpt2", "llama", "llama_bias"));

}  // namespace
}  // namespace plumb
