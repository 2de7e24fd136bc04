// plumb-train on the tests' GPU (tests/kernels/gpu), as a user would run it. There the next step is
// issued before the result of the one before is known, unless something comes between: a run that
// pauses after every step, and one that never does, must be the same training.
#include <algorithm>
#include <limits>

#include "formats/checkpoint_reader.h"
#include "runtime/engine/data_loader.h"
#include "runtime/engine/state_io.h"
#include "tests/kernels/gpu/gpu_device.h"
#include "tests/trainer/train_folder.h"

#ifdef PLUMB_GPU_BIN_DIR
namespace plumb {
namespace {

class GpuTrain : public TrainFolder {
  protected:
    void SetUp() override {
        if (!testing::gpu::is_there()) GTEST_SKIP() << "no GPU";
        TrainFolder::SetUp();
        products_ = open_gpu()->products_file();
    }
    int train_on_gpu(const std::string& arguments, const std::string& before = "true") {
        return run_in(PLUMB_GPU_BIN_DIR, "plumb-train", "--run.device=cuda " + arguments, before);
    }
    // Lets `to` begin with the algorithms of products that `from` has measured: others may be as
    // fast, measured again, and have other bits.
    void share_products(const std::string& from, const std::string& to) const {
        std::filesystem::create_directory(path(to));
        ASSERT_TRUE(
            std::filesystem::copy_file(path(from + "/" + products_), path(to + "/" + products_)));
    }
    // A checkpoint of step 0 in `run`, with `token` as input of steps [first, end) alone and NaN
    // for its embedding. The head has weights of its own.
    void save_with_bad_token(const std::string& run, char token, int64_t first, int64_t end) {
        RunConfig config =
            load_run(path("run.toml"), {"--model.tie_word_embeddings=false", "--train.dtype=fp32",
                                        "--checkpoint.dir=" + path(run)});
        std::string text = contents_of(path("text.txt"));
        const int64_t length = config.run.batch.sequence_length;
        {
            const TokenFile tokens(path("data/train.bin"));
            const DataLoader order(tokens, length, DataOrder::shuffled,
                                   static_cast<uint64_t>(config.run.train.seed));
            for (int64_t step = first; step < end; ++step)
                text[static_cast<size_t>(
                    order.sequence_at(step * config.run.batch.global_batch) * length + 5)] = token;
        }
        put("text.txt", text);
        write_byte_tokens({path("text.txt")}, path("data"), 0.1);
        Session session(config, Purpose::train);
        session.run_phase(PhaseKind::initialise);
        const Param& embedding = session.program().params.front();
        ASSERT_EQ(embedding.shape.dim[0], 256) << embedding.name;
        const std::vector<float> nan(static_cast<size_t>(embedding.shape.dim[1]),
                                     std::numeric_limits<float>::quiet_NaN());
        const auto row_bytes = static_cast<int64_t>(nan.size() * sizeof(float));
        session.executor().write(embedding.weight, token * row_bytes, nan.data(), row_bytes);
        StateIo state(session);
        state.prepare_folder();
        SaveReport report;
        ASSERT_TRUE(state.save(RunRecord(), &report).ok());
    }
    // Without the keys that tell of time.
    std::vector<nlohmann::json> steps(const std::string& run) const {
        auto lines = log("loss", run);
        for (auto& line : lines)
            for (const char* key : {"step_ms", "tokens_per_s", "mfu"}) line.erase(key);
        return lines;
    }

    std::string products_;
};

TEST_F(GpuTrain, LossesFollowACpusAndARunResumesToTheBit) {
    const std::string steps_and_saves = " --train.steps=12 --checkpoint.every=4 --train.dtype=";
    for (const std::string dtype : {"fp32", "bf16", "fp16"}) {
        const std::string settings = steps_and_saves + dtype + " --checkpoint.dir=";
        ASSERT_EQ(train(settings + "cpu"), 0) << error_;
        ASSERT_EQ(train_on_gpu(settings + "gpu"), 0) << error_;
        EXPECT_NE(output_.find(" on the GPU and "), std::string::npos) << output_;
        EXPECT_NE(output_.find(" held, by all processes, against "), std::string::npos) << output_;
        const auto cpu = log("loss", "cpu"), gpu = log("loss", "gpu");
        ASSERT_EQ(gpu.size(), 12u);
        for (size_t i = 0; i < gpu.size(); ++i) {
            const double loss = cpu[i]["loss"];
            EXPECT_NEAR(gpu[i]["loss"].get<double>(), loss, (dtype == "fp32" ? 1e-5 : 2e-2) * loss)
                << dtype << " " << i;
        }
        share_products("gpu", "again");
        ASSERT_EQ(train_on_gpu(settings + "again --train.stop_at=8 --run.graph=false"), 0)
            << error_;
        ASSERT_EQ(train_on_gpu(settings + "again"), 0) << error_;
        EXPECT_EQ(output_.find("differs"), std::string::npos) << output_;
        EXPECT_EQ(digests("again"), digests("gpu")) << dtype;
        EXPECT_EQ(steps("again"), steps("gpu")) << dtype;
        // What a GPU has saved, a CPU goes on with.
        ASSERT_EQ(train(settings + "gpu --train.stop_at=0 --train.steps=13"), 0) << error_;
        EXPECT_EQ(log("loss", "gpu").size(), 13u);
        EXPECT_NE(output_.find("  differs: numerics: "), std::string::npos) << output_;
        for (const char* run : {"cpu", "gpu", "again"}) std::filesystem::remove_all(path(run));
    }
}

// The loss scale starts where the first steps are skipped, and grows into more of them: the number
// of updates, which AdamW's corrections need, is not known when a step is issued.
TEST_F(GpuTrain, SkippedStepsAreTheSameWhetherOrNotTheNextWasIssued) {
    const std::string settings =
        " --train.steps=16 --train.dtype=fp16 --train.loss_scale=16777216 "
        "--train.loss_scale_window=2 --train.sample_tokens=0 --checkpoint.dir=";
    ASSERT_EQ(train_on_gpu(settings + "ahead --checkpoint.every=16"), 0) << error_;
    share_products("ahead", "paused");
    ASSERT_EQ(train_on_gpu(settings + "paused --checkpoint.every=1"), 0) << error_;
    const auto ahead = steps("ahead");
    EXPECT_EQ(ahead, steps("paused"));
    EXPECT_EQ(digests("ahead").back(), digests("paused").back());
    ASSERT_FALSE(ahead.empty());
    const int64_t skipped = ahead.back()["skipped"];
    EXPECT_GE(skipped, 2) << "nothing was tested";
    EXPECT_LT(skipped, 12) << "nothing was tested";
}

// The last good step is saved as it was, though others were issued after it.
TEST_F(GpuTrain, ThreeStepsThatAreNotFiniteEndTheRun) {
    const std::string settings =
        " --train.steps=30 --train.lr=100 --train.min_lr=100 --train.weight_decay=100 "
        "--train.warmup_steps=0 --train.dtype=fp32 --checkpoint.every=100 --checkpoint.dir=";
    ASSERT_EQ(train(settings + "cpu"), 1) << error_;
    ASSERT_EQ(train_on_gpu(settings + "gpu"), 1) << error_;
    EXPECT_NE(error_.find("three steps in a row"), std::string::npos) << error_;
    EXPECT_EQ(steps("gpu").size(), steps("cpu").size());
    const auto saved = log("state_digest", "gpu");
    ASSERT_EQ(saved.size(), 1u);
    EXPECT_EQ(saved.back()["step"], log("state_digest", "cpu").back()["step"]);
    // Of the last good step and no other.
    const int64_t step = saved.back()["step"];
    share_products("gpu", "until");
    ASSERT_EQ(train_on_gpu(settings + "until --train.stop_at=" + std::to_string(step)), 0);
    EXPECT_EQ(digests("until"), digests("gpu"));
}

// Three bad steps between good ones: were the next issued before the third is known to be bad, it
// would change what is then saved as the last good step's.
TEST_F(GpuTrain, NothingIsIssuedBehindAThirdStepThatMayBeNotFinite) {
    save_with_bad_token("start", '\x01', 2, 5);
    const std::string settings =
        " --model.tie_word_embeddings=false --train.dtype=fp32 --train.steps=30 "
        "--train.warmup_steps=0 --checkpoint.resume=start --checkpoint.every=100 "
        "--checkpoint.dir=";
    ASSERT_EQ(train(settings + "cpu"), 1) << error_;
    // What is issued has run before the host looks at the step before.
    ASSERT_EQ(train_on_gpu(settings + "gpu", "export PLUMB_EMULATED_EAGER=compute"), 1) << error_;
    for (const char* run : {"cpu", "gpu"}) {
        const auto all = steps(run);
        ASSERT_EQ(all.size(), 5u) << run;
        EXPECT_EQ(all.back()["skipped"], 3) << run;
        for (size_t i = 0; i < 2; ++i) {
            const double loss = steps("cpu")[i]["loss"];
            EXPECT_NEAR(all[i]["loss"].get<double>(), loss, 1e-5 * loss) << run << " " << i;
        }
        ASSERT_EQ(checkpoints(run).size(), 1u) << run;
        const CheckpointReader saved(path(std::string(run) + "/" + checkpoints(run).front()));
        EXPECT_EQ(saved.record().step, 2) << run;
        EXPECT_EQ(saved.record().skipped_steps, 0) << run;
        EXPECT_EQ(saved.record().sequences_consumed, 2 * 4) << run;
    }
    share_products("gpu", "until");
    ASSERT_EQ(train_on_gpu(settings + "until --train.stop_at=2"), 0) << error_;
    EXPECT_EQ(digests("until"), digests("gpu"));
}

// Saves of every step while the next one runs, evaluations and samples between.
TEST_F(GpuTrain, SavesEvaluationsAndSamplesChangeNoBit) {
    const std::string settings =
        " --train.steps=6 --train.warmup_steps=2 --train.dtype=bf16 --checkpoint.dir=";
    ASSERT_EQ(train_on_gpu(settings + "plain --checkpoint.every=6"), 0) << error_;
    share_products("plain", "busy");
    ASSERT_EQ(train_on_gpu(settings + "busy --checkpoint.every=1 --train.eval_every=2 "
                                      "--train.eval_batches=2 --train.sample_tokens=5"),
              0)
        << error_;
    EXPECT_EQ(steps("busy"), steps("plain"));
    EXPECT_EQ(digests("busy").back(), digests("plain").back());
    EXPECT_EQ(digests("busy").size(), 6u);
    EXPECT_EQ(log("valid_loss", "busy").size(), 3u);
    EXPECT_NE(output_.find("sample after step 6"), std::string::npos) << output_;
    // Whatever lane is ahead of the others.
    for (const std::string lanes : {"compute", "copy", "compute copy save"}) {
        const std::string name = std::to_string(lanes.size());
        const std::string before = "export PLUMB_EMULATED_EAGER='" + lanes + "'";
        ASSERT_EQ(train_on_gpu(settings + "plain-" + name + " --checkpoint.every=6", before), 0)
            << error_;
        EXPECT_EQ(digests("plain-" + name).back(), digests("plain").back()) << lanes;
        ASSERT_EQ(train_on_gpu(settings + "busy-" + name + " --checkpoint.every=1 " +
                                   "--train.eval_every=2 --train.eval_batches=2",
                               before),
                  0)
            << error_;
        EXPECT_EQ(digests("busy-" + name), digests("busy")) << lanes;
        if (!testing::gpu::kEmulated) break;
    }
}

TEST_F(GpuTrain, AStopRequestSavesTheStepThatItNames) {
    std::filesystem::create_directory(path("run"));
    put("run/stop", "");
    ASSERT_EQ(train_on_gpu("--train.steps=8 --train.warmup_steps=2 --checkpoint.every=100"), 0)
        << error_;
    EXPECT_NE(output_.find("after step 1 of 8"), std::string::npos) << output_;
    EXPECT_EQ(digests().size(), 1u);
    EXPECT_EQ(log("loss").size(), 1u);
}

// What a run goes on with decides how its products are computed.
TEST_F(GpuTrain, AlgorithmsComeFromTheFolderThatIsResumed) {
    const std::string settings = "--train.warmup_steps=2 --checkpoint.every=4 --train.steps=";
    ASSERT_EQ(train_on_gpu(settings + "4 --checkpoint.dir=first"), 0) << error_;
    EXPECT_NE(output_.find("products: 0 algorithms from the table, "), std::string::npos);
    EXPECT_EQ(output_.find(" 0 measured"), std::string::npos) << output_;
    ASSERT_EQ(train_on_gpu(settings + "8 --checkpoint.dir=second --checkpoint.resume=first"), 0)
        << error_;
    EXPECT_NE(output_.find(" from the table, 0 measured in "), std::string::npos) << output_;
    EXPECT_EQ(output_.find("differs: numerics"), std::string::npos) << output_;
    EXPECT_TRUE(std::filesystem::exists(path("second/" + products_)));
    // One that cannot be read is a note.
    std::filesystem::remove(path("second/" + products_));
    std::filesystem::create_directory(path("second/" + products_));
    ASSERT_EQ(train_on_gpu(settings + "12 --checkpoint.dir=second"), 0) << error_;
    for (const char* part : {"are measured anew\n", "of this run are not stored\n"})
        EXPECT_NE(output_.find(part), std::string::npos) << output_;
}

TEST_F(GpuTrain, WhatCannotRunSaysWhy) {
    EXPECT_EQ(train_on_gpu("--run.memory=1MiB"), 3);
    EXPECT_NE(error_.find("run.memory is 1048576 bytes (1.0 MiB)"), std::string::npos) << error_;
    const char* other = testing::gpu::kEmulated ? "cuda-sm90" : "cuda-sm80";
    EXPECT_EQ(
        run_in(PLUMB_GPU_BIN_DIR, "plumb-train", std::string("--run.device=") + other, "true"), 2);
    EXPECT_NE(error_.find(std::string("run.device: ") + other + " is for "), std::string::npos)
        << error_;
    EXPECT_EQ(checkpoints(".").size(), 1u) << "nothing was made but data";
}

// What CUDA takes behind the arenas it takes at the start, or the run does not begin.
TEST_F(GpuTrain, MemoryThatCudaDoesNotFindIsToldAtTheStart) {
    if (!testing::gpu::kEmulated) GTEST_SKIP() << "a real GPU's memory is not ours to take";
    // The first of its kind finds none, or a later one.
    const std::pair<const char*, const char*> takers[] = {
        {"kernel 9000000000", "the code of a kernel"},
        {"kernel 1000000000", "the code of a kernel"},
        {"product 9000000000", "what cuBLASLt keeps for a matrix product"},
        {"product 1000000000", "what cuBLASLt keeps for a matrix product"},
        {"graph 9000000000", "a graph of what is run"},
        {"graph 5000000000", "a graph of what is run"}};
    for (const auto& [costs, what] : takers) {
        if (*costs == 'g' && kBuildRedZoneBytes > 0) continue;  // op by op there: no graphs
        EXPECT_EQ(train_on_gpu("", std::string("export PLUMB_EMULATED_COSTS='") + costs +
                                       "' PLUMB_EMULATED_HOLDERS='python (pid 4711) "
                                       "7.5 GiB'"),
                  3);
        EXPECT_EQ(error_.find(std::string("error: CUDA finds no memory for ") + what +
                              " (it does not say how much that takes); of Emulated GPU's memory "),
                  0u)
            << error_;
        EXPECT_NE(error_.find(" are free, the rest is held by python (pid 4711) 7.5 GiB\n"),
                  std::string::npos)
            << error_;
        EXPECT_EQ(checkpoints(".").size(), 1u) << "nothing was made but data";
    }
}

}  // namespace
}  // namespace plumb
#endif
