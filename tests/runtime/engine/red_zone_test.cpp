// Red zones and poisoned dead bytes (the checked build) change no bit of a run: what is lost by
// them could only have been garbage. Both runs are of one process and one build.
#include <gtest/gtest.h>

#include "runtime/engine/generate.h"
#include "runtime/engine/state_io.h"
#include "tests/runtime/engine/golden_session.h"

namespace plumb {
namespace {

class RedZoneTest : public testing::TestWithParam<const char*> {
  protected:
    struct Outcome {
        std::vector<double> losses;  // of steps and evaluations in turn
        std::vector<Hash128> digests;
        std::vector<int32_t> tokens;
        std::vector<float> logits;
        int64_t planned_bytes = 0;
    };

    // After every step but the last an evaluation and a generation: its cache takes the bytes that
    // the next step's slots need again.
    Outcome train(const GoldenRun& run, int64_t red_zone_bytes) {
        constexpr int64_t kSteps = 4;
        RunConfig config = golden_config(golden_, run);
        config.run.train.sample_tokens = 4;
        config.run.generate.prefill_chunk = 3;
        Session session(config, Purpose::train, red_zone_bytes);
        set_golden_weights(session);
        Outcome outcome;
        outcome.planned_bytes = session.plan().total_bytes;
        for (int64_t step = 0; step < kSteps; ++step) {
            outcome.losses.push_back(run_golden_step(session, golden_, step).loss);
            outcome.digests.push_back(StateIo(session).digest());
            if (step + 1 == kSteps) break;
            double* loss = session.executor().data<double>(session.program().io.loss);
            *loss = 0;
            session.run_phase(PhaseKind::evaluate);
            outcome.losses.push_back(*loss);
            generate(session, &outcome);
        }
        return outcome;
    }

    void generate(Session& session, Outcome* outcome) {
        Generator generator(session);
        std::vector<int32_t> prompt;
        for (int64_t i = 0; i < 5; ++i) prompt.push_back(golden_token(99, i, golden_.vocab_size));
        outcome->tokens.push_back(
            generator.start(prompt.data(), static_cast<int64_t>(prompt.size()), {}));
        for (int i = 0; i < 3; ++i) outcome->tokens.push_back(generator.next());
        outcome->logits.insert(outcome->logits.end(), generator.logits(),
                               generator.logits() + golden_.vocab_size);
    }

    Golden golden_ = read_golden(GetParam());
};

TEST_P(RedZoneTest, ChangeNoBit) {
    for (const Reduction reduction : {Reduction::fast, Reduction::exact}) {
        for (const Recompute& recompute :
             {Recompute{}, Recompute{RecomputeKind::selective}, Recompute{RecomputeKind::attention},
              Recompute{RecomputeKind::block, 1}}) {
            GoldenRun run;
            run.reduction = reduction;
            run.recompute = recompute;
            const Outcome bare = train(run, 0);
            const Outcome zoned = train(run, 64);
            EXPECT_GT(zoned.planned_bytes, bare.planned_bytes);
            EXPECT_EQ(zoned.losses, bare.losses);  // NaN would differ from itself
            EXPECT_EQ(zoned.digests, bare.digests);
            EXPECT_EQ(zoned.tokens, bare.tokens);
            EXPECT_EQ(zoned.logits, bare.logits);
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Models, RedZoneTest, testing::Values("gpt2", "llama"),
                         [](const auto& model) { return std::string(model.param); });

}  // namespace
}  // namespace plumb
