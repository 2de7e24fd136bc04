#include "runtime/config/model_spec.h"

#include <gtest/gtest.h>

#include "runtime/config/presets.h"
#include "tests/runtime/config/error_of.h"

namespace plumb {
namespace {

const ModelSpec& preset(const char* name) {
    return find_preset(name)->model;
}

ModelSpec small_llama() {
    ModelSpec m = model_defaults(ModelType::llama);
    m.vocab_size = 11;
    m.hidden_size = 12;
    m.num_hidden_layers = 1;
    m.num_attention_heads = 3;
    m.intermediate_size = 7;
    m.max_position_embeddings = 5;
    return m;
}

// GPT-2, Llama 2 and Llama 3 as counted from the published weights; OPT-1.3B has 1,315,758,080, of
// which two rows of 2048 positions are padding that the shape preset has not.
TEST(ModelSpec, PresetsHaveThePublishedParameterCounts) {
    EXPECT_EQ(parameter_count(preset("gpt2-124m")), 124439808);
    EXPECT_EQ(parameter_count(preset("gpt2-355m")), 354823168);
    EXPECT_EQ(parameter_count(preset("gpt2-774m")), 774030080);
    EXPECT_EQ(parameter_count(preset("gpt2-1558m")), 1557611200);
    EXPECT_EQ(parameter_count(preset("opt-1.3b")), 1315758080 - 2 * 2048);
    EXPECT_EQ(parameter_count(preset("llama2-7b")), 6738415616);
    EXPECT_EQ(parameter_count(preset("llama2-13b")), 13015864320);
    EXPECT_EQ(parameter_count(preset("llama2-70b")), 68976648192);
    EXPECT_EQ(parameter_count(preset("llama3-8b")), 8030261248);
}

// 12 C^2 + 13 C per block, V C + T C + 2 C at the ends.
TEST(ModelSpec, Gpt3CountsFollowTheFormula) {
    const auto count = [](int64_t c, int64_t layers) {
        return layers * (12 * c * c + 13 * c) + (50257 + 2048 + 2) * c;
    };
    EXPECT_EQ(parameter_count(preset("gpt3-13b")), count(5120, 40));
    EXPECT_EQ(parameter_count(preset("gpt3-175b")), count(12288, 96));
    EXPECT_NEAR(static_cast<double>(parameter_count(preset("gpt3-175b"))), 175e9, 1e9);
}

TEST(ModelSpec, BiasesAndAnUntiedHeadAreCounted) {
    ModelSpec m = small_llama();
    complete_model(m, "test");
    const int64_t plain = parameter_count(m);
    // q, k, v, o: 4 x 12 x 12; gate, up, down: 3 x 12 x 7; two block norms and the last one: 36.
    EXPECT_EQ(plain, 2 * 11 * 12 + 4 * 144 + 3 * 84 + 36);
    m.attention_bias = true;
    EXPECT_EQ(parameter_count(m) - plain, 4 * 12);
    m.mlp_bias = true;
    EXPECT_EQ(parameter_count(m) - plain, 4 * 12 + 2 * 7 + 12);
    m.tie_word_embeddings = true;
    EXPECT_EQ(parameter_count(m) - plain, 4 * 12 + 2 * 7 + 12 - 11 * 12);
}

// By hand for GPT-2 124M: 12 blocks of 12 C^2 and the head V C; look-ups, biases, norms do not
// count.
TEST(ModelSpec, FlopsPerTokenCountMatmulsAndAttention) {
    const ModelSpec& m = preset("gpt2-124m");
    const int64_t n = 12 * 12 * 768 * 768 + 50257 * 768;
    EXPECT_EQ(matmul_parameter_count(m), n);
    EXPECT_EQ(flops_per_token(m, 1024), 6.0 * static_cast<double>(n) + 6.0 * 12 * 768 * 1024);
    ModelSpec tied = small_llama();
    complete_model(tied, "test");
    ModelSpec untied = tied;
    tied.tie_word_embeddings = true;
    EXPECT_EQ(matmul_parameter_count(tied), matmul_parameter_count(untied));
}

TEST(ModelSpec, DerivesWhatIsLeftOut) {
    ModelSpec m = small_llama();
    complete_model(m, "test");
    EXPECT_EQ(m.num_key_value_heads, 3);
    EXPECT_EQ(m.head_dim, 4);
    EXPECT_EQ(preset("tiny").intermediate_size, 4 * 128);
    ModelSpec again = m;
    complete_model(again, "test");
    EXPECT_EQ(again, m);
}

TEST(ModelSpec, HiddenSizeMustDivideByHeads) {
    ModelSpec m = small_llama();
    m.num_attention_heads = 5;
    EXPECT_EQ(error_of([&] { complete_model(m, "x"); }),
              "x: model: hidden_size 12 is not divisible by num_attention_heads 5");
}

TEST(ModelSpec, KeyValueHeadsMustDivideHeads) {
    ModelSpec m = small_llama();
    m.num_key_value_heads = 2;
    EXPECT_EQ(error_of([&] { complete_model(m, "x"); }),
              "x: model: num_key_value_heads 2 does not divide num_attention_heads 3");
}

TEST(ModelSpec, RopeNeedsAnEvenHead) {
    ModelSpec m = small_llama();
    m.hidden_size = 9;
    EXPECT_EQ(error_of([&] { complete_model(m, "x"); }),
              "x: model: head_dim 3 is odd; rotary embedding turns pairs, so it must be even");
    m.model_type = ModelType::gpt2;
    m.attention_bias = m.mlp_bias = true;
    complete_model(m, "x");  // learned positions do not mind
}

TEST(ModelSpec, MissingSizesAreNamed) {
    ModelSpec m = model_defaults(ModelType::gpt2);
    m.vocab_size = 10;
    EXPECT_EQ(error_of([&] { complete_model(m, "x"); }),
              "x: model: hidden_size (n_embd) is missing; it must be at least 1");
    m = small_llama();
    m.intermediate_size = 0;
    EXPECT_EQ(error_of([&] { complete_model(m, "x"); }),
              "x: model: intermediate_size is missing; it must be at least 1");
}

TEST(ModelSpec, TokenIdsMustLieInTheVocabulary) {
    check_token_id(0, 257, "prompt");
    check_token_id(256, 257, "prompt");
    EXPECT_EQ(error_of([] { check_token_id(257, 257, "prompt"); }),
              "prompt: token id 257 is outside the vocabulary; it must be from 0 to 256");
    error_of([] { check_token_id(-1, 257, "prompt"); });
    ModelSpec m = small_llama();
    m.eos_token_id = 11;
    EXPECT_EQ(error_of([&] { complete_model(m, "x"); }),
              "x: eos_token_id: token id 11 is outside the vocabulary; it must be from 0 to 10");
}

TEST(ModelSpec, CountsThatOverflowAreErrors) {
    ModelSpec m = small_llama();
    m.hidden_size = m.num_attention_heads = int64_t{1} << 40;
    m.head_dim = 2;
    m.intermediate_size = int64_t{1} << 40;
    EXPECT_NE(error_of([&] { complete_model(m, "x"); }).find("does not fit 63 bits"),
              std::string::npos);
}

}  // namespace
}  // namespace plumb
