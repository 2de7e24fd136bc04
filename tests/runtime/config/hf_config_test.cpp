#include "runtime/config/hf_config.h"

#include <gtest/gtest.h>

#include "runtime/config/presets.h"
#include "tests/runtime/config/error_of.h"

namespace plumb {
namespace {

// The config.json that Hugging Face publishes with gpt2.
constexpr const char* kGpt2 = R"({
  "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1,
  "bos_token_id": 50256, "embd_pdrop": 0.1, "eos_token_id": 50256, "initializer_range": 0.02,
  "layer_norm_epsilon": 1e-05, "model_type": "gpt2", "n_ctx": 1024, "n_embd": 768, "n_head": 12,
  "n_layer": 12, "n_positions": 1024, "resid_pdrop": 0.1, "summary_activation": null,
  "summary_first_dropout": 0.1, "summary_type": "cls_index", "summary_use_proj": true,
  "task_specific_params": {"text-generation": {"do_sample": true, "max_length": 50}},
  "vocab_size": 50257
})";

// The shape of a Llama 3 file; rope_theta at top level as in transformers 4.
constexpr const char* kLlama = R"({
  "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
  "bos_token_id": 128000, "eos_token_id": 128001, "hidden_act": "silu", "hidden_size": 4096,
  "initializer_range": 0.02, "intermediate_size": 14336, "max_position_embeddings": 8192,
  "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 32,
  "num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": null,
  "rope_theta": 500000.0, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
  "use_cache": true, "vocab_size": 128256
})";

// `text` with the first `from` replaced.
std::string with(std::string text, const std::string& from, const std::string& to) {
    const size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return text.replace(at, from.size(), to);
}

ModelSpec complete(const std::string& text) {
    ModelSpec model = parse_hf_config(text, "c.json");
    complete_model(model, "c.json");
    return model;
}

std::string error_in(const std::string& text) {
    return error_of([&] { parse_hf_config(text, "c.json"); });
}

TEST(HfConfig, PublishedFilesGiveThePresets) {
    EXPECT_EQ(complete(kGpt2), find_preset("gpt2-124m")->model);
    EXPECT_EQ(complete(kLlama), find_preset("llama3-8b")->model);
}

TEST(HfConfig, RopeParametersOfNewerFilesAreReadWhenPlain) {
    const std::string old_keys = R"("rope_scaling": null,
  "rope_theta": 500000.0)";
    EXPECT_EQ(complete(with(kLlama, old_keys,
                            R"("rope_parameters": {"rope_theta": 500000.0,
                               "rope_type": "default"})")),
              find_preset("llama3-8b")->model);
    EXPECT_EQ(
        error_in(with(kLlama, "\"rope_scaling\": null",
                      R"("rope_scaling": {"rope_type": "llama3", "factor": 8.0})")),
        "c.json: rope_scaling has \"factor\": 8.0; only plain RoPE (rope_type \"default\") is "
        "supported");
}

TEST(HfConfig, AbsentKeysHaveHuggingFacesDefaults) {
    const ModelSpec m = complete(R"({"model_type": "llama", "vocab_size": 32, "hidden_size": 8,
        "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12,
        "max_position_embeddings": 16})");
    EXPECT_EQ(m.norm_eps, 1e-6);
    EXPECT_EQ(m.rope_theta, 10000);
    EXPECT_EQ(m.num_key_value_heads, 2);
    EXPECT_FALSE(m.tie_word_embeddings);
    EXPECT_FALSE(m.attention_bias);
    EXPECT_EQ(m.eos_token_id, -1);
}

TEST(HfConfig, ReadsWhatLlamaMayChoose) {
    const ModelSpec m = complete(R"({"model_type": "llama", "vocab_size": 32, "hidden_size": 8,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 6,
        "intermediate_size": 12, "max_position_embeddings": 16, "attention_bias": true,
        "mlp_bias": true, "tie_word_embeddings": true, "eos_token_id": [3, 5]})");
    EXPECT_EQ(m.head_dim, 6);
    EXPECT_EQ(m.num_key_value_heads, 1);
    EXPECT_TRUE(m.attention_bias && m.mlp_bias && m.tie_word_embeddings);
    EXPECT_EQ(m.eos_token_id, 3);
}

TEST(HfConfig, OldGpt2FilesCallPositionsContext) {
    EXPECT_EQ(complete(with(kGpt2, "\"n_positions\": 1024, ", "")).max_position_embeddings, 1024);
    EXPECT_EQ(complete(with(kGpt2, "gelu_new", "gelu_pytorch_tanh")).intermediate_size, 3072);
    EXPECT_EQ(complete(with(kGpt2, "{", "{\"n_inner\": 100,")).intermediate_size, 100);
    EXPECT_EQ(complete(with(kGpt2, "{", "{\"n_inner\": null,")).intermediate_size, 3072);
}

TEST(HfConfig, KeysThatChangeTheMathematicsAreRejectedByName) {
    EXPECT_EQ(error_in(with(kGpt2, "gelu_new", "relu")),
              "c.json: activation_function is \"relu\"; supported: \"gelu_new\", "
              "\"gelu_pytorch_tanh\"");
    EXPECT_EQ(error_in(with(kGpt2, "{", "{\"scale_attn_by_inverse_layer_idx\": true,")),
              "c.json: scale_attn_by_inverse_layer_idx is true; supported: false");
    EXPECT_EQ(error_in(with(kGpt2, "{", "{\"scale_attn_weights\": false,")),
              "c.json: scale_attn_weights is false; supported: true");
    EXPECT_EQ(error_in(with(kLlama, "silu", "gelu")),
              "c.json: hidden_act is \"gelu\"; supported: \"silu\"");
    EXPECT_EQ(error_in(with(kLlama, "{", "{\"sliding_window\": 4096,")),
              "c.json: sliding_window is 4096; it changes the model and is supported only when "
              "null");
    EXPECT_EQ(error_in(with(kLlama, "{", "{\"layer_types\": [\"sliding_attention\"],")),
              "c.json: layer_types has \"sliding_attention\"; supported: \"full_attention\"");
    // These hold their neutral values, or change where things are computed and not what.
    complete(with(kGpt2, "{", "{\"scale_attn_weights\": true, \"reorder_and_upcast_attn\": true,"));
    complete(
        with(kLlama, "{", "{\"sliding_window\": null, \"layer_types\": [\"full_attention\"],"));
}

TEST(HfConfig, OtherFamiliesAreRejected) {
    EXPECT_EQ(error_in(R"({"model_type": "mixtral"})"),
              "c.json: model_type is \"mixtral\"; supported: \"gpt2\", \"llama\"");
    EXPECT_EQ(error_in("{}"), "c.json: model_type is missing; supported: \"gpt2\", \"llama\"");
    EXPECT_EQ(error_in("[1]"), "c.json: holds [1]; it must be a table");
}

TEST(HfConfig, WrongTypesNameBoth) {
    EXPECT_EQ(error_in(with(kGpt2, "\"n_embd\": 768", "\"n_embd\": \"768\"")),
              "c.json: n_embd: model.hidden_size is the text \"768\"; it must be an integer");
    EXPECT_EQ(error_in(with(kGpt2, "\"n_embd\": 768", "\"n_embd\": [768]")),
              "c.json: n_embd: model.hidden_size is a list; it must be an integer");
    EXPECT_EQ(error_in(with(kGpt2, "\"n_embd\": 768", "\"n_embd\": 768.5")),
              "c.json: n_embd: model.hidden_size is the number 768.5; it must be an integer");
}

TEST(HfConfig, RangesAndOverflow) {
    EXPECT_EQ(error_in(with(kGpt2, "\"n_layer\": 12", "\"n_layer\": -1")),
              "c.json: n_layer: model.num_hidden_layers is -1; it must be from 1 to 4096");
    EXPECT_EQ(error_in(with(kGpt2, "\"n_layer\": 12", "\"n_layer\": 18446744073709551615")),
              "c.json: n_layer: the integer 18446744073709551615 does not fit 63 bits");
    EXPECT_EQ(error_in(with(kGpt2, "\"n_head\": 12", "\"n_head\": 11")),
              "c.json: model: hidden_size 768 is not divisible by num_attention_heads 11");
}

TEST(HfConfig, TwoNamesOfOneSettingMustAgree) {
    EXPECT_EQ(error_in(with(kGpt2, "{", "{\"hidden_size\": 512,")),
              "c.json: hidden_size is 512 but n_embd is 768; they must be equal");
}

TEST(HfConfig, MalformedJsonHasItsPlace) {
    EXPECT_EQ(error_in("{\n  \"a\": 1,\n  \"b\" 2\n}").substr(0, 22), "c.json:3:7: not JSON: ");
    EXPECT_EQ(error_in("").substr(0, 22), "c.json:1:1: not JSON: ");
}

TEST(HfConfig, NestingIsBounded) {
    const std::string bomb(500000, '[');
    EXPECT_EQ(error_in(bomb), "c.json: nested more than 32 levels deep");
    std::string objects;
    for (int i = 0; i < 100000; ++i) objects += "{\"a\":";
    EXPECT_EQ(error_in(objects), "c.json: nested more than 32 levels deep");
}

}  // namespace
}  // namespace plumb
