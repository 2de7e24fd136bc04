// Sessions on the tests' GPU (tests/kernels/gpu): the same programs, planned for a GPU, against the
// same goldens, graphs against single launches, checkpoints against the CPU's. On the emulated one
// its lanes run as late as they may and, reversed, as early; its memory is closed to the host. What
// that cannot show is left to a machine that has a GPU: cuBLASLt, rounding in tensor cores, speed.
#include <gtest/gtest.h>

#include <filesystem>

#include "runtime/engine/generate.h"
#include "runtime/engine/state_io.h"
#include "tests/kernels/gpu/gpu_device.h"
#include "tests/runtime/engine/golden_session.h"

namespace plumb {
namespace {

namespace gpu = testing::gpu;

constexpr int64_t kNoZones = 0;  // of the checked build, for what is said of sizes and graphs

constexpr ComputeDtype kDtypes[] = {ComputeDtype::fp32, ComputeDtype::bf16, ComputeDtype::fp16};

class GpuSession : public ::testing::TestWithParam<const char*> {
  protected:
    void SetUp() override {
        if (!gpu::is_there()) GTEST_SKIP() << "no GPU";
        folder_ = ::testing::TempDir() + "plumb_gpu_XXXXXX";
        ASSERT_NE(::mkdtemp(folder_.data()), nullptr);
    }
    void TearDown() override {
        gpu::set_reversed(false);
        gpu::set_eager_lanes("");
        if (!folder_.empty()) std::filesystem::remove_all(folder_);
    }

    static GoldenRun on(const char* device, ComputeDtype dtype) {
        GoldenRun run;
        run.device = device;
        run.dtype = dtype;
        return run;
    }
    Hash128 train(const RunConfig& config, int64_t steps) {
        Session session(config, Purpose::train);
        set_golden_weights(session);
        for (int64_t s = 0; s < steps; ++s) run_golden_step(session, golden_, s);
        return StateIo(session).digest();
    }
    RunConfig config_of(const GoldenRun& run, const std::string& folder = "") const {
        RunConfig config = golden_config(golden_, run);
        config.run.checkpoint.dir = folder_ + "/" + folder;
        config.run.checkpoint.chunk_bytes = 4096;
        return config;
    }

    Golden golden_ = read_golden(GetParam());
    std::string folder_;
};

TEST_P(GpuSession, LossesAndNormsAreThoseOfTheGolden) {
    const GoldenTraining& t = golden_.training;
    for (const ComputeDtype dtype : kDtypes) {
        Session session(config_of(on("cuda", dtype)), Purpose::train);
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

// Run to run, kernel by kernel instead of by one graph, with the GPU's threads, blocks and lanes in
// the reversed order, and with every recomputation.
TEST_P(GpuSession, SettingsThatChangeNoBit) {
    for (const ComputeDtype dtype : {ComputeDtype::fp32, ComputeDtype::bf16}) {
        RunConfig config = config_of(on("cuda", dtype));
        const Hash128 reference = train(config, 2);
        EXPECT_EQ(train(config, 2), reference) << "again";
        config.run.run.graph = false;
        EXPECT_EQ(train(config, 2), reference) << "without a graph";
        config.run.run.graph = true;
        gpu::set_reversed(true);
        EXPECT_EQ(train(config, 2), reference) << "reversed";
        gpu::set_reversed(false);
        for (const char* lanes : {"compute", "copy"}) {
            gpu::set_eager_lanes(lanes);
            EXPECT_EQ(train(config, 2), reference) << lanes << " at once";
        }
        gpu::set_eager_lanes("");
        for (const Recompute& recompute :
             {Recompute{RecomputeKind::block, 1}, Recompute{RecomputeKind::selective},
              Recompute{RecomputeKind::attention}}) {
            config.layout.recompute = recompute;
            EXPECT_EQ(train(config, 2), reference)
                << "recompute " << static_cast<int>(recompute.kind);
        }
    }
}

// What is planned is what is taken of the GPU's memory, and a step takes none.
TEST_P(GpuSession, TakesWhatIsPlannedOnce) {
    const int64_t free_before = open_gpu()->memory().free_bytes;
    Session session(config_of(on("cuda", ComputeDtype::bf16)), Purpose::train, kNoZones);
    const Plan& plan = session.plan();
    const int64_t arenas = arena_bytes_in(plan, MemorySpace::gpu);
    Gpu& gpu = *session.executor().gpu();
    const int64_t free_after = gpu.memory().free_bytes;
    if (gpu::kEmulated)
        EXPECT_EQ(free_before - free_after, arenas);
    else
        EXPECT_LE(free_before - free_after, arenas + plan.outside_bytes);
    set_golden_weights(session);
    for (int64_t s = 0; s < 2; ++s) run_golden_step(session, golden_, s);
    EXPECT_EQ(gpu.memory().free_bytes, free_after);
    EXPECT_EQ(session.arenas().reserved_bytes(), plan.total_bytes);
}

// The plan that a machine without a GPU makes for this one.
TEST_P(GpuSession, HasThePlanOfItsRecord) {
    const Session session(config_of(on("cuda", ComputeDtype::bf16)), Purpose::train, kNoZones);
    const char* record = session.device().isa == Isa::sm80 ? "cuda-sm80" : "cuda-sm90";
    const Plan plan = plan_of(config_of(on(record, ComputeDtype::bf16)), Purpose::train);
    EXPECT_EQ(session.plan().digest, plan.digest);
    EXPECT_EQ(session.plan().total_bytes, plan.total_bytes);
}

// Both ways, in every dtype: the same digest by the GPU's digest ops, by the saving thread's and by
// the CPU's.
TEST_P(GpuSession, CheckpointsAreThoseOfACpu) {
    for (const ComputeDtype dtype : kDtypes)
        for (const char* from : {"cpu", "cuda"}) {
            const std::string name = from + std::to_string(static_cast<int>(dtype));
            SCOPED_TRACE(name);
            Session saving(config_of(on(from, dtype), name), Purpose::train);
            set_golden_weights(saving);
            run_golden_step(saving, golden_, 0);
            StateIo saved(saving);
            saved.prepare_folder();
            RunRecord record;
            record.step = 1;
            SaveReport report;
            ASSERT_TRUE(saved.save(record, &report).ok());
            EXPECT_EQ(report.digest, saved.digest());
            const char* to = std::string_view(from) == "cpu" ? "cuda" : "cpu";
            for (const ComputeDtype other : kDtypes) {
                // The dtypes meet once.
                if (other != dtype && std::string_view(GetParam()) != "gpt2") continue;
                Session loading(config_of(on(to, other)), Purpose::train);
                StateIo loaded(loading);
                ASSERT_TRUE(loaded.load(folder_ + "/" + name).found);
                if (other == dtype) {
                    EXPECT_EQ(loaded.digest(), report.digest);
                }
                const StepResult next = run_golden_step(loading, golden_, 1);
                EXPECT_NEAR(next.loss, golden_.training.loss[1], 2e-2 * golden_.training.loss[1]);
            }
        }
}

TEST_P(GpuSession, GeneratesWhatACpuGenerates) {
    std::vector<std::vector<int32_t>> texts;
    for (const char* device : {"cpu", "cuda"}) {
        RunConfig config = config_of(on(device, ComputeDtype::fp32));
        config.run.generate.batch = 2;
        config.run.generate.prefill_chunk = 5;
        config.run.generate.dtype = ComputeDtype::fp32;
        Session session(config, Purpose::generate);
        set_golden_weights(session);
        Generator generator(session);
        for (const double temperature : {0.0, 0.8}) {
            const SamplingSettings sampling{temperature, 7, 40, 0.95, temperature > 0 ? 1.1 : 1.0};
            for (int64_t n = 0; n < 2; ++n) {
                std::vector<int32_t> prompt;
                for (int64_t i = 0; i < 7 + n; ++i)
                    prompt.push_back(golden_token(n, i, golden_.vocab_size));
                generator.start(prompt.data(), static_cast<int64_t>(prompt.size()), sampling, n);
            }
            for (int i = 0; i < 6; ++i) generator.next();
            for (int64_t n = 0; n < 2; ++n)
                texts.emplace_back(generator.new_tokens(n),
                                   generator.new_tokens(n) + generator.new_count(n));
            EXPECT_TRUE(std::isfinite(generator.logits(1)[0]));
        }
    }
    ASSERT_EQ(texts.size(), 8u);
    for (size_t i = 0; i < 4; ++i) EXPECT_EQ(texts[i], texts[i + 4]) << i;
}

TEST_P(GpuSession, RefusesWhatDoesNotFit) {
    RunConfig config = config_of(on("cuda", ComputeDtype::bf16));
    const Plan plan = plan_of(config, Purpose::train);
    const int64_t needed = plan.space_bytes[static_cast<int>(MemorySpace::gpu)];
    config.run.run.memory = needed - 1;
    const auto refusal = [&] {
        try {
            const Session session(config, Purpose::train, kNoZones);
        } catch (const Error& error) {
            EXPECT_EQ(error.code(), ExitCode::does_not_fit);
            return std::string(error.what());
        }
        return std::string();
    };
    EXPECT_NE(refusal().find("run.memory is " + std::to_string(needed - 1) + " bytes"),
              std::string::npos)
        << refusal();
    config.run.run.memory = needed;
    EXPECT_EQ(refusal(), "");
#ifdef PLUMB_CUDA_EMULATION
    // All of the GPU but `held` is free: CUDA has taken at most that of what it needs.
    const int64_t arenas = arena_bytes_in(plan, MemorySpace::gpu);
    const int64_t outside = needed - arenas;
    cuda::emulation::set_memory_holders("python (pid 4711) 70.1 GiB");
    for (const int64_t held : {int64_t{0}, outside / 2, outside, 3 * outside}) {
        const std::unique_ptr<Gpu> gpu = open_gpu();
        void* taken = gpu->allocate(held);
        const int64_t to_come = std::max<int64_t>(0, outside - held);
        cuda::emulation::set_gpu_memory(held + arenas + to_come - 1);
        EXPECT_EQ(refusal().find("the plan needs " + bytes_text(arenas) + " in arenas and " +
                                 bytes_text(to_come) + " that CUDA has not taken yet; of "),
                  0u)
            << refusal();
        EXPECT_NE(refusal().find("held by python (pid 4711) 70.1 GiB"), std::string::npos);
        cuda::emulation::set_gpu_memory(held + arenas + to_come);
        EXPECT_EQ(refusal(), "");
        cuda::emulation::set_gpu_memory(cuda::emulation::kGpuMemoryBytes);
        gpu->release(taken);
    }
    cuda::emulation::set_gpu_memory(cuda::emulation::kGpuMemoryBytes);
    cuda::emulation::set_memory_holders("");
#endif
}

#ifdef PLUMB_CUDA_EMULATION
TEST_P(GpuSession, AStepIsOneGraph) {
    RunConfig config = config_of(on("cuda", ComputeDtype::bf16));
    for (const bool graph : {true, false}) {
        config.run.run.graph = graph;
        Session session(config, Purpose::train, kNoZones);
        set_golden_weights(session);
        const auto before = cuda::emulation::gpu_counts();
        for (int64_t s = 0; s < 3; ++s) run_golden_step(session, golden_, s);
        const auto after = cuda::emulation::gpu_counts();
        EXPECT_EQ(after.graphs - before.graphs, graph ? 3 : 0);
        EXPECT_EQ(after.launches == before.launches, graph);
        EXPECT_EQ(after.allocations, before.allocations);
    }
}
#endif

INSTANTIATE_TEST_SUITE_P(Models, GpuSession, ::testing::Values("gpt2", "llama", "llama_bias"),
                         [](const auto& model) { return std::string(model.param); });

}  // namespace
}  // namespace plumb
