// plumb-infer on the tests' GPU (tests/kernels/gpu), as a user runs it: the text of the CPU, in
// fp32 and from one checkpoint.
#include "tests/infer/infer_program.h"
#include "tests/kernels/gpu/gpu_device.h"

#ifdef PLUMB_GPU_BIN_DIR
namespace plumb {
namespace {

class GpuInfer : public PlumbInfer {
  protected:
    void SetUp() override {
        if (!testing::gpu::is_there()) GTEST_SKIP() << "no GPU";
    }
    int on_gpu(const std::string& arguments) {
        return run_in(PLUMB_GPU_BIN_DIR, arguments + " --run.device=cuda", "");
    }
};

TEST_F(GpuInfer, GeneratesTheTextOfACpu) {
    for (const std::string how :
         {"--prompt 'The prompt'", "--prompt abcdefgh --temperature 1 --seed 3 --top-k 40",
          "--prompt abcdefgh --temperature 0.7 --top-p 0.9 --repetition-penalty 1.3",
          "--prompt a --prompt 'and another' --generate.batch=2 --generate.prefill_chunk=3"}) {
        const std::string arguments =
            "generate --checkpoint " + path("bytes") + " --max-new-tokens 24 " + how;
        ASSERT_EQ(run(arguments), 0) << error_;
        const std::string text = output_;
        ASSERT_EQ(on_gpu(arguments), 0) << error_;
        EXPECT_EQ(output_, text) << how;
        ASSERT_EQ(on_gpu(arguments + " --run.graph=false"), 0) << error_;
        EXPECT_EQ(output_, text) << how << " without a graph";
    }
    expect_in_error("\nof these on the GPU: ");
    expect_in_error(" held, by all processes, against ");
}

TEST_F(GpuInfer, ScoresATextAsACpuDoes) {
    std::ofstream(path("scored"), std::ios::binary) << "a text that is longer than its windows";
    const std::string arguments = "perplexity --checkpoint " + path("bytes") + " --text " +
                                  path("scored") + " --batch.sequence_length=8 --stride 4";
    const auto loss = [&] {
        double value = 0;
        const size_t at = output_.find("loss: ");
        EXPECT_NE(at, std::string::npos) << output_ << error_;
        EXPECT_EQ(std::sscanf(output_.c_str() + at, "loss: %lf", &value), 1);
        return value;
    };
    ASSERT_EQ(run(arguments), 0) << error_;
    const double expected = loss();
    ASSERT_EQ(on_gpu(arguments), 0) << error_;
    EXPECT_NEAR(loss(), expected, 1e-5 * expected);
}

TEST_F(GpuInfer, SaysWhatFindsNoMemoryOfTheGpu) {
    if (!testing::gpu::kEmulated) GTEST_SKIP() << "a real GPU's memory is not ours to take";
    const std::string arguments =
        "generate --checkpoint " + path("bytes") + " --prompt a --run.device=cuda";
    for (const std::string taker : {"kernel", "product", "graph"}) {
        if (taker == "graph" && kBuildRedZoneBytes > 0) continue;  // op by op there
        EXPECT_EQ(run_in(PLUMB_GPU_BIN_DIR, arguments,
                         "PLUMB_EMULATED_COSTS='" + taker + " 9000000000' "),
                  3);
        expect_one_error("CUDA finds no memory for ");
    }
}

}  // namespace
}  // namespace plumb
#endif
