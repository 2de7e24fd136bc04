#include "runtime/config/run_config.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "runtime/config/presets.h"
#include "tests/runtime/config/error_of.h"

namespace plumb {
namespace {

RunConfig parse(const std::string& text, const std::vector<std::string>& overrides = {}) {
    return parse_run(text, "r.toml", "", overrides);
}

// A preset's settings with one override.
std::string override_error(const std::string& override) {
    return error_of([&] { load_run("tiny", {override}); });
}

std::string file_error(const std::string& text) {
    return error_of([&] { parse("preset = \"tiny\"\n" + text); });
}

TEST(RunConfig, EveryPresetLoads) {
    ASSERT_EQ(presets().size(), 12u);
    for (const Preset& preset : presets()) {
        const RunConfig config = load_run(preset.name);
        EXPECT_EQ(config.model, preset.model) << preset.name;
        EXPECT_EQ(config.run.batch.sequence_length, preset.model.max_position_embeddings);
    }
}

TEST(RunConfig, ReadsEveryTable) {
    const RunConfig c = parse(R"(
preset = "tiny"
[layout]
data = 1
zero = 0
reduction = "exact"
schedule = "1f1b"
recompute = "block:2"
[batch]
sequence_length = 64
micro_batch = 2
global_batch = 6
[train]
steps = 100
stop_at = 60
seed = 9223372036854775
dtype = "fp32"
lr = 1
min_lr = 6e-5
warmup_steps = 3
lr_schedule = "wsd"
beta1 = 0.8
clip = 0.5
loss_chunk = 32
[data]
train = "data/train.bin"
[checkpoint]
dir = "elsewhere"
every = 0
resume = "never"
chunk_bytes = "64KiB"
[generate]
context = 32
prefill_chunk = 16
[run]
device = "cpu-avx512"
threads = 2
memory = "1.5GiB"
tf32 = true
)");
    EXPECT_EQ(c.layout.reduction, Reduction::exact);
    EXPECT_EQ(c.layout.recompute, (Recompute{RecomputeKind::block, 2}));
    EXPECT_EQ(c.run.batch.micro_batch_count(), 3);
    EXPECT_EQ(c.run.batch.step_tokens(), 384);
    EXPECT_EQ(c.run.train.stop_at, 60);
    EXPECT_EQ(c.run.train.seed, 9223372036854775);
    EXPECT_EQ(c.run.train.lr, 1.0);
    EXPECT_EQ(c.run.train.lr_schedule, LrSchedule::wsd);
    EXPECT_EQ(c.run.train.decay_steps, 10);
    EXPECT_EQ(c.run.train.loss_chunk, 32);
    EXPECT_EQ(c.run.data.train, "data/train.bin");
    EXPECT_EQ(c.run.checkpoint.every, 0);
    EXPECT_EQ(c.run.checkpoint.chunk_bytes, 65536);
    EXPECT_EQ(c.run.generate.context, 32);
    EXPECT_EQ(c.run.generate.prefill_chunk, 16);
    EXPECT_EQ(c.run.run.device, "cpu-avx512");
    EXPECT_EQ(c.run.run.memory, int64_t{3} << 29);
    EXPECT_TRUE(c.run.run.tf32);
}

TEST(RunConfig, OverridesComeLastAndInOrder) {
    const RunConfig c = parse("preset = \"tiny\"\n[train]\nsteps = 5\n",
                              {"--train.steps=6", "train.steps=7", "--run.memory=512MiB",
                               "--train.lr=1e-3", "--checkpoint.dir=1", "--model.n_embd=256"});
    EXPECT_EQ(c.run.train.steps, 7);
    EXPECT_EQ(c.run.run.memory, int64_t{512} << 20);
    EXPECT_EQ(c.run.train.lr, 1e-3);
    EXPECT_EQ(c.run.checkpoint.dir, "1");
    EXPECT_EQ(c.model.hidden_size, 256);
    EXPECT_EQ(c.model.intermediate_size, 1024);  // derived after overrides
    EXPECT_EQ(parse("preset = \"tiny\"\n", {"--preset=gpt2-124m"}).model,
              find_preset("gpt2-124m")->model);
}

TEST(RunConfig, AModelTableStandsAloneOrOverridesAPreset) {
    const RunConfig alone = parse(R"(
[model]
model_type = "llama"
vocab_size = 100
hidden_size = 64
num_hidden_layers = 2
num_attention_heads = 4
num_key_value_heads = 2
intermediate_size = 96
max_position_embeddings = 32
rms_norm_eps = 1e-4
)");
    EXPECT_EQ(alone.model.norm_eps, 1e-4);
    EXPECT_EQ(alone.model.rope_theta, 10000);
    EXPECT_FALSE(alone.model.tie_word_embeddings);
    const RunConfig mixed = parse("preset = \"llama2-7b\"\n[model]\nnum_hidden_layers = 2\n");
    EXPECT_EQ(mixed.model.num_hidden_layers, 2);
    EXPECT_EQ(mixed.model.intermediate_size, 11008);
    EXPECT_NE(error_of([] { parse("[train]\nsteps = 3\n"); }).find("r.toml: no model: it needs"),
              std::string::npos);
    EXPECT_EQ(error_of([] { parse("preset = \"tiny\"\n[model]\nmodel_type = \"llama\"\n"); }),
              "r.toml:3:1: model.model_type is llama, but tiny is gpt2; the family cannot be "
              "overridden");
    EXPECT_EQ(error_of([] { parse("preset = \"tiny\"\nmodel = \"c.json\"\n"); }),
              "r.toml:2:1: preset and model are two models; give one");
}

TEST(RunConfig, FilesAreFoundFromTheirPlaces) {
    const std::filesystem::path folder =
        std::filesystem::temp_directory_path() / ("plumb_config_" + std::to_string(getpid()));
    std::filesystem::create_directories(folder);
    std::ofstream(folder / "config.json")
        << R"({"model_type": "gpt2", "vocab_size": 31, "n_embd": 8, "n_layer": 1, "n_head": 2,
               "n_positions": 16})";
    std::ofstream(folder / "run.toml") << "model = \"config.json\"\n[train]\nsteps = 3\n";
    const RunConfig from_run = load_run((folder / "run.toml").string());
    const RunConfig from_model = load_run((folder / "config.json").string(), {"--train.steps=3"});
    std::filesystem::remove_all(folder);
    EXPECT_EQ(from_run.model.vocab_size, 31);
    EXPECT_EQ(from_run.model.intermediate_size, 32);
    EXPECT_EQ(from_run, from_model);
    error_of([&] { load_run((folder / "run.toml").string()); }, ExitCode::io);
}

TEST(RunConfig, UnknownKeysNameTheNearest) {
    EXPECT_EQ(file_error("[train]\nwarmup_step = 3\n"),
              "r.toml:3:1: unknown key \"train.warmup_step\"; the nearest is train.warmup_steps");
    EXPECT_EQ(override_error("--trian.lr=1"),
              "--trian.lr=1: unknown key \"trian.lr\"; the nearest is train.lr");
    EXPECT_EQ(file_error("pre = 1\n"), "r.toml:2:1: unknown key \"pre\"; the nearest is preset");
    EXPECT_EQ(file_error("[trian]\n"), "r.toml:2:2: unknown key \"trian\"; the nearest is train");
    EXPECT_EQ(override_error("--train.lr"),
              "--train.lr: settings are written --section.key=value; there is no '='");
    EXPECT_EQ(file_error("train = 5\n"), "r.toml:2:1: train is the integer 5; it must be a table");
    EXPECT_EQ(file_error("[train]\nlr.x = 1\n"),
              "r.toml:3:1: train.lr is a table; it must be a number");
    parse("preset = \"tiny\"\n[train]\n");  // an empty section says nothing
}

TEST(RunConfig, UnknownPresetsNameTheNearest) {
    EXPECT_EQ(error_of([] { load_run("gpt2-124"); }),
              "gpt2-124: no preset or file is called \"gpt2-124\"; the nearest is gpt2-124m");
    EXPECT_EQ(error_of([] { parse("preset = \"llama2-7\"\n"); }),
              "r.toml:1:1: no preset is called \"llama2-7\"; the nearest is llama2-7b");
    EXPECT_EQ(error_of([] { parse("preset = 2\n"); }),
              "r.toml:1:1: preset is the integer 2; it must be a text");
}

TEST(RunConfig, WrongTypesNameBoth) {
    EXPECT_EQ(file_error("[batch]\nmicro_batch = \"four\"\n"),
              "r.toml:3:1: batch.micro_batch is the text \"four\"; it must be an integer");
    EXPECT_EQ(file_error("[train]\nlr = true\n"),
              "r.toml:3:1: train.lr is the boolean true; it must be a number");
    EXPECT_EQ(file_error("[data]\ntrain = [\"a\", \"b\"]\n"),
              "r.toml:3:1: data.train is a list; it must be a text");
    EXPECT_EQ(file_error("[model]\ntie_word_embeddings = 1\n"),
              "r.toml:3:1: model.tie_word_embeddings is the integer 1; it must be true or false");
    EXPECT_EQ(file_error("[run]\nmemory = 1.5\n"),
              "r.toml:3:1: run.memory is the number 1.5; it must be a size");
    EXPECT_EQ(file_error("[train]\nsteps = 1979-05-27\n"),
              "r.toml:3:1: train.steps is a date or time; it must be an integer");
    EXPECT_EQ(override_error("--batch.micro_batch=four"),
              "--batch.micro_batch=four: batch.micro_batch is the text \"four\"; it must be an "
              "integer");
    EXPECT_EQ(
        override_error("--batch.micro_batch=1.5"),
        "--batch.micro_batch=1.5: batch.micro_batch is the number 1.5; it must be an integer");
    EXPECT_EQ(override_error("--train.lr="),
              "--train.lr=: train.lr is the text \"\"; it must be a "
              "number");
}

TEST(RunConfig, OutOfRangeNamesValueAndRange) {
    EXPECT_EQ(file_error("[batch]\nmicro_batch = 0\n"),
              "r.toml:3:1: batch.micro_batch is 0; it must be from 1 to 1048576");
    EXPECT_EQ(override_error("--train.beta2=1"),
              "--train.beta2=1: train.beta2 is 1; it must be from 0 to 0.999999999");
    EXPECT_EQ(override_error("--checkpoint.chunk_bytes=32MiB"),
              "--checkpoint.chunk_bytes=32MiB: checkpoint.chunk_bytes is 33554432; it must be from "
              "1024 to 16777216");
    file_error("[train]\nlr = nan\n");
    file_error("[train]\nlr = -inf\n");
    override_error("--train.lr=nan");
    EXPECT_EQ(override_error("--train.lr_schedule=step"),
              "--train.lr_schedule=step: train.lr_schedule is \"step\"; it must be one of cosine, "
              "linear, constant, wsd");
    EXPECT_EQ(override_error("--layout.recompute=block:0"),
              "--layout.recompute=block:0: layout.recompute is \"block:0\"; it must be one of "
              "none, selective, attention, or block:K with K from 1 to 65536");
    EXPECT_EQ(
        override_error("--train.dtype=int8"),
        "--train.dtype=int8: train.dtype is \"int8\"; it must be one of auto, fp32, bf16, fp16");
}

TEST(RunConfig, OverflowIsAnError) {
    EXPECT_EQ(
        override_error("--train.steps=99999999999999999999"),
        "--train.steps=99999999999999999999: the integer 99999999999999999999 does not fit 63 "
        "bits");
    EXPECT_NE(override_error("--run.memory=99999999TiB").find("does not fit 63 bits"),
              std::string::npos);
    const std::vector<std::string> huge = {
        "--model.vocab_size=2147483647",  "--model.hidden_size=16777216",
        "--model.num_hidden_layers=4096", "--model.num_attention_heads=65536",
        "--model.head_dim=65536",         "--model.intermediate_size=16777216"};
    EXPECT_NE(error_of([&] { load_run("llama2-7b", huge); }).find("does not fit 63 bits"),
              std::string::npos);
    EXPECT_NE(error_of([] {
                  load_run("llama2-7b",
                           {"--batch.sequence_length=2147483647", "--batch.micro_batch=1048576",
                            "--batch.global_batch=1048576"});
              }).find("does not fit 63 bits"),
              std::string::npos);
}

TEST(RunConfig, WhatIsNotSupportedYetSaysSo) {
    for (const char* axis : {"data", "pipeline", "tensor", "context", "expert"}) {
        const std::string key = std::string("layout.") + axis;
        EXPECT_EQ(override_error(key + "=2"),
                  key + "=2: not supported yet: " + key + " found 2, supported 1");
    }
    EXPECT_EQ(file_error("[layout]\nzero = 3\n"),
              "r.toml:3:1: not supported yet: layout.zero found 3, supported 0");
    EXPECT_EQ(file_error("[layout]\nschedule = \"zb-h1\"\n"),
              "r.toml:3:1: not supported yet: layout.schedule found \"zb-h1\", supported \"1f1b\"");
    EXPECT_EQ(file_error("[layout]\nzero = 4\n"),
              "r.toml:3:1: layout.zero is 4; it must be from 0 to 3");
}

TEST(RunConfig, SettingsThatMustAgree) {
    EXPECT_EQ(override_error("--batch.global_batch=30"),
              "tiny: batch.global_batch is 30; it must be a multiple of batch.micro_batch, 4");
    EXPECT_EQ(
        override_error("--batch.sequence_length=257"),
        "tiny: batch.sequence_length is 257; it must be at most max_position_embeddings, 256");
    EXPECT_EQ(override_error("--batch.global_batch=262148"),
              "tiny: batch.global_batch is 262148 and batch.micro_batch 4: 65537 micro-batches; a "
              "step has at most 65536");
    EXPECT_EQ(override_error("--model.num_hidden_layers=4097"),
              "--model.num_hidden_layers=4097: model.num_hidden_layers is 4097; it must be from 1 "
              "to 4096");
    EXPECT_EQ(override_error("--checkpoint.dir="),
              "tiny: checkpoint.dir is empty; it must name a folder, . for the current one");
    EXPECT_EQ(override_error("--train.warmup_steps=201"),
              "tiny: train.warmup_steps is 201; it must be at most train.steps, 200");
    load_run("tiny", {"--train.warmup_steps=200", "--batch.global_batch=262144"});
    EXPECT_EQ(override_error("--train.min_lr=1"),
              "tiny: train.min_lr is 1; it must be at most train.lr, 0.0006");
    EXPECT_EQ(
        override_error("--train.loss_chunk=1025"),
        "tiny: train.loss_chunk is 1025; it must be at most the tokens of a micro-batch, 1024");
    EXPECT_EQ(override_error("--checkpoint.chunk_bytes=1030"),
              "tiny: checkpoint.chunk_bytes is 1030; it must be a multiple of 16");
    EXPECT_EQ(override_error("--generate.context=257"),
              "tiny: generate.context is 257; it must be at most max_position_embeddings, 256");
    EXPECT_EQ(
        override_error("--generate.prefill_chunk=300"),
        "tiny: generate.prefill_chunk is 300; it must be at most max_position_embeddings, 256");
    EXPECT_EQ(override_error("--model.rope_theta=10000"),
              "--model.rope_theta=10000: model.rope_theta is not a setting of model_type gpt2");
    load_run("llama2-7b", {"--batch.sequence_length=8192"});  // RoPE has no table to end
}

TEST(RunConfig, AShortRunHasAShortWarmUp) {
    EXPECT_EQ(load_run("tiny").run.train.warmup_steps, 20);
    EXPECT_EQ(load_run("tiny", {"--train.steps=5"}).run.train.warmup_steps, 5);
    EXPECT_EQ(load_run("tiny", {"--train.warmup_steps=0"}).run.train.warmup_steps, 0);
}

TEST(RunConfig, TextMustBePrintable) {
    EXPECT_EQ(override_error("--data.train=a\nb"),
              "override: data.train has control characters or is not UTF-8");
}

TEST(RunConfig, TheLossChunkIsAFunctionOfShapes) {
    EXPECT_EQ(automatic_loss_chunk(50257, 4096, false), 160);  // 166 tokens fit 32 MiB
    EXPECT_EQ(automatic_loss_chunk(256, 1024, false), 1024);   // a micro-batch at most
    EXPECT_EQ(automatic_loss_chunk(2147483647, 4096, false), 16);
    EXPECT_EQ(automatic_loss_chunk(2147483647, 5, false), 5);
    EXPECT_EQ(automatic_loss_chunk(50257, 16384, true), 2048);  // 2,670 tokens fit 512 MiB
    EXPECT_EQ(automatic_loss_chunk(50257, 1000, true), 1000);
    EXPECT_EQ(automatic_loss_chunk(2147483647, 4096, true), 16);
    EXPECT_EQ(load_run("gpt2-124m").run.train.loss_chunk, 160);
}

TEST(RunConfig, CompletingTwiceChangesNothing) {
    RunConfig config = load_run("llama3-8b");
    const RunConfig before = config;
    complete_run(config, "again");
    EXPECT_EQ(config, before);
    config.run.batch.micro_batch = 0;  // filled in by hand: ranges are checked here too
    EXPECT_EQ(error_of([&] { complete_run(config, "hand"); }),
              "hand: batch.micro_batch is 0; it must be from 1 to 1048576");
}

}  // namespace
}  // namespace plumb
