// `plumb-infer perplexity` as a user runs it, and the memory that both commands say they need.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "runtime/exec/seal.h"
#include "tests/infer/infer_program.h"

namespace plumb {
namespace {

TEST_F(PlumbInfer, Perplexity) {
    std::ofstream(path("text")) << "The quick brown fox jumps over the lazy dog, and once more: "
                                   "the quick brown fox jumps over the lazy dog.\n";
    ASSERT_EQ(perplexity("--text " + path("text")), 0) << error_;
    const auto value = [&](const char* name) {
        const size_t at = output_.find(name);
        return at == std::string::npos ? -1 : std::atof(output_.c_str() + at + std::strlen(name));
    };
    EXPECT_EQ(value("tokens: "), 104);
    const double loss = value("loss: ");
    EXPECT_GT(loss, 4.0);
    EXPECT_NEAR(value("perplexity: "), std::exp(loss), 1e-3 * std::exp(loss));
    EXPECT_NEAR(value("bits per byte: "), loss / std::log(2.0), 1e-6);
    // The sequences of the training had 8 tokens; the model's context has 64.
    EXPECT_EQ(output_.rfind("window: 8 tokens, one every 8\n", 0), 0u) << output_;
    expect_in_error(", windows of 8 tokens, 1 at once\nmemory: ");
    expect_in_error("\ntext: " + path("text") + ", 105 tokens, 13 windows every 8 tokens\n");
    expect_in_error("\npeak memory: ");
    // The same tokens as a token file, and the same windows at once.
    fs::copy(path("text"), path("t.bin"));
    std::ofstream(path("t.bin.json")) << "{\"width\": 1}";
    const std::string output = output_;
    ASSERT_EQ(perplexity("--batch 2 --threads 2 --tokens " + path("t.bin")), 0) << error_;
    EXPECT_NEAR(value("loss: "), loss, 1e-6);
    EXPECT_NE(output_.find("bits per byte: "), std::string::npos);
    ASSERT_EQ(perplexity("--window 64 --text " + path("text")), 0) << error_;
    EXPECT_EQ(output_.rfind("window: 64 tokens, one every 64\ntokens: 104\n", 0), 0u) << output_;
    EXPECT_NE(value("loss: "), loss);
    expect_in_error(" 2 windows every 64 tokens\n");
    ASSERT_EQ(perplexity("--window 16 --stride 4 --text " + path("text")), 0) << error_;
    EXPECT_EQ(value("tokens: "), 104);
    EXPECT_NE(output_, output);
    expect_in_error(" 23 windows every 4 tokens\n");
    save_checkpoint(small_config(ModelType::llama, 300, 16, path("ids")), 1);
    const std::string ids = "perplexity --checkpoint " + path("ids");
    ASSERT_EQ(run(ids + " --tokens " + path("t.bin")), 0) << error_;
    EXPECT_EQ(output_.find("bits per byte: "), std::string::npos) << "a token is no byte here";
    EXPECT_EQ(run(ids + " --text " + path("text")), 2);
    expect_one_error("--text: text is taken as bytes by models of at most 256 tokens");
}

TEST_F(PlumbInfer, RefusesTextsToMeasure) {
    std::ofstream(path("one")) << "x";
    std::ofstream(path("none")) << "";
    std::ofstream(path("ok")) << "some text";
    const std::pair<std::string, std::string> cases[] = {
        {"", "one of --text and --tokens is required (see plumb-infer perplexity --help)"},
        {"--text a --tokens b", "one of --text and --tokens is required"},
        {"--text " + path("nowhere"), "No such file"},
        {"--text " + path("none"), path("none")},
        {"--text " + path("one"), "has 1 token; at least 2 are needed"},
        {"--tokens " + path("ok"), "has no sidecar"},
        {"--window 0 --text " + path("ok"), "--window: 0 is below 1"},
        {"--window 65 --text " + path("ok"), "must be at most max_position_embeddings, 64"},
        {"--stride 9 --text " + path("ok"), "--stride: 9 is above the window of 8 tokens"},
        {"--stride -1 --text " + path("ok"), "--stride: -1 is below 0"},
        {"--batch 0 --text " + path("ok"), "batch.micro_batch is 0"},
        {"--prompt a --text " + path("ok"), "unknown argument: --prompt"},
    };
    for (const auto& [arguments, message] : cases) {
        EXPECT_EQ(perplexity(arguments), 2) << arguments << error_;
        expect_one_error(message);
    }
}

// 10 million parameters and a cache of 48 MiB, so that a copy of either would be seen.
TEST_F(PlumbInfer, PeakMemoryIsThePlan) {
    if (!seal_is_enforced()) GTEST_SKIP() << "the sanitizer's own memory is many times the plan";
    RunConfig config = small_config(ModelType::llama, 256, 4096, path("large"));
    config.model.hidden_size = 512;
    config.model.num_hidden_layers = 3;
    config.model.intermediate_size = 1536;
    config.model.num_attention_heads = config.model.num_key_value_heads = 8;
    config.model.head_dim = 64;
    complete_run(config, "large");
    save_checkpoint(config, 1);
    ASSERT_EQ(run("generate --prompt ab --max-new-tokens 2 --checkpoint " + path("large")), 0)
        << error_;
    expect_peak_is_planned();
    expect_planned(path("large"), Purpose::generate, {});
    // A batch has a cache for each prompt: 48 MiB each.
    ASSERT_EQ(run("generate --prompt ab --prompt c --prompt d --max-new-tokens 2 --checkpoint " +
                  path("large")),
              0)
        << error_;
    expect_peak_is_planned();
    expect_planned(path("large"), Purpose::generate, {"--generate.batch=3"});
    std::ofstream(path("text")) << std::string(1500, 'x');
    ASSERT_EQ(run("perplexity --window 1024 --batch 2 --text " + path("text") + " --checkpoint " +
                  path("large")),
              0)
        << error_;
    expect_peak_is_planned();
    expect_planned(
        path("large"), Purpose::score,
        {"--batch.sequence_length=1024", "--batch.micro_batch=2", "--batch.global_batch=2"});
}

}  // namespace
}  // namespace plumb
