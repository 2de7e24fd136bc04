// Runs plumb-train as a user would: training, resume, evaluation, saves and their failures.
#include <pty.h>

#include <algorithm>
#include <cmath>

#include "formats/checkpoint_reader.h"
#include "tests/trainer/train_folder.h"

namespace plumb {
namespace {

using TrainRun = TrainFolder;

TEST_F(TrainRun, LearnsARepeatedText) {
    ASSERT_EQ(train("--train.eval_every=50"), 0) << error_;
    EXPECT_EQ(error_, "");
    const auto steps = log("loss");
    ASSERT_EQ(steps.size(), 100u);
    EXPECT_NEAR(steps[0]["loss"].get<double>(), std::log(256.0), 0.2) << "knows nothing yet";
    EXPECT_LT(steps[99]["loss"].get<double>(), 1.5);
    for (size_t i = 0; i < steps.size(); ++i) {
        EXPECT_EQ(steps[i]["step"].get<size_t>(), i + 1);
        EXPECT_EQ(steps[i]["tokens"].get<size_t>(), (i + 1) * 64);
        EXPECT_EQ(steps[i]["skipped"].get<int>(), 0);
        EXPECT_GT(steps[i]["mfu"].get<double>(), 0.0);
    }
    EXPECT_DOUBLE_EQ(steps[0]["lr"].get<double>(), 5e-4);
    EXPECT_DOUBLE_EQ(steps[99]["lr"].get<double>(), 5e-4);
    const auto evaluations = log("valid_loss");
    ASSERT_EQ(evaluations.size(), 2u);
    EXPECT_EQ(evaluations[0]["step"].get<int>(), 50);
    EXPECT_LT(evaluations[1]["valid_loss"].get<double>(), 1.5) << "the same text";
    EXPECT_EQ(digests().size(), 5u);
    EXPECT_EQ(checkpoints().size(), 2u) << "checkpoint.keep";
    EXPECT_NE(output_.find("sample after step 100: \""), std::string::npos) << output_;
#ifdef PLUMB_SANITIZE
    EXPECT_EQ(output_.find("allocations after seal"), std::string::npos) << "nothing is counted";
#else
    EXPECT_NE(output_.find("allocations after seal: 0\n"), std::string::npos) << output_;
#endif
}

TEST_F(TrainRun, ResumeIsBitExact) {
    ASSERT_EQ(train("--checkpoint.dir=straight"), 0) << error_;
    // The second run also evaluates and samples, which must not show in the state.
    const std::string second = "--checkpoint.dir=parts --train.eval_every=30";
    ASSERT_EQ(train(second + " --train.stop_at=60"), 0) << error_;
    EXPECT_NE(output_.find("stopped at train.stop_at = 60 of 100"), std::string::npos) << output_;
    ASSERT_EQ(log("loss", "parts").size(), 60u);
    ASSERT_EQ(train(second), 0) << error_;
    EXPECT_NE(output_.find("resumed at step 60 from parts/step-000000000060-"), std::string::npos)
        << output_;
    ASSERT_EQ(digests("straight").size(), 5u);
    EXPECT_EQ(digests("parts"), digests("straight"));
    const auto a = log("loss", "straight"), b = log("loss", "parts");
    ASSERT_EQ(b.size(), 100u);
    for (size_t i = 0; i < 100; ++i)
        for (const char* key : {"step", "tokens", "loss", "grad_norm", "lr", "skipped"})
            EXPECT_EQ(a[i][key], b[i][key]) << key << " of line " << i;
}

TEST_F(TrainRun, ADamagedCheckpointIsPassedOverAndTheLogGoesBackWithIt) {
    ASSERT_EQ(train("--checkpoint.dir=straight"), 0) << error_;
    ASSERT_EQ(train("--train.stop_at=70"), 0) << error_;
    const auto names = checkpoints();
    ASSERT_EQ(names.size(), 2u);
    const std::string manifest = path("run/" + names[1] + "/MANIFEST");
    std::filesystem::resize_file(manifest, std::filesystem::file_size(manifest) - 1);
    ASSERT_EQ(train(), 0) << error_;
    EXPECT_NE(output_.find("note: passed over run/" + names[1]), std::string::npos) << output_;
    EXPECT_NE(output_.find("resumed at step 60 "), std::string::npos) << output_;
    EXPECT_EQ(digests(), digests("straight")) << "no line of step 70 is left";
    const auto steps = log("loss");
    ASSERT_EQ(steps.size(), 100u);
    for (size_t i = 0; i < 100; ++i) EXPECT_EQ(steps[i]["step"].get<size_t>(), i + 1);
}

TEST_F(TrainRun, ResumesFromANamedFolder) {
    ASSERT_EQ(train("--train.stop_at=20 --checkpoint.dir=first"), 0) << error_;
    ASSERT_EQ(train("--train.stop_at=40 --checkpoint.dir=first"), 0) << error_;
    ASSERT_EQ(train("--train.stop_at=40 --checkpoint.resume=first/" + checkpoints("first")[0]), 0)
        << error_;
    EXPECT_NE(output_.find("resumed at step 20 "), std::string::npos) << output_;
    EXPECT_EQ(digests(), std::vector<std::string>{digests("first")[1]});
    EXPECT_EQ(output_.find("differs"), std::string::npos) << output_;
    ASSERT_EQ(train("--train.stop_at=50 --train.lr=0.001"), 0) << error_;
    EXPECT_NE(output_.find("differs: train.lr: 0.005 in the checkpoint, 0.001 now"),
              std::string::npos)
        << output_;
    EXPECT_EQ(train("--checkpoint.resume=nowhere"), 2);
    EXPECT_NE(error_.find("checkpoint.resume: no checkpoint in nowhere"), std::string::npos)
        << error_;
}

// Printed, logged, in every checkpoint, and compared where a run goes on.
TEST_F(TrainRun, NumericsAreTheSameEverywhereAndComparedAtResume) {
    const auto numerics = [&] { return log("numerics").back()["numerics"].get<std::string>(); };
    const auto in_checkpoint = [&] {
        return to_hex(CheckpointReader(path("run/" + checkpoints().back())).record().numerics_hash);
    };
    ASSERT_EQ(train("--train.stop_at=20"), 0) << error_;
    const std::string first = numerics();
    EXPECT_NE(output_.find(", numerics " + first + "\n"), std::string::npos) << output_;
    EXPECT_EQ(in_checkpoint(), first);
    ASSERT_EQ(train("--train.stop_at=25 --batch.micro_batch=1"), 0) << error_;
    const std::string second = numerics();
    EXPECT_NE(second, first);
    EXPECT_NE(output_.find("\n  differs: numerics: " + first + " in the checkpoint, " + second +
                           " now: last digits may differ\n"),
              std::string::npos)
        << output_;
    EXPECT_EQ(in_checkpoint(), second);
    ASSERT_EQ(train("--train.stop_at=30 --batch.micro_batch=1 --layout.recompute=block:1"), 0);
    EXPECT_EQ(numerics(), second);
    EXPECT_EQ(output_.find("differs"), std::string::npos) << output_;
}

TEST_F(TrainRun, AnotherSequenceLengthGoesOnAtTheSameCountOfTokens) {
    ASSERT_EQ(train("--train.stop_at=21"), 0) << error_;
    const std::string shorter = "--batch.sequence_length=13 --train.stop_at=";
    ASSERT_EQ(train(shorter + "22"), 0) << error_;
    EXPECT_NE(output_.find("sequences now have 13 tokens: the data goes on after 104 of them, "
                           "as many as 1344 tokens make"),
              std::string::npos)
        << output_;
    EXPECT_EQ(log("loss").back()["tokens"].get<int>(), 1344 + 4 * 13);
    const CheckpointReader saved(path("run/" + checkpoints().back()));
    EXPECT_EQ(saved.record().sequences_consumed, 104 + 4);
    ASSERT_EQ(train(shorter + "23"), 0) << error_;
    EXPECT_EQ(output_.find("sequences now have"), std::string::npos) << output_;
    const CheckpointReader again(path("run/" + checkpoints().back()));
    EXPECT_EQ(again.record().sequences_consumed, 104 + 8);
}

TEST_F(TrainRun, ADropoutThatIsNotAppliedIsSaid) {
    put("config.json", R"({"model_type": "gpt2", "vocab_size": 256, "n_embd": 32, "n_layer": 1,
        "n_head": 2, "n_positions": 16, "resid_pdrop": 0.1, "attn_pdrop": 0, "embd_pdrop": 0.25})");
    put("run.toml",
        "model = \"config.json\"\n[train]\nsteps = 2\neval_every = 0\n"
        "[data]\ntrain = \"data/train.bin\"\n");
    ASSERT_EQ(train(), 0) << error_;
    const std::string note =
        "\nnote: config.json: dropout is not applied (embd_pdrop 0.25, resid_pdrop 0.1)\n";
    EXPECT_NE(output_.find(note), std::string::npos) << output_;
}

TEST_F(TrainRun, NeverResumingStartsAnewElsewhere) {
    ASSERT_EQ(train("--train.stop_at=20"), 0) << error_;
    const auto first = digests();
    // In the same folder a later resume would take the old run's step for the new run's.
    EXPECT_EQ(train("--train.stop_at=10 --checkpoint.resume=never"), 2);
    EXPECT_NE(error_.find("of step 20, but this run starts at step 0"), std::string::npos)
        << error_;
    EXPECT_EQ(checkpoints().size(), 1u);
    const std::string never = "--train.stop_at=20 --checkpoint.resume=never --checkpoint.dir=";
    ASSERT_EQ(train(never + "same"), 0) << error_;
    EXPECT_NE(output_.find("new run, seed 1"), std::string::npos) << output_;
    EXPECT_EQ(digests("same"), first);
    ASSERT_EQ(train(never + "other --train.seed=2"), 0) << error_;
    EXPECT_NE(digests("other"), first);
}

TEST_F(TrainRun, ACompleteRunHasNothingToDo) {
    ASSERT_EQ(train("--train.steps=20"), 0) << error_;
    const std::string before = contents_of(path("run/log.jsonl"));
    ASSERT_EQ(train("--train.steps=20"), 0) << error_;
    EXPECT_NE(output_.find("the run is complete: step 20 of 20"), std::string::npos) << output_;
    EXPECT_EQ(contents_of(path("run/log.jsonl")), before);
    ASSERT_EQ(train("--train.stop_at=10"), 0) << error_;
    EXPECT_NE(output_.find("nothing to do: step 20"), std::string::npos) << output_;
    ASSERT_EQ(train("--train.steps=30"), 0) << error_;
    EXPECT_EQ(log("loss").size(), 30u);
}

TEST_F(TrainRun, ThreadsRepetitionAndRecomputationDoNotChangeABit) {
    // Odd sizes, so that no block of a kernel comes out even.
    const std::string shape =
        " --model.hidden_size=48 --model.num_attention_heads=3 --model.max_position_embeddings=23 "
        "--train.steps=12 --checkpoint.every=4 --batch.micro_batch=3 --batch.global_batch=6";
    ASSERT_EQ(train("--checkpoint.dir=a" + shape), 0) << error_;
    ASSERT_EQ(digests("a").size(), 3u);
    for (const char* other :
         {"--run.threads=1", "--run.threads=2", "--run.threads=3", "--layout.recompute=block:1",
          "--layout.recompute=block:2", "--layout.recompute=selective",
          "--layout.recompute=attention", "--train.sample_tokens=0"}) {
        std::filesystem::remove_all(path("b"));
        ASSERT_EQ(train("--checkpoint.dir=b " + (other + shape)), 0) << error_;
        EXPECT_EQ(digests("b"), digests("a")) << other;
    }
}

TEST_F(TrainRun, ThreeStepsWithoutFiniteGradientsEndTheRun) {
    // Decay of 100 at a rate of 100 multiplies the weights by -9999 in each step.
    EXPECT_EQ(train("--train.lr=100 --train.min_lr=100 --train.weight_decay=100 "
                    "--train.warmup_steps=0 --checkpoint.every=1"),
              1);
    const auto steps = log("loss");
    const auto saves = log("state_digest");
    const size_t n = steps.size();
    ASSERT_GE(n, 4u);
    ASSERT_LT(n, 100u);
    ASSERT_EQ(saves.size(), n - 1) << "the last step is not saved: it changed nothing";
    for (size_t i = 0; i < n; ++i) {
        const bool skipped = i + 3 >= n;
        EXPECT_EQ(steps[i]["grad_norm"].is_null(), skipped) << i;
        EXPECT_EQ(steps[i]["skipped"].get<size_t>(), skipped ? i + 4 - n : 0) << i;
        if (i == 0 || i + 1 == n) continue;
        EXPECT_EQ(saves[i]["state_digest"] == saves[i - 1]["state_digest"], skipped) << i;
    }
    const auto said = [&](const std::string& text, const std::string& part) {
        EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
    };
    said(output_, "the gradients of step " + std::to_string(n - 1) +
                      " are not finite; nothing was changed (2 skipped so far)");
    said(error_,
         "three steps in a row, the last of them " + std::to_string(n) + ", are not finite");
    said(error_, "the last checkpoint is run/" + checkpoints().back());
}

TEST_F(TrainRun, TheLastGoodStepIsSavedWhenGradientsEndTheRun) {
    const std::string diverging =
        "--train.lr=100 --train.min_lr=100 --train.weight_decay=100 --train.warmup_steps=0 ";
    EXPECT_EQ(train(diverging + "--checkpoint.dir=each --checkpoint.every=1"), 1);
    EXPECT_EQ(train(diverging + "--checkpoint.every=50"), 1);
    const size_t n = log("loss").size();
    ASSERT_LT(n, 50u) << "no save was due";
    ASSERT_EQ(digests().size(), 1u);
    EXPECT_EQ(digests()[0], digests("each").at(n - 4)) << "three steps before the end";
    EXPECT_NE(error_.find("the last checkpoint is run/" + checkpoints().at(0)), std::string::npos)
        << error_;
    ASSERT_EQ(train(diverging + "--train.stop_at=" + std::to_string(n - 2)), 0) << error_;
    EXPECT_NE(output_.find("resumed at step " + std::to_string(n - 3)), std::string::npos);
    EXPECT_EQ(train(diverging + "--checkpoint.dir=none --checkpoint.every=0"), 1);
    EXPECT_EQ(checkpoints("none").size(), 0u);
}

TEST_F(TrainRun, SavesNothingWhenToldSo) {
    ASSERT_EQ(train("--train.steps=20 --checkpoint.every=0"), 0) << error_;
    EXPECT_EQ(log("loss").size(), 20u);
    EXPECT_EQ(digests().size(), 0u);
    EXPECT_EQ(checkpoints().size(), 0u);
}

TEST_F(TrainRun, AlwaysSavesTheLastStep) {
    ASSERT_EQ(train("--train.steps=7 --train.warmup_steps=0"), 0) << error_;
    ASSERT_EQ(digests().size(), 1u);
    EXPECT_EQ(digests()[0].substr(0, 2), "7 ");
}

TEST_F(TrainRun, AClosedStandardOutputIsSaidOnceAndTheRunGoesOn) {
    const std::string command = "cd " + folder_ +
                                "; (" PLUMB_BIN_DIR
                                "/plumb-train run.toml 2>stderr.txt; echo $? >code.txt) | true";
    ASSERT_EQ(std::system(command.c_str()), 0);
    EXPECT_EQ(contents_of(path("code.txt")), "0\n");
    EXPECT_EQ(log("loss").size(), 100u);
    EXPECT_EQ(digests().size(), 5u);
    const std::string error = contents_of(path("stderr.txt"));
    EXPECT_EQ(error.rfind("warning: cannot write to standard output: ", 0), 0u) << error;
    EXPECT_EQ(std::count(error.begin(), error.end(), '\n'), 1) << error;
}

TEST_F(TrainRun, AFailedSaveIsSaidAndTheRunGoesOn) {
    // A file-size limit between the log and a checkpoint stands for a full disk.
    EXPECT_EQ(train("--train.steps=20 --checkpoint.every=8", "trap '' XFSZ; ulimit -f 64"), 4);
    EXPECT_NE(error_.find("warning: STEP 8 WAS NOT SAVED: "), std::string::npos) << error_;
    EXPECT_NE(error_.find("STEP 16 WAS NOT SAVED"), std::string::npos) << error_;
    EXPECT_NE(error_.find("error: step 20 is not saved; the last checkpoint is none"),
              std::string::npos)
        << error_;
    EXPECT_EQ(log("loss").size(), 20u);
    EXPECT_EQ(digests().size(), 0u);
    EXPECT_EQ(checkpoints().size(), 0u) << "nothing half-made stays";
}

TEST_F(TrainRun, WhatIsWrongIsSaidBeforeTheFirstStep) {
    put("words.bin", std::string("\x00\x01\xff\xff", 4) + std::string(400, '\0'));
    put("words.bin.json", R"({"width": 2, "count": 202, "largest": 65535, "tokenizer": "other"})");
    const struct {
        const char* arguments;
        int code;
        const char* part;
    } cases[] = {
        {"--data.train=", 2, "data.train is not set"},
        {"--train.eval_every=5 --data.valid=", 2, "data.valid is not set"},
        {"--data.train=none.bin", 2, "none.bin"},
        {"--data.train=words.bin", 2, "65535"},
        {"--train.eval_every=5 --data.valid=words.bin", 2, "65535"},
        {"--batch.sequence_length=16 --train.stps=5", 2, "train.steps"},
        {"--run.memory=1MiB", 3, "run.memory"},
        {"--run.device=cuda-sm90", 2, "run.device: cuda-sm90 "},
        {"--checkpoint.dir=run.toml", 2, "checkpoint.dir: run.toml is a file"},
        {"--checkpoint.resume=run.toml", 2, "checkpoint.resume: run.toml is a file"},
        {"--checkpoint.dir=/proc/plumb", 4, "/proc/plumb"},
    };
    for (const auto& c : cases) {
        EXPECT_EQ(train(c.arguments), c.code) << c.arguments << ": " << error_;
        EXPECT_EQ(error_.rfind("error: ", 0), 0u) << c.arguments << ": " << error_;
        EXPECT_NE(error_.find(c.part), std::string::npos) << c.arguments << ": " << error_;
        EXPECT_FALSE(std::filesystem::exists(path("run"))) << c.arguments;
    }
}

// The error's line, the best changes, and the command that lists all of them.
TEST_F(TrainRun, WhatDoesNotFitComesWithAdvice) {
    EXPECT_EQ(train("'--checkpoint.dir=a run' --run.memory=9MiB"), 3);
    EXPECT_NE(error_.find("run.memory is 9437184 bytes"), std::string::npos) << error_;
    EXPECT_NE(error_.find("\n  --checkpoint.chunk_bytes="), std::string::npos) << error_;
    EXPECT_NE(error_.find("\n  all of them: plumb-plan run.toml "), std::string::npos) << error_;
    EXPECT_NE(error_.find(" '--checkpoint.dir=a run' --memory 9437184\n"), std::string::npos)
        << error_;
}

// What resumes needs room for the chunks that were saved: smaller ones are refused, and no advice.
TEST_F(TrainRun, SmallerChunksAreNoAdviceForARunThatResumes) {
    const std::string small = "--checkpoint.chunk_bytes=65536 --train.stop_at=3 ";
    const std::string little = "--run.memory=9MiB --checkpoint.resume=";
    EXPECT_EQ(plan(little + "auto"), 3);
    EXPECT_NE(output_.find("checkpoint.chunk_bytes"), std::string::npos) << output_;
    ASSERT_EQ(train("--train.stop_at=2"), 0) << error_;
    EXPECT_EQ(plan(little + "auto"), 3);
    EXPECT_EQ(output_.find("checkpoint.chunk_bytes"), std::string::npos) << output_;
    EXPECT_EQ(train(little + "auto"), 3);
    EXPECT_EQ(error_.find("checkpoint.chunk_bytes"), std::string::npos) << error_;
    EXPECT_EQ(plan(little + "never"), 3);
    EXPECT_NE(output_.find("checkpoint.chunk_bytes"), std::string::npos) << output_;
    for (const bool trains : {true, false}) {
        EXPECT_EQ(trains ? train(small) : plan(small), 2);
        EXPECT_EQ(error_,
                  "error: checkpoint.chunk_bytes: 65536, but the checkpoint in run has chunks of "
                  "1048576 bytes, and what resumes it needs no less\n");
    }
    EXPECT_EQ(train(small + "--checkpoint.dir=other"), 0) << error_;
}

TEST_F(TrainRun, ACheckpointOfAnotherModelIsRefused) {
    ASSERT_EQ(train("--train.steps=5 --train.warmup_steps=0"), 0) << error_;
    EXPECT_EQ(train("--model.num_hidden_layers=3"), 2);
    EXPECT_NE(error_.find("is of another model"), std::string::npos) << error_;
    EXPECT_NE(error_.find("num_hidden_layers: 2 in the checkpoint, 3 now"), std::string::npos)
        << error_;
    EXPECT_EQ(checkpoints().size(), 1u);
}

TEST_F(TrainRun, ATerminalHasABarBelowItsLines) {
    int terminal = -1;
    const pid_t child = ::forkpty(&terminal, nullptr, nullptr, nullptr);
    ASSERT_GE(child, 0);
    if (child == 0) {
        if (::chdir(folder_.c_str()) == 0)
            ::execl(PLUMB_BIN_DIR "/plumb-train", "plumb-train", "run.toml", "--train.steps=4",
                    "--train.warmup_steps=0", nullptr);
        ::_exit(127);
    }
    std::string text;
    char piece[4096];
    for (ssize_t size; (size = ::read(terminal, piece, sizeof piece)) > 0;)
        text.append(piece, static_cast<size_t>(size));
    ::close(terminal);
    int status = -1;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << text;
    const std::string clear = "\r\033[K";
    for (const char* part : {"[###############...............] 50.0%",
                             "[##############################] 100.0%", "step 3/4  192 tok"})
        EXPECT_NE(text.find(clear + part), std::string::npos) << part << "\n" << text;
    EXPECT_GT(text.rfind(clear), text.rfind("100.0%")) << "the bar is gone at the end";
}

TEST_F(TrainRun, HelpListsSettingsAndPresets) {
    const std::string command = PLUMB_BIN_DIR "/plumb-train --help >" + path("help.txt") + " 2>&1";
    ASSERT_EQ(std::system(command.c_str()), 0);
    const std::string help = contents_of(path("help.txt"));
    for (const char* part : {"gpt2-124m", "llama3-8b", "train.lr", "checkpoint.every", "Example:"})
        EXPECT_NE(help.find(part), std::string::npos) << part;
}

// Arenas hold what the plan says, and little else holds anything: 20 million parameters, so that
// a copy of the weights outside them would be seen.
TEST_F(TrainRun, PeakMemoryIsThePlan) {
#ifdef PLUMB_SANITIZE
    GTEST_SKIP() << "the sanitizer's own shadow memory is many times the plan";
#endif
    ASSERT_EQ(train("--model.hidden_size=512 --model.num_hidden_layers=6 "
                    "--model.num_attention_heads=8 --train.steps=1 --train.warmup_steps=0 "
                    "--batch.micro_batch=1 "
                    "--batch.global_batch=1 --train.eval_every=1"),
              0)
        << error_;
    ASSERT_EQ(digests().size(), 1u);
    ASSERT_EQ(log("valid_loss").size(), 1u);
    long long peak = 0, planned = 0;
    const size_t at = output_.find("peak memory: ");
    ASSERT_NE(at, std::string::npos) << output_;
    ASSERT_EQ(std::sscanf(output_.c_str() + at, "peak memory: %lld bytes (%*[^)]) against %lld",
                          &peak, &planned),
              2)
        << output_;
    const size_t arenas_at = output_.find("in arenas (");
    const std::string arenas = output_.substr(arenas_at, output_.find(')', arenas_at) - arenas_at);
    const auto arena_count = std::count(arenas.begin(), arenas.end(), ',') + 1;
    EXPECT_GT(planned, 300'000'000) << "weights, gradients and two moments of 19 million";
    const long long tolerance =
        std::max(planned / 100, (16 + 2 * static_cast<long long>(arena_count)) << 20);
    EXPECT_NEAR(static_cast<double>(peak), static_cast<double>(planned),
                static_cast<double>(tolerance))
        << output_.substr(at);
}

}  // namespace
}  // namespace plumb
