// Where the loop ends, what it has written by then, and that prompts in a batch do not meet.
#include "infer/generate_loop.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "tests/infer/small_checkpoint.h"

namespace plumb {
namespace {

constexpr int64_t kContext = 40;

std::vector<int32_t> bytes_of(const std::string& text) {
    std::vector<int32_t> tokens;
    for (const char character : text) tokens.push_back(static_cast<uint8_t>(character));
    return tokens;
}

class GenerateLoopTest : public ::testing::Test {
  protected:
    void SetUp() override {
        make_session(1);
        ASSERT_EQ(::pipe(fds_), 0);
    }
    void TearDown() override {
        ::close(fds_[0]);
        ::close(fds_[1]);
    }

    // Weights are initialised in a training session and copied: the generating one has no phase
    // that would make them.
    void make_session(int64_t batch) {
        RunConfig config = small_config(ModelType::llama, 256, kContext);
        Session trained(config, Purpose::train);
        trained.run_phase(PhaseKind::initialise);
        config.run.generate.batch = batch;
        session_ = std::make_unique<Session>(config, Purpose::generate);
        for (size_t p = 0; p < session_->program().params.size(); ++p) {
            const Param& param = session_->program().params[p];
            ASSERT_EQ(trained.program().params[p].name, param.name);
            const float* from = trained.executor().data<float>(trained.program().params[p].weight);
            std::copy_n(from, param.elements(), session_->executor().data<float>(param.weight));
        }
    }

    GenerateSummary run(const GenerateRequest& request,
                        TokenFormat format = TokenFormat::raw_bytes) {
        TokenStream stream(fds_[1], format);
        GenerateLoop loop(*session_, request, stream);
        const GenerateSummary summary = loop.run();
        texts_ = loop.texts();
        char buffer[16384];
        const auto size = ::read(fds_[0], buffer, sizeof buffer);
        text_.assign(buffer, size > 0 ? static_cast<size_t>(size) : 0);
        return summary;
    }

    static GenerateRequest request(int64_t max_new_tokens) {
        static const std::vector<std::vector<int32_t>> kPrompts = {bytes_of("abc")};
        GenerateRequest request;
        request.prompts = kPrompts;
        request.max_new_tokens = max_new_tokens;
        return request;
    }

    std::unique_ptr<Session> session_;
    int fds_[2] = {-1, -1};
    std::string text_;
    std::vector<TextSummary> texts_;
};

TEST_F(GenerateLoopTest, EndsAtTheTokenCount) {
    for (const int64_t count : {1, 2, 9}) {
        const GenerateSummary summary = run(request(count));
        EXPECT_EQ(texts_[0].end, GenerateEnd::token_count);
        EXPECT_EQ(summary.prompt_tokens, 3);
        EXPECT_EQ(summary.new_tokens, count);
        EXPECT_EQ(summary.decoded_tokens, count - 1);
        EXPECT_EQ(text_.size(), static_cast<size_t>(3 + count));
        EXPECT_EQ(text_.substr(0, 3), "abc");
    }
}

// The last token is made from a full cache and never enters it.
TEST_F(GenerateLoopTest, EndsAtTheContext) {
    const GenerateSummary summary = run(request(1000));
    EXPECT_EQ(texts_[0].end, GenerateEnd::context);
    EXPECT_EQ(summary.new_tokens, kContext - 3 + 1);
    EXPECT_EQ(text_.size(), static_cast<size_t>(kContext + 1));
    run(request(kContext - 3 + 1));
    EXPECT_EQ(texts_[0].end, GenerateEnd::token_count);
}

TEST_F(GenerateLoopTest, EndsAtEosWithoutWritingIt) {
    run(request(30));
    const std::string text = text_;
    // Of all tokens the one that appears first as late as possible.
    size_t last = 3;
    for (size_t i = 3; i < text.size(); ++i)
        if (text.find(text[i], 3) == i) last = i;
    ASSERT_GT(last, 3u);
    GenerateRequest ended = request(30);
    ended.eos_token = static_cast<uint8_t>(text[last]);
    const GenerateSummary summary = run(ended);
    EXPECT_EQ(texts_[0].end, GenerateEnd::eos);
    EXPECT_EQ(summary.new_tokens, static_cast<int64_t>(last) - 3 + 1);
    EXPECT_EQ(text_, text.substr(0, last));
}

// Stop strings are those of the new text, wherever they begin; a beginning that comes to nothing is
// written after all, at the latest when the text ends.
TEST_F(GenerateLoopTest, EndsBeforeAStopString) {
    GenerateRequest stopped = request(20);
    stopped.sampling.temperature = 1.5;
    run(stopped);
    const std::string text = text_;
    ASSERT_EQ(text.size(), 23u);
    for (size_t first = 3; first < text.size(); ++first) {
        for (const size_t size : {1U, 2U, 5U}) {
            const std::string stop = text.substr(first, size);
            if (text.find(stop, 3) != first) continue;
            stopped.stops = StopStrings({"not there", stop, "nor there"});
            const GenerateSummary summary = run(stopped);
            EXPECT_EQ(texts_[0].end, GenerateEnd::stop_string);
            EXPECT_EQ(text_, text.substr(0, first));
            EXPECT_EQ(summary.new_tokens, static_cast<int64_t>(first + stop.size()) - 3);
        }
    }
    stopped.stops = StopStrings({text.substr(20) + "more", "abc"});
    run(stopped);
    EXPECT_EQ(texts_[0].end, GenerateEnd::token_count);
    EXPECT_EQ(text_, text) << "held back, then written; and the prompt does not stop";
}

TEST_F(GenerateLoopTest, ReportsAFailedWrite) {
    TokenStream stream(-1, TokenFormat::raw_bytes);
    const GenerateRequest one = request(5);
    GenerateLoop loop(*session_, one, stream);
    const GenerateSummary summary = loop.run();
    EXPECT_EQ(summary.write_errno, EBADF);
    EXPECT_EQ(summary.new_tokens, 0);
}

// In rounds of any size, each prompt becomes what it becomes alone with its seed; it ends where it
// would end alone.
TEST_F(GenerateLoopTest, PromptsInABatchBecomeWhatTheyBecomeAlone) {
    std::vector<std::vector<int32_t>> prompts;
    for (const char* text : {"first", "the second prompt of all, the longest", "x", "yy", "first"})
        prompts.push_back(bytes_of(text));
    GenerateRequest all = request(12);
    all.sampling = {1.2, 5, 40, 0.95, 1.1};
    all.eos_token = 'e';
    std::string expected;
    std::vector<TextSummary> alone;
    int64_t new_tokens = 0;
    for (size_t i = 0; i < prompts.size(); ++i) {
        GenerateRequest one = all;
        one.prompts = std::span(&prompts[i], 1);
        one.sampling.seed = 5 + i;
        new_tokens += run(one).new_tokens;
        alone.push_back(texts_[0]);
        expected += fmt::format("==> prompt {} of 5 <==\n{}\n", i + 1, text_);
    }
    EXPECT_EQ(alone[1].end, GenerateEnd::context);
    EXPECT_EQ(alone[2].end, GenerateEnd::token_count);
    all.prompts = prompts;
    for (const int64_t batch : {1, 2, 3, 5, 8}) {
        make_session(batch);
        const GenerateSummary summary = run(all);
        EXPECT_EQ(text_, expected) << batch;
        EXPECT_EQ(summary.new_tokens, new_tokens);
        EXPECT_EQ(summary.decoded_tokens, new_tokens - 5);
        ASSERT_EQ(texts_.size(), 5u);
        for (size_t i = 0; i < 5; ++i) {
            EXPECT_EQ(texts_[i].end, alone[i].end) << i;
            EXPECT_EQ(texts_[i].new_tokens, alone[i].new_tokens) << i;
        }
    }
    run(all, TokenFormat::ids);
    EXPECT_EQ(std::count(text_.begin(), text_.end(), '\n'), 5) << "a line each:\n" << text_;
}

}  // namespace
}  // namespace plumb
