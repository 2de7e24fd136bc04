#include <gtest/gtest.h>

#include <set>

#include "runtime/config/presets.h"
#include "runtime/config/settings.h"
#include "tests/runtime/config/error_of.h"

namespace plumb {
namespace {

std::string text_of(const char* name, const std::vector<std::string>& overrides = {}) {
    return settings_text(load_run(name, overrides));
}

TEST(SettingsText, KeysAreUniqueAndDescribed) {
    std::set<std::string> keys;
    for (const Setting& setting : settings()) {
        EXPECT_TRUE(keys.insert(setting.key).second) << setting.key;
        EXPECT_STRNE(setting.help, "") << setting.key;
        EXPECT_EQ(find_setting(setting.key), &setting);
    }
}

TEST(SettingsText, HelpNamesEverySettingAndPreset) {
    const std::string help = settings_help();
    for (const Setting& setting : settings())
        EXPECT_NE(help.find(std::string("--") + setting.key + "="), std::string::npos);
    for (const Preset& preset : presets())
        EXPECT_NE(help.find(std::string("  ") + preset.name + " "), std::string::npos);
    EXPECT_NE(help.find("124,439,808"), std::string::npos);
    EXPECT_NE(help.find("tensor_model_parallel_size"), std::string::npos);
    EXPECT_NE(help.find("default 0.0006"), std::string::npos);
}

// The text is itself a run file, so a checkpoint alone says all that its run was.
TEST(SettingsText, ReadsBackToTheSameConfig) {
    for (const Preset& preset : presets()) {
        const RunConfig config = load_run(preset.name);
        EXPECT_EQ(parse_settings_text(settings_text(config), "text"), config) << preset.name;
    }
    const RunConfig odd =
        load_run("llama3-8b",
                 {"--train.lr=0.1", "--train.eps=1.0000000000000002e-300",
                  "--data.train=a \"b\" \\ \xc3\xa4#", "--layout.recompute=block:3",
                  "--layout.reduction=exact", "--train.lr_schedule=wsd", "--model.mlp_bias=true",
                  "--run.memory=1.5GiB", "--train.seed=9000000000000000000"});
    EXPECT_EQ(parse_settings_text(settings_text(odd), "text"), odd);
}

// Every setting, changed alone, must show in the text and move exactly its own hash.
TEST(SettingsText, EachSettingMovesItsOwnHash) {
    const RunConfig base = load_run("llama2-7b");
    for (const Setting& setting : settings()) {
        if (!applies(setting, base.model.model_type)) continue;
        RunConfig changed = base;
        if (const auto* integer = std::get_if<int64_t* (*)(RunConfig&)>(&setting.field))
            *(*integer)(changed) += 1;
        else if (const auto* number = std::get_if<double* (*)(RunConfig&)>(&setting.field))
            *(*number)(changed) *= 1 + 1e-15;
        else if (const auto* flag = std::get_if<bool* (*)(RunConfig&)>(&setting.field))
            *(*flag)(changed) = !*(*flag)(changed);
        else if (const auto* text = std::get_if<std::string* (*)(RunConfig&)>(&setting.field))
            *(*text)(changed) += "x";
        else
            continue;
        EXPECT_EQ(differing_settings(settings_text(base), settings_text(changed)).size(), 1u)
            << setting.key;
        EXPECT_EQ(model_hash(base) != model_hash(changed), setting.group == HashGroup::model)
            << setting.key;
        EXPECT_EQ(training_hash(base) != training_hash(changed),
                  setting.group == HashGroup::training)
            << setting.key;
        EXPECT_EQ(layout_hash(base) != layout_hash(changed), setting.group == HashGroup::layout)
            << setting.key;
    }
    const RunConfig recompute = load_run("llama2-7b", {"--layout.recompute=block:1"});
    EXPECT_NE(layout_hash(base), layout_hash(recompute));
    EXPECT_EQ(training_hash(base), training_hash(recompute));
    const RunConfig wsd = load_run("llama2-7b", {"--train.lr_schedule=wsd"});
    EXPECT_NE(training_hash(base), training_hash(wsd));
    EXPECT_EQ(model_hash(base), model_hash(wsd));
}

TEST(SettingsText, TheFamilyIsInTheModelHash) {
    EXPECT_NE(model_hash(load_run("tiny")), model_hash(load_run("llama2-7b")));
    EXPECT_EQ(model_hash(load_run("tiny")), model_hash(load_run("tiny", {"--train.seed=5"})));
}

// A checkpoint written today must be readable next year: the spelling of the model text is fixed.
TEST(SettingsText, ModelTextIsCanonical) {
    EXPECT_EQ(settings_text(load_run("tiny"), HashGroup::model),
              "model.model_type = \"gpt2\"\n"
              "model.vocab_size = 256\n"
              "model.hidden_size = 128\n"
              "model.num_hidden_layers = 4\n"
              "model.num_attention_heads = 4\n"
              "model.intermediate_size = 512\n"
              "model.max_position_embeddings = 256\n"
              "model.layer_norm_epsilon = 1e-05\n"
              "model.tie_word_embeddings = true\n");
}

TEST(SettingsText, DifferencesArePrintedLineByLine) {
    const std::vector<std::string> expected = {
        "checkpoint.dir: \"run\" in the checkpoint, \"other\" now",
        "train.lr: 0.0006 in the checkpoint, 0.0003 now"};
    EXPECT_EQ(differing_settings(text_of("tiny"),
                                 text_of("tiny", {"--train.lr=3e-4", "--checkpoint.dir=other"})),
              expected);
    EXPECT_TRUE(differing_settings(text_of("tiny"), text_of("tiny")).empty());
    EXPECT_EQ(differing_settings("a = 1\n", "b = 2\n"),
              (std::vector<std::string>{"a: 1 in the checkpoint, absent now",
                                        "b: absent in the checkpoint, 2 now"}));
}

}  // namespace
}  // namespace plumb
