// Arbitrary bytes as a run file, config.json or override either give a complete config or an Error;
// nothing else may happen. Mutations of valid files reach deeper than noise does. The counter-based
// generator makes every run the same.
#include <gtest/gtest.h>

#include <string>

#include "runtime/base/random.h"
#include "runtime/config/hf_config.h"
#include "runtime/config/run_config.h"
#include "tests/runtime/config/error_of.h"

namespace plumb {
namespace {

constexpr const char* kRunFile =
    "preset = \"tiny\" # comment\n[model]\nn_layer = 2\n[batch]\nmicro_batch = 4\n"
    "[train]\nlr = 6e-4\nlr_schedule = \"cosine\"\nsteps = 1_000\n[run]\nmemory = \"8GiB\"\n"
    "layout = { data = 1, recompute = 'block:2' }\n[data]\ntrain = \"a\\u00e4.bin\"\n"
    "x = [1, {y.z = 0x1F}, 1979-05-27T07:32:00Z]\n";

constexpr const char* kConfigFile =
    R"({"model_type": "llama", "vocab_size": 32, "hidden_size": 8, "num_hidden_layers": 2,
 "num_attention_heads": 2, "intermediate_size": 12, "max_position_embeddings": 16,
 "rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}, "eos_token_id": [3, 5],
 "layer_types": ["full_attention"], "x": "\ud83d\ude00\n", "rms_norm_eps": 1e-05, "mlp_bias": null})";

class Dice {
  public:
    explicit Dice(uint64_t key) : key_(key) {}
    size_t below(size_t bound) { return philox(key_, count_++, 0).word[0] % bound; }

  private:
    uint64_t key_;
    uint64_t count_ = 0;
};

std::string mutated(std::string text, Dice& dice) {
    static const std::string kTokens[] = {
        "[",     "]", "{", "}",  "\"",  "'",    "=",   ".",   "#",    ",",
        "-",     "e", "1", "\n", "\\u", "\xff", "nan", "inf", "true", "9223372036854775808",
        "\"\"\""};
    for (size_t edits = 1 + dice.below(6); edits > 0; --edits) {
        const size_t at = dice.below(text.size() + 1);
        switch (dice.below(5)) {
            case 0:
                if (at < text.size()) text[at] = static_cast<char>(dice.below(256));
                break;
            case 1:
                text.insert(at, kTokens[dice.below(std::size(kTokens))]);
                break;
            case 2:
                text.erase(at, 1 + dice.below(8));
                break;
            case 3:
                text.insert(at, text.substr(dice.below(text.size() + 1), dice.below(40)));
                break;
            default:
                text.insert(at, std::string(1 + dice.below(300), "[{.\"a1 \t"[dice.below(8)]));
        }
        if (text.empty()) text = " ";
    }
    return text;
}

template <typename Parse>
void survive(const char* seed_text, uint64_t key, int inputs, Parse parse) {
    Dice dice(key);
    int accepted = 0;
    int refused = 0;
    for (int i = 0; i < inputs; ++i) {
        const std::string text = i == 0 ? seed_text : mutated(seed_text, dice);
        try {
            parse(text);
            ++accepted;
        } catch (const Error& error) {
            EXPECT_EQ(error.code(), ExitCode::bad_input) << error.what();
            EXPECT_FALSE(std::string(error.what()).empty());
            ++refused;
        }
    }
    // Both ends of every parser were reached.
    EXPECT_GT(accepted, 0);
    EXPECT_GT(refused, inputs / 4);
}

TEST(HostileInput, RunFiles) {
    // Unknown keys would end most inputs early: the seed's last lines are cut off in the second
    // run.
    const std::string known = std::string(kRunFile).substr(0, std::string(kRunFile).find("layout"));
    survive(known.c_str(), 1, 4000, [](const std::string& text) { parse_run(text, "r.toml", ""); });
    Dice dice(2);
    for (int i = 0; i < 4000; ++i) {
        const std::string text = mutated(kRunFile, dice);
        error_of([&] { parse_run(text, "r.toml", ""); });
        if (HasFailure()) FAIL() << text;
    }
}

TEST(HostileInput, ConfigFiles) {
    survive(kConfigFile, 3, 4000, [](const std::string& text) { parse_hf_config(text, "c.json"); });
}

TEST(HostileInput, Overrides) {
    survive("--batch.micro_batch=2", 4, 1000,
            [](const std::string& text) { load_run("tiny", {text}); });
    survive("--run.memory=1.5GiB", 5, 1000,
            [](const std::string& text) { load_run("tiny", {text}); });
}

TEST(HostileInput, Noise) {
    Dice dice(6);
    for (int i = 0; i < 2000; ++i) {
        std::string text(dice.below(400), '\0');
        for (char& c : text) c = static_cast<char>(dice.below(256));
        error_of([&] { parse_run(text, "r.toml", ""); });
        error_of([&] { parse_hf_config(text, "c.json"); });
    }
}

}  // namespace
}  // namespace plumb
