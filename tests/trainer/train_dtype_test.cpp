// plumb-train in every dtype, as a user would run it: losses beside fp32, resume to the bit, a
// change of dtype between runs, and the loss scale of fp16.
#include <algorithm>
#include <cmath>

#include "tests/source_path.h"
#include "tests/trainer/train_folder.h"

namespace plumb {
namespace {

class TrainDtype : public TrainFolder {};

TEST_F(TrainDtype, LossesFollowThoseOfFp32AndTheLogNamesTheDtype) {
    ASSERT_EQ(train("--train.dtype=fp32 --checkpoint.dir=fp32"), 0) << error_;
    const auto reference = log("loss", "fp32");
    for (const std::string dtype : {"bf16", "fp16"}) {
        ASSERT_EQ(train("--train.dtype=" + dtype + " --checkpoint.dir=" + dtype), 0) << error_;
        EXPECT_NE(output_.find("tokens, " + dtype + "\n"), std::string::npos) << output_;
        const auto lines = log("loss", dtype);
        ASSERT_EQ(lines.size(), reference.size());
        for (size_t i = 0; i < lines.size(); ++i) {
            const double loss = reference[i]["loss"];
            EXPECT_NEAR(lines[i]["loss"].get<double>(), loss, 5e-2 * loss) << dtype << " " << i;
            EXPECT_EQ(lines[i].contains("loss_scale"), dtype == "fp16");
        }
    }
}

TEST_F(TrainDtype, ResumeIsBitExact) {
    for (const std::string dtype : {"bf16", "fp16"}) {
        const std::string settings =
            "--train.dtype=" + dtype + " --train.loss_scale_window=30 --checkpoint.dir=";
        ASSERT_EQ(train(settings + dtype), 0) << error_;
        ASSERT_EQ(train(settings + dtype + "2 --train.stop_at=60"), 0) << error_;
        ASSERT_EQ(train(settings + dtype + "2"), 0) << error_;
        EXPECT_EQ(digests(dtype + "2").back(), digests(dtype).back());
        EXPECT_EQ(log("loss", dtype + "2"), [&] {
            auto lines = log("loss", dtype);
            auto resumed = log("loss", dtype + "2");
            // Times differ.
            for (size_t i = 0; i < lines.size() && i < resumed.size(); ++i)
                for (const char* key : {"step_ms", "tokens_per_s", "mfu"})
                    lines[i][key] = resumed[i][key];
            return lines;
        }());
    }
}

// The state goes on in the new dtype, with the same masters.
TEST_F(TrainDtype, ARunChangesItsDtype) {
    std::string dtypes[] = {"bf16", "fp32", "fp16", "bf16"};
    std::string last;
    for (int i = 0; i < 4; ++i) {
        ASSERT_EQ(train("--train.dtype=" + dtypes[i] +
                        " --train.stop_at=" + std::to_string(20 * (i + 1))),
                  0)
            << error_;
        if (i == 0) continue;
        EXPECT_NE(output_.find("differs: train.dtype: \"" + dtypes[i - 1] +
                               "\" in the checkpoint, \"" + dtypes[i] + "\" now"),
                  std::string::npos)
            << output_;
        EXPECT_NE(output_.find("resumed at step " + std::to_string(20 * i)), std::string::npos);
    }
    EXPECT_LT(log("loss").back()["loss"].get<double>(), log("loss").front()["loss"].get<double>());
}

// A machine chooses one of bf16 and fp32 for a new run, so that here one of two, and fp16, would
// change.
TEST_F(TrainDtype, AutoKeepsTheDtypeOfWhatIsResumed) {
    for (const std::string dtype : {"fp32", "bf16", "fp16"}) {
        const std::string in = "--train.stop_at=20 --train.dtype=auto --checkpoint.dir=" + dtype;
        ASSERT_EQ(train(in + " --train.stop_at=10 --train.dtype=" + dtype), 0) << error_;
        EXPECT_EQ(output_.find("train.dtype"), std::string::npos) << output_;
        ASSERT_EQ(plan(in), 0) << error_;
        EXPECT_NE(output_.find("train in " + dtype + ", "), std::string::npos)
            << "what is planned is what runs\n"
            << output_;
        const std::string note = "note: train.dtype is auto: goes on in " + dtype + ", as the ";
        EXPECT_NE(error_.find(note), std::string::npos) << error_;
        ASSERT_EQ(train(in), 0) << error_;
        EXPECT_NE(output_.find("note: train.dtype is auto: goes on in " + dtype +
                               ", as the checkpoint in " + dtype + "\n"),
                  std::string::npos)
            << output_;
        EXPECT_NE(output_.find(" tokens, " + dtype + "\n"), std::string::npos) << output_;
        EXPECT_NE(output_.find("resumed at step 10 "), std::string::npos) << output_;
        EXPECT_EQ(output_.find("differs: train.dtype"), std::string::npos) << output_;
        ASSERT_EQ(train("--train.stop_at=10 --checkpoint.dir=other --checkpoint.resume=" + dtype +
                        "/" + checkpoints(dtype)[0]),
                  0)
            << error_;
        EXPECT_NE(output_.find(" tokens, " + dtype + "\n"), std::string::npos) << output_;
    }
}

// From the largest scale there is, gradients overflow until it has fallen far enough.
TEST_F(TrainDtype, ALossScaleThatIsTooLargeFallsWithoutEndingTheRun) {
    ASSERT_EQ(train("--train.dtype=fp16 --train.loss_scale=16777216 --train.steps=60 "
                    "--train.min_lr=0 --train.lr=1e-3"),
              0)
        << error_;
    const auto lines = log("loss");
    ASSERT_EQ(lines.size(), 60U);
    EXPECT_GT(lines.back()["skipped"].get<int64_t>(), 0);
    EXPECT_LT(lines.back()["loss_scale"].get<double>(), 16777216.0);
    EXPECT_NE(output_.find("the loss scale is now 8388608"), std::string::npos) << output_;
    EXPECT_TRUE(lines.back()["grad_norm"].is_number());
}

// This project's own documents and sources: real text that is always there.
std::vector<std::string> own_files() {
    std::vector<std::string> files;
    const std::string sources = source_path("runtime");
    for (const auto& entry : std::filesystem::recursive_directory_iterator(sources))
        if (entry.path().extension() == ".cpp") files.push_back(entry.path());
    for (const char* name : {"DESIGN.md", "README.md", "formats/CHECKPOINT.md"})
        files.push_back(source_path(name));
    std::sort(files.begin(), files.end());
    return files;
}

// 200 steps end within 1% of the fp32 run's validation loss.
TEST_F(TrainDtype, RealTextEndsWhereFp32Ends) {
    write_byte_tokens(own_files(), path("text"), 0.1);
    double loss[3];
    const std::string dtypes[] = {"fp32", "bf16", "fp16"};
    for (int i = 0; i < 3; ++i) {
        ASSERT_EQ(train("--model.hidden_size=64 --model.num_attention_heads=4 "
                        "--model.max_position_embeddings=64 --batch.sequence_length=64 "
                        "--batch.micro_batch=8 --batch.global_batch=8 --train.steps=200 "
                        "--train.lr=1e-3 --train.min_lr=1e-4 --train.eval_every=200 "
                        "--train.eval_batches=40 --train.sample_tokens=0 --checkpoint.every=0 "
                        "--data.train=text/train.bin --data.valid=text/valid.bin "
                        "--train.dtype=" +
                        dtypes[i] + " --checkpoint.dir=" + dtypes[i]),
                  0)
            << error_;
        loss[i] = log("valid_loss", dtypes[i]).back()["valid_loss"];
        std::printf("%s: valid loss %.4f\n", dtypes[i].c_str(), loss[i]);
    }
    EXPECT_LT(loss[0], 3.2) << "counts of single bytes would reach 3.56";
    EXPECT_NEAR(loss[1], loss[0], 0.01 * loss[0]);
    EXPECT_NEAR(loss[2], loss[0], 0.01 * loss[0]);
}

}  // namespace
}  // namespace plumb
