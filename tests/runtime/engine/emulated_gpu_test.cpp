// Whole training steps with the CUDA kernels on the emulated GPU
// (tests/kernels/gpu): the same program, planned for a GPU, against the same goldens. What
// the emulation cannot show is left to a machine that has one: streams, graphs, cuBLASLt.
#include <gtest/gtest.h>

#include "runtime/engine/state_io.h"
#include "tests/runtime/engine/golden_session.h"

#ifdef PLUMB_CUDA_EMULATION
#include <cuda_emulation.h>

namespace plumb {
namespace {

GoldenRun on_gpu(ComputeDtype dtype) {
    GoldenRun run;
    run.device = "cuda-sm80";
    run.dtype = dtype;
    return run;
}

class EmulatedGpu : public testing::TestWithParam<const char*> {
  protected:
    void TearDown() override { cuda::emulation::set_reversed(false); }

    Golden golden_ = read_golden(GetParam());

    Hash128 train(const GoldenRun& run, int64_t steps) {
        Session session(golden_config(golden_, run), Purpose::train);
        set_golden_weights(session);
        for (int64_t s = 0; s < steps; ++s) run_golden_step(session, golden_, s);
        return StateIo(session).digest();
    }
};

TEST_P(EmulatedGpu, LossesAndNormsAreThoseOfTheGolden) {
    const GoldenTraining& t = golden_.training;
    for (const ComputeDtype dtype : {ComputeDtype::fp32, ComputeDtype::bf16, ComputeDtype::fp16}) {
        Session session(golden_config(golden_, on_gpu(dtype)), Purpose::train);
        set_golden_weights(session);
        const bool wide = dtype == ComputeDtype::fp32;
        for (int64_t s = 0; s < (wide ? t.steps / 2 : 3); ++s) {
            const auto i = static_cast<size_t>(s);
            const StepResult result = run_golden_step(session, golden_, s);
            EXPECT_NEAR(result.loss, t.loss[i], (wide ? 1e-5 : 2e-2) * t.loss[i]) << s;
            EXPECT_NEAR(result.grad_norm, t.grad_norm[i], (wide ? 1e-5 : 5e-2) * t.grad_norm[i])
                << s;
        }
    }
}

// Run to run, with the GPU's threads and blocks in reversed order, and with every recomputation.
TEST_P(EmulatedGpu, SettingsThatChangeNoBit) {
    for (const ComputeDtype dtype : {ComputeDtype::fp32, ComputeDtype::bf16}) {
        GoldenRun run = on_gpu(dtype);
        const Hash128 reference = train(run, 1);
        cuda::emulation::set_reversed(true);
        EXPECT_EQ(train(run, 1), reference) << "reversed";
        cuda::emulation::set_reversed(false);
        for (const Recompute& recompute :
             {Recompute{RecomputeKind::block, 1}, Recompute{RecomputeKind::selective},
              Recompute{RecomputeKind::attention}}) {
            run.recompute = recompute;
            EXPECT_EQ(train(run, 1), reference) << "recompute " << static_cast<int>(recompute.kind);
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Models, EmulatedGpu, testing::Values("gpt2", "llama", "llama_bias"),
                         [](const auto& model) { return std::string(model.param); });

}  // namespace
}  // namespace plumb
#endif
