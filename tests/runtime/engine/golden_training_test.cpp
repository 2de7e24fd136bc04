// Twenty AdamW steps of the golden models against PyTorch in float64 (tests/golden), and the
// settings that must not change a bit of them.
#include <gtest/gtest.h>

#include <cstring>

#include "runtime/engine/state_io.h"
#include "tests/runtime/engine/golden_session.h"

namespace plumb {
namespace {

class GoldenTrainingTest : public testing::TestWithParam<const char*> {
  protected:
    Golden golden_ = read_golden(GetParam());

    struct Outcome {
        std::vector<double> losses;
        Hash128 digest;
    };
    Outcome train(const GoldenRun& run, int64_t steps) {
        Session session(golden_config(golden_, run), Purpose::train);
        set_golden_weights(session);
        Outcome outcome;
        for (int64_t s = 0; s < steps; ++s)
            outcome.losses.push_back(run_golden_step(session, golden_, s).loss);
        outcome.digest = StateIo(session).digest();
        return outcome;
    }
    // The gradients of all parameters after the micro-batches of one step.
    std::vector<float> gradients(const GoldenRun& run) {
        Session session(golden_config(golden_, run), Purpose::train);
        set_golden_weights(session);
        fill_golden_step(session, golden_, 0);
        set_golden_scalars(session, golden_, 0);
        const SectionId update = session.program().section(SectionKind::update);
        for (const Entry& entry : session.program().phase(PhaseKind::step)->entries)
            if (entry.section != update) session.executor().run(entry);
        std::vector<float> all;
        for (const Param& param : session.program().params) {
            const float* g = session.executor().data<float>(param.grad);
            all.insert(all.end(), g, g + param.elements());
        }
        return all;
    }
};

TEST_P(GoldenTrainingTest, LossesAndNormsOfTwentySteps) {
    Session session(golden_config(golden_, {}), Purpose::train);
    set_golden_weights(session);
    const GoldenTraining& t = golden_.training;
    for (int64_t s = 0; s < t.steps; ++s) {
        const auto i = static_cast<size_t>(s);
        const StepResult result = run_golden_step(session, golden_, s);
        EXPECT_NEAR(result.loss, t.loss[i], 1e-5 * t.loss[i]) << "step " << s;
        EXPECT_NEAR(result.grad_norm, t.grad_norm[i], 1e-5 * t.grad_norm[i]) << "step " << s;
    }
    for (const GoldenParameter& golden : golden_.parameters) {
        if (std::isnan(golden.final_square_sum)) continue;
        const Param* param = nullptr;
        for (const Param& p : session.program().params)
            if (p.name == golden.name) param = &p;
        ASSERT_NE(param, nullptr) << golden.name;
        const float* w = session.executor().data<float>(param->weight);
        double squares = 0;
        for (int64_t k = 0; k < param->elements(); ++k) squares += double{w[k]} * w[k];
        EXPECT_NEAR(squares, golden.final_square_sum, 1e-4 * golden.final_square_sum)
            << golden.name;
    }
}

TEST_P(GoldenTrainingTest, GradientOfEachParameter) {
    Session session(golden_config(golden_, {}), Purpose::train);
    set_golden_weights(session);
    fill_golden_step(session, golden_, 0);
    set_golden_scalars(session, golden_, 0);
    for (const Entry& entry : session.program().phase(PhaseKind::step)->entries)
        if (!is_update(session.program(), entry)) session.executor().run(entry);
    ASSERT_EQ(session.program().params.size(), golden_.parameters.size());
    for (const Param& param : session.program().params) {
        const double expected = golden_.parameter(param.name).gradient_norm;
        if (std::isnan(expected)) continue;
        const float* g = session.executor().data<float>(param.grad);
        double squares = 0;
        for (int64_t k = 0; k < param.elements(); ++k) squares += double{g[k]} * g[k];
        EXPECT_NEAR(std::sqrt(squares), expected, 1e-5 * expected) << param.name;
    }
}

TEST_P(GoldenTrainingTest, SettingsThatChangeNoBit) {
    const Outcome reference = train({}, 5);
    GoldenRun run;
    run.threads = 2;
    EXPECT_EQ(train(run, 5).digest, reference.digest) << "two threads";
    EXPECT_EQ(train({}, 5).digest, reference.digest) << "run to run";
    run = {};
    run.reduction = Reduction::exact;
    const Outcome exact = train(run, 5);
    for (size_t s = 0; s < 5; ++s)
        EXPECT_NEAR(exact.losses[s], reference.losses[s], 1e-6 * reference.losses[s]);
}

// Losses, gradients and state of every kind of recomputation, by the bit. Spacings that divide the
// blocks, that do not, and that exceed them.
TEST_P(GoldenTrainingTest, RecomputeChangesNoBit) {
    std::vector<Recompute> kinds = {{RecomputeKind::selective}, {RecomputeKind::attention}};
    for (const int64_t blocks : {1, 2, 3, 4, 5, 65536})
        kinds.push_back({RecomputeKind::block, blocks});
    for (const Reduction reduction : {Reduction::fast, Reduction::exact}) {
        GoldenRun run;
        run.reduction = reduction;
        run.micro_batches = 3;
        const Outcome reference = train(run, 3);
        const std::vector<float> reference_gradients = gradients(run);
        for (const Recompute& recompute : kinds) {
            SCOPED_TRACE(testing::Message()
                         << "kind " << static_cast<int>(recompute.kind) << " blocks "
                         << recompute.blocks << " reduction " << static_cast<int>(reduction));
            run.recompute = recompute;
            const Outcome outcome = train(run, 3);
            EXPECT_EQ(outcome.losses, reference.losses);
            EXPECT_EQ(outcome.digest, reference.digest);
            EXPECT_TRUE(gradients(run) == reference_gradients);
        }
    }
}

// ||g - g64|| / ||g64|| of the step's gradient against the fp64 sum of the gradients that each of
// its 8 micro-batches gives alone.
TEST_P(GoldenTrainingTest, GradientsSummedOverEightMicroBatches) {
    for (const Reduction reduction : {Reduction::exact, Reduction::fast}) {
        GoldenRun run;
        run.reduction = reduction;
        run.micro_batches = 8;
        Session session(golden_config(golden_, run), Purpose::train);
        set_golden_weights(session);
        fill_golden_step(session, golden_, 0);
        set_golden_scalars(session, golden_, 0);
        const Program& program = session.program();
        Executor& executor = session.executor();
        const auto gradient = [&](const Param& param, int64_t k) {
            double g = executor.data<float>(param.grad)[k];
            for (const GradUse& use : param.further_uses)
                if (use.grad != kNoTensor) g += executor.data<float>(use.grad)[k];
            return g;
        };
        const auto clear = [&] { session.run_phase(PhaseKind::load); };
        std::vector<double> sum;
        for (const Param& param : program.params)
            sum.resize(sum.size() + static_cast<size_t>(param.elements()), 0.0);
        const auto& entries = program.phase(PhaseKind::step)->entries;
        for (int32_t m = 0; m < 8; ++m) {
            clear();
            for (const Entry& entry : entries)
                if (!is_update(program, entry) && entry.micro_batch == m) executor.run(entry);
            size_t at = 0;
            for (const Param& param : program.params)
                for (int64_t k = 0; k < param.elements(); ++k) sum[at++] += gradient(param, k);
        }
        clear();
        for (const Entry& entry : entries)
            if (!is_update(program, entry)) executor.run(entry);
        double error = 0, norm = 0;
        size_t at = 0;
        for (const Param& param : program.params) {
            for (int64_t k = 0; k < param.elements(); ++k, ++at) {
                const double difference = gradient(param, k) - sum[at];
                error += difference * difference;
                norm += sum[at] * sum[at];
            }
        }
        EXPECT_LE(std::sqrt(error / norm), reduction == Reduction::exact ? 1e-6 : 1e-5);
        EXPECT_GT(norm, 0);
    }
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenTrainingTest, testing::Values("gpt2", "llama", "llama_bias"),
                         [](const auto& model) { return std::string(model.param); });

}  // namespace
}  // namespace plumb
