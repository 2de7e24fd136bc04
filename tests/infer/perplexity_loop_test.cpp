// The loss over windows of a token file, against the trainer's evaluation and against every
// prediction computed by itself.
#include "infer/perplexity_loop.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "runtime/engine/evaluate.h"
#include "runtime/exec/seal.h"
#include "tests/infer/small_checkpoint.h"

namespace plumb {
namespace {

constexpr int64_t kWindow = 8;

class PerplexityLoop : public ::testing::Test {
  protected:
    void SetUp() override {
        folder_ = ::testing::TempDir() + "perplexity_XXXXXX";
        ASSERT_NE(::mkdtemp(folder_.data()), nullptr);
    }
    void TearDown() override { std::filesystem::remove_all(folder_); }

    // Bytes that a small model does not predict evenly.
    std::string text_file(int64_t size) const {
        const std::string path = folder_ + "/text" + std::to_string(size);
        std::ofstream file(path, std::ios::binary);
        for (int64_t i = 0; i < size; ++i) file.put(static_cast<char>(i * i % 251));
        return path;
    }

    static RunConfig config_of(int64_t windows_at_once) {
        RunConfig config = small_config(ModelType::gpt2, 256, 32);
        config.run.batch.micro_batch = config.run.batch.global_batch = windows_at_once;
        config.run.train.loss_chunk = 5;
        complete_run(config, "perplexity");
        return config;
    }

    // A session with the weights of the training one.
    std::unique_ptr<Session> scoring(int64_t windows_at_once) {
        auto session = std::make_unique<Session>(config_of(windows_at_once), Purpose::score);
        for (size_t p = 0; p < session->program().params.size(); ++p) {
            const Param& param = session->program().params[p];
            const float* from =
                training().executor().data<float>(training().program().params[p].weight);
            std::copy_n(from, param.elements(), session->executor().data<float>(param.weight));
        }
        return session;
    }
    Session& training() {
        if (!training_) {
            training_ = std::make_unique<Session>(config_of(2), Purpose::train);
            training_->run_phase(PhaseKind::initialise);
        }
        return *training_;
    }

    std::string folder_;
    std::unique_ptr<Session> training_;
};

TEST_F(PerplexityLoop, WindowsCoverTheTokens) {
    EXPECT_EQ(window_count(2, 8, 8), 1);
    EXPECT_EQ(window_count(9, 8, 8), 1);
    EXPECT_EQ(window_count(10, 8, 8), 2);
    EXPECT_EQ(window_count(17, 8, 8), 2);
    EXPECT_EQ(window_count(18, 8, 8), 3);
    EXPECT_EQ(window_count(9, 8, 1), 1);
    EXPECT_EQ(window_count(12, 8, 1), 4);
    EXPECT_EQ(window_count(12, 8, 3), 2);
    EXPECT_EQ(window_count(13, 8, 3), 3);
}

// Whole windows end to end are the sequences of the trainer's evaluation.
TEST_F(PerplexityLoop, LossIsTheTrainersEvaluation) {
    const TokenFile tokens(text_file(6 * kWindow + 1), 1);
    const DataLoader loader(tokens, kWindow, DataOrder::sequential, 0);
    ASSERT_EQ(loader.sequence_count(), 6);
    const double expected = evaluate(training(), loader, 3);
    EXPECT_GT(expected, 4.0);
    for (const int64_t at_once : {1, 2, 4}) {
        const Score score = score_tokens(*scoring(at_once), tokens, kWindow, 1e9);
        EXPECT_EQ(score.predicted_tokens, 6 * kWindow);
        EXPECT_NEAR(score.loss(), expected, 1e-6) << at_once;
        EXPECT_NEAR(score.perplexity(), std::exp(expected), 1e-3);
        EXPECT_NEAR(score.bits_per_token(), expected / std::log(2.0), 1e-6);
    }
}

// By definition: each token but the first, from the first window that has it among its targets.
TEST_F(PerplexityLoop, EveryTokenButTheFirstCountsOnce) {
    const auto single = scoring(1);
    const Executor& executor = single->executor();
    const IoTensors& io = single->program().io;
    for (const int64_t count : {2, 5, 9, 10, 27}) {
        const TokenFile tokens(text_file(count), 1);
        for (const int64_t stride : {int64_t{1}, int64_t{3}, kWindow}) {
            double expected = 0;
            for (int64_t target = 1; target < count; ++target) {
                const int64_t late = std::max<int64_t>(0, target - kWindow);
                const int64_t first = (late + stride - 1) / stride * stride;
                for (int64_t t = 0; t < kWindow; ++t) {
                    const bool there = first + t + 1 < count;
                    executor.data<int32_t>(io.tokens)[t] = there ? tokens.token(first + t) : 0;
                    executor.data<int32_t>(io.targets)[t] = there ? tokens.token(first + t + 1) : 0;
                    executor.data<float>(io.loss_weights)[t] =
                        first + t + 1 == target ? 1.0F : 0.0F;
                    executor.data<int32_t>(io.positions)[t] = static_cast<int32_t>(t);
                    executor.data<int32_t>(io.segment_start)[t] = 0;
                }
                *executor.data<double>(io.loss) = 0;
                single->run_phase(PhaseKind::evaluate);
                expected += *executor.data<double>(io.loss);
            }
            for (const int64_t at_once : {1, 3}) {
                const Score score = score_tokens(*scoring(at_once), tokens, stride, 1e9);
                EXPECT_EQ(score.predicted_tokens, count - 1);
                EXPECT_NEAR(score.loss_sum, expected, 1e-6 * static_cast<double>(count))
                    << count << " tokens, stride " << stride;
            }
        }
    }
}

TEST_F(PerplexityLoop, AllocatesNothingAndReportsProgress) {
    const TokenFile tokens(text_file(5 * kWindow + 1), 1);
    const auto session = scoring(2);
    ::testing::internal::CaptureStderr();
    session->seal();
    score_tokens(*session, tokens, kWindow, 0);
    const AllocationCounts counts = allocation_counts();
    unseal();
    const std::string progress = ::testing::internal::GetCapturedStderr();
    EXPECT_EQ(progress.rfind(" 40.0% of 40 tokens, loss ", 0), 0u) << progress;
    EXPECT_NE(progress.find("\n 80.0% of 40 tokens, loss "), std::string::npos) << progress;
    EXPECT_EQ(std::count(progress.begin(), progress.end(), '\n'), 2) << "none at the end";
    for (const int64_t calls : counts.calls) EXPECT_EQ(calls, 0);
}

}  // namespace
}  // namespace plumb
