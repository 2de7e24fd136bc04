// The numerics hash against the bits that it stands for: trainings of a golden model on the CPU and
// on the tests' GPU.
#include "runtime/engine/numerics.h"

#include <gtest/gtest.h>

#include "runtime/engine/state_io.h"
#include "tests/kernels/gpu/gpu_device.h"
#include "tests/runtime/engine/golden_session.h"

namespace plumb {
namespace {

struct Trained {
    Hash128 numerics;
    Hash128 digest;
};

class Numerics : public ::testing::Test {
  protected:
    Trained train(const GoldenRun& run) const {
        Session session(golden_config(golden_, run), Purpose::train);
        set_golden_weights(session);
        for (int64_t s = 0; s < 2; ++s) run_golden_step(session, golden_, s);
        return {numerics_hash(session), StateIo(session).digest()};
    }
    Hash128 hash_of(const RunConfig& config) const {
        return numerics_hash(Session(config, Purpose::train));
    }

    Golden golden_ = read_golden("gpt2");
};

TEST_F(Numerics, WhatChangesBitsChangesTheHash) {
    const Trained reference = train({});
    const auto expect_other = [&](const GoldenRun& run, const char* what) {
        const Trained trained = train(run);
        EXPECT_NE(trained.numerics, reference.numerics) << what;
        EXPECT_NE(trained.digest, reference.digest) << what << " says nothing";
    };
    GoldenRun run;
    run.loss_chunk = 8;
    expect_other(run, "loss chunk");
    run = {};
    run.reduction = Reduction::exact;
    expect_other(run, "reduction");
    run = {};
    run.device = "cpu-portable";
    if (host_isa() != Isa::portable) expect_other(run, "instruction set");
    RunConfig config = golden_config(golden_, {});
    config.run.batch.micro_batch = 1;
    EXPECT_NE(hash_of(config), reference.numerics) << "micro-batch";
}

TEST_F(Numerics, WhatChangesNoBitDoesNot) {
    std::vector<const char*> devices = {"cpu"};
    if (testing::gpu::is_there()) devices.push_back("cuda");
    for (const char* device : devices) {
        GoldenRun run;
        run.device = device;
        const Trained reference = train(run);
        const auto expect_same = [&](const char* what) {
            const Trained trained = train(run);
            EXPECT_EQ(to_hex(trained.numerics), to_hex(reference.numerics)) << device << what;
            EXPECT_EQ(to_hex(trained.digest), to_hex(reference.digest)) << device << what;
        };
        expect_same("again");
        run.threads = 2;
        expect_same("threads");
        for (const Recompute& recompute :
             {Recompute{RecomputeKind::block, 1}, Recompute{RecomputeKind::selective},
              Recompute{RecomputeKind::attention}}) {
            run.recompute = recompute;
            expect_same("recompute");
        }
    }
    RunConfig config = golden_config(golden_, {});
    const Hash128 cpu = hash_of(config);
    config.run.checkpoint.chunk_bytes = 4096;
    config.run.train.lr = 1;
    EXPECT_EQ(hash_of(config), cpu);
}

TEST_F(Numerics, OnAGpuItKnowsTf32WhereThatIsUsed) {
    if (!testing::gpu::is_there()) GTEST_SKIP() << "no GPU";
    GoldenRun run;
    run.device = "cuda";
    for (const ComputeDtype dtype : {ComputeDtype::fp32, ComputeDtype::bf16}) {
        run.dtype = dtype;
        RunConfig config = golden_config(golden_, run);
        const Hash128 plain = hash_of(config);
        config.run.run.tf32 = true;
        EXPECT_EQ(hash_of(config) == plain, dtype == ComputeDtype::bf16);
    }
    EXPECT_NE(train(run).numerics, train({}).numerics) << "a CPU's";
}

TEST_F(Numerics, OfACheckpointAreComparedWhereTheyAreKnown) {
    EXPECT_EQ(numerics_difference({}, {3, 4}), "");
    EXPECT_EQ(numerics_difference({3, 4}, {3, 4}), "");
    EXPECT_EQ(numerics_difference({3, 4}, {5, 4}),
              "numerics: 00000000000000040000000000000003 in the checkpoint, "
              "00000000000000040000000000000005 now: last digits may differ");
}

}  // namespace
}  // namespace plumb
