// Where the loop ends, and what it has written by then.
#include "infer/generate_loop.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "tests/infer/small_checkpoint.h"

namespace plumb {
namespace {

class GenerateLoop : public ::testing::Test {
  protected:
    static constexpr int64_t kContext = 40;

    // Weights are initialised in a training session and copied: the generating one has no phase
    // that would make them.
    void SetUp() override {
        const RunConfig config = small_config(ModelType::llama, 256, kContext);
        Session trained(config, Purpose::train);
        trained.run_phase(PhaseKind::initialise);
        for (size_t p = 0; p < session_.program().params.size(); ++p) {
            const Param& param = session_.program().params[p];
            ASSERT_EQ(trained.program().params[p].name, param.name);
            const float* from = trained.executor().data<float>(trained.program().params[p].weight);
            std::copy_n(from, param.elements(), session_.executor().data<float>(param.weight));
        }
        ASSERT_EQ(::pipe(fds_), 0);
    }
    void TearDown() override {
        ::close(fds_[0]);
        ::close(fds_[1]);
    }

    GenerateSummary run(const GenerateRequest& request) {
        TokenStream stream(fds_[1], TokenFormat::raw_bytes);
        const GenerateSummary summary = generate(session_, request, stream);
        char buffer[4096];
        const auto size = ::read(fds_[0], buffer, sizeof buffer);
        text_.assign(buffer, size > 0 ? static_cast<size_t>(size) : 0);
        return summary;
    }

    static GenerateRequest request(int64_t max_new_tokens) {
        static constexpr int32_t kPrompt[] = {'a', 'b', 'c'};
        GenerateRequest request;
        request.prompt = kPrompt;
        request.prompt_count = 3;
        request.max_new_tokens = max_new_tokens;
        return request;
    }

    Session session_{small_config(ModelType::llama, 256, kContext), Purpose::generate};
    int fds_[2] = {-1, -1};
    std::string text_;
};

TEST_F(GenerateLoop, EndsAtTheTokenCount) {
    for (const int64_t count : {1, 2, 9}) {
        const GenerateSummary summary = run(request(count));
        EXPECT_EQ(summary.end, GenerateEnd::token_count);
        EXPECT_EQ(summary.prompt_tokens, 3);
        EXPECT_EQ(summary.new_tokens, count);
        EXPECT_EQ(text_.size(), static_cast<size_t>(3 + count));
        EXPECT_EQ(text_.substr(0, 3), "abc");
    }
}

// The last token is made from a full cache and never enters it.
TEST_F(GenerateLoop, EndsAtTheContext) {
    const GenerateSummary summary = run(request(1000));
    EXPECT_EQ(summary.end, GenerateEnd::context);
    EXPECT_EQ(summary.new_tokens, kContext - 3 + 1);
    EXPECT_EQ(text_.size(), static_cast<size_t>(kContext + 1));
    EXPECT_EQ(run(request(kContext - 3 + 1)).end, GenerateEnd::token_count);
}

TEST_F(GenerateLoop, EndsAtEosWithoutWritingIt) {
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
    EXPECT_EQ(summary.end, GenerateEnd::eos);
    EXPECT_EQ(summary.new_tokens, static_cast<int64_t>(last) - 3 + 1);
    EXPECT_EQ(text_, text.substr(0, last));
}

TEST_F(GenerateLoop, ReportsAFailedWrite) {
    TokenStream stream(-1, TokenFormat::raw_bytes);
    const GenerateSummary summary = generate(session_, request(5), stream);
    EXPECT_EQ(summary.end, GenerateEnd::write_failed);
    EXPECT_EQ(summary.write_errno, EBADF);
    EXPECT_EQ(summary.new_tokens, 0);
}

}  // namespace
}  // namespace plumb
