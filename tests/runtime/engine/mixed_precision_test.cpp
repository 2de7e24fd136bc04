// Training and generation in bf16 and fp16 beside the fp32 goldens; masters and loss scale in
// checkpoints; and one model's checkpoints loaded into every dtype.
#include <gtest/gtest.h>

#include <bit>
#include <cstring>

#include "runtime/engine/generate.h"
#include "runtime/engine/state_io.h"
#include "tests/formats/checkpoint_fixture.h"
#include "tests/runtime/engine/golden_session.h"

namespace plumb {
namespace {

GoldenRun run_in(ComputeDtype dtype) {
    GoldenRun run;
    run.dtype = dtype;
    return run;
}

float* loss_scale_of(Session& session) {
    return session.executor().data<float>(session.program().io.loss_scale);
}

// The fp32 masters of all parameters, in order.
std::vector<uint32_t> masters_of(Session& session) {
    std::vector<uint32_t> all;
    for (const Param& param : session.program().params) {
        const Dtype dtype = session.program().tensors[static_cast<size_t>(param.weight)].dtype;
        const Executor& executor = session.executor();
        for (int64_t i = 0; i < param.elements(); ++i) {
            if (dtype == Dtype::bf16)
                all.push_back(join_master({executor.data<uint16_t>(param.weight)[i],
                                           executor.data<uint16_t>(param.master)[i]}));
            else
                all.push_back(
                    executor.data<uint32_t>(dtype == Dtype::f16 ? param.master : param.weight)[i]);
        }
    }
    return all;
}

class MixedPrecisionTest : public testing::TestWithParam<std::tuple<const char*, ComputeDtype>> {
  protected:
    Golden golden_ = read_golden(std::get<0>(GetParam()));
    ComputeDtype dtype_ = std::get<1>(GetParam());

    Hash128 train(const GoldenRun& run, int64_t steps) {
        Session session(golden_config(golden_, run), Purpose::train);
        set_golden_weights(session);
        for (int64_t s = 0; s < steps; ++s) run_golden_step(session, golden_, s);
        return StateIo(session).digest();
    }
};

TEST_P(MixedPrecisionTest, LossesOfTwentyStepsFollowTheGolden) {
    Session session(golden_config(golden_, run_in(dtype_)), Purpose::train);
    set_golden_weights(session);
    const GoldenTraining& t = golden_.training;
    for (int64_t s = 0; s < t.steps; ++s) {
        const auto i = static_cast<size_t>(s);
        const StepResult result = run_golden_step(session, golden_, s);
        EXPECT_NEAR(result.loss, t.loss[i], 2e-2 * t.loss[i]) << "step " << s;
        EXPECT_NEAR(result.grad_norm, t.grad_norm[i], 5e-2 * t.grad_norm[i]) << "step " << s;
    }
    EXPECT_NE(masters_of(session).size(), 0U);
}

TEST_P(MixedPrecisionTest, SettingsThatChangeNoBit) {
    const Hash128 reference = train(run_in(dtype_), 4);
    GoldenRun run = run_in(dtype_);
    for (const Recompute& recompute :
         {Recompute{RecomputeKind::block, 1}, Recompute{RecomputeKind::selective},
          Recompute{RecomputeKind::attention}}) {
        run.recompute = recompute;
        EXPECT_EQ(train(run, 4), reference) << "recompute " << static_cast<int>(recompute.kind);
    }
    run = run_in(dtype_);
    run.threads = 2;
    EXPECT_EQ(train(run, 4), reference) << "two threads";
}

// Weights 2 bytes, what completes them 2 (bf16) or 4 (fp16), moments 8, gradient 4; 1-D parameters
// 4, 0, 8 and 4.
TEST_P(MixedPrecisionTest, BytesPerParameterInThePlan) {
    Session session(golden_config(golden_, run_in(dtype_)), Purpose::train);
    int64_t matrices = 0, vectors = 0;
    for (const Param& param : session.program().params)
        (param.is_matrix() ? matrices : vectors) += param.elements();
    const auto bytes = [&](Arena arena) {
        return session.plan().arena_bytes[static_cast<int>(arena)];
    };
    // Each unit's tensors are aligned, and the checked build keeps zones between them.
    const auto slack = static_cast<int64_t>(2 * session.program().units.size() + 2) *
                       (kAlignBytes + session.plan().red_zone_bytes);
    const auto expect = [&](Arena arena, int64_t least) {
        EXPECT_GE(bytes(arena), least) << arena_name(arena);
        EXPECT_LE(bytes(arena), least + slack) << arena_name(arena);
    };
    expect(Arena::weights, 2 * matrices + 4 * vectors);
    expect(Arena::master, (dtype_ == ComputeDtype::bf16 ? 2 : 4) * matrices);
    expect(Arena::moments, 8 * (matrices + vectors));
    expect(Arena::grads, 4 * (matrices + vectors));
}

TEST_P(MixedPrecisionTest, ResumeIsBitExact) {
    TemporaryFolder folder;
    RunConfig config = golden_config(golden_, run_in(dtype_));
    config.run.checkpoint.dir = folder.path();
    Session session(config, Purpose::train);
    set_golden_weights(session);
    for (int64_t s = 0; s < 3; ++s) run_golden_step(session, golden_, s);
    if (dtype_ == ComputeDtype::fp16) loss_scale_of(session)[1] = 17.0F;
    StateIo state(session);
    state.prepare_folder();
    SaveReport saved;
    ASSERT_TRUE(state.save({}, &saved).ok());
    EXPECT_EQ(saved.digest, state.digest());
    CheckpointReader reader(saved.directory.text);
    reader.verify(OwnedStaging(reader.staging_bytes()).spans());

    Session resumed(config, Purpose::train);
    StateIo reading(resumed);
    EXPECT_EQ(reading.load(folder.path()).digest, saved.digest);
    for (int64_t s = 3; s < 5; ++s) {
        run_golden_step(session, golden_, s);
        run_golden_step(resumed, golden_, s);
    }
    EXPECT_EQ(reading.digest(), state.digest());
    EXPECT_EQ(masters_of(resumed), masters_of(session));
}

INSTANTIATE_TEST_SUITE_P(Models, MixedPrecisionTest,
                         testing::Combine(testing::Values("gpt2", "llama", "llama_bias"),
                                          testing::Values(ComputeDtype::bf16, ComputeDtype::fp16)),
                         [](const auto& tested) {
                             return std::string(std::get<0>(tested.param)) +
                                    (std::get<1>(tested.param) == ComputeDtype::bf16 ? "_bf16"
                                                                                     : "_fp16");
                         });

constexpr ComputeDtype kDtypes[] = {ComputeDtype::fp32, ComputeDtype::bf16, ComputeDtype::fp16};

// The masters of a state are the same in every dtype, and so is its digest but for the loss scale.
TEST(MixedPrecisionLoad, EveryDtypeLoadsEveryOther) {
    const Golden golden = read_golden("llama");
    for (const ComputeDtype from : kDtypes) {
        TemporaryFolder folder;
        RunConfig config = golden_config(golden, run_in(from));
        config.run.checkpoint.dir = folder.path();
        Session session(config, Purpose::train);
        set_golden_weights(session);
        for (int64_t s = 0; s < 2; ++s) run_golden_step(session, golden, s);
        const std::vector<uint32_t> masters = masters_of(session);
        StateIo state(session);
        state.prepare_folder();
        SaveReport saved;
        ASSERT_TRUE(state.save({}, &saved).ok());
        for (const ComputeDtype to : kDtypes) {
            config.run.train.dtype = to;
            Session other(config, Purpose::train);
            StateIo reading(other);
            const LoadReport report = reading.load(folder.path());
            EXPECT_EQ(masters_of(other), masters);
            EXPECT_EQ(report.differences.empty(), from == to);
            if (from != ComputeDtype::fp16 && to != ComputeDtype::fp16) {
                EXPECT_EQ(reading.digest(), saved.digest);
            }
            if (to == ComputeDtype::fp16) {
                EXPECT_EQ(loss_scale_of(other)[0],
                          from == to ? loss_scale_of(session)[0] : 65536.0F);
            }
            // Inference holds the rounded weights alone.
            config.run.generate.dtype = to;
            Session inference(config, Purpose::generate);
            StateIo(inference).load(folder.path());
            const Param& param = inference.program().params[0];
            const char* w = inference.executor().data<char>(param.weight);
            const Dtype dtype = program_dtype(config, Purpose::generate);
            const auto bytes = static_cast<size_t>(param.elements() * dtype_bytes(dtype));
            // Otherwise what is rounded is rounded a second time.
            if (from != to && from != ComputeDtype::fp32) continue;
            const char* trained = other.executor().data<char>(other.program().params[0].weight);
            EXPECT_EQ(std::memcmp(w, trained, bytes), 0);
        }
    }
}

// All of a checkpoint but the tensors of one stream, as another writer might have left it.
std::string save_without(const std::string& stream, const std::string& from,
                         const std::string& folder) {
    CheckpointReader reader(from);
    const OwnedStaging staging(reader.staging_bytes());
    State state;
    state.chunk_bytes = reader.header().chunk_bytes_max;
    state.settings = reader.settings();
    for (int64_t t = 0; t < reader.tensor_count(); ++t) {
        const TensorRecord& record = reader.tensor(t);
        if (record.stream == stream) continue;
        state.add(record.stream, record.name, tensor_dtype(record), tensor_shape(record));
        reader.read_tensor(t, state.data.back().data(), staging.spans());
    }
    Saver saver(state);
    const Status status = saver.save(folder, 1);
    EXPECT_TRUE(status.ok()) << status.message;
    return saver.step_directory;
}

// Weights rounded to 16 bits are not the state that was trained: no training goes on from them.
TEST(MixedPrecisionLoad, TrainingNeedsTheMasters) {
    const Golden golden = read_golden("gpt2");
    for (const ComputeDtype from : {ComputeDtype::bf16, ComputeDtype::fp16}) {
        TemporaryFolder folder;
        RunConfig config = golden_config(golden, run_in(from));
        config.run.checkpoint.dir = folder.path() + "/run";
        Session session(config, Purpose::train);
        set_golden_weights(session);
        StateIo state(session);
        state.prepare_folder();
        SaveReport saved;
        ASSERT_TRUE(state.save({}, &saved).ok());
        const std::string stream = from == ComputeDtype::bf16 ? "master_lo" : "master";
        const std::string bare = save_without(stream, saved.directory.text, folder.path());
        for (const ComputeDtype to : kDtypes) {
            config.run.train.dtype = to;
            Session other(config, Purpose::train);
            try {
                StateIo(other).load(bare);
                ADD_FAILURE() << "loaded";
            } catch (const Error& error) {
                EXPECT_EQ(error.code(), ExitCode::bad_input);
                const std::string part =
                    " has no " + stream + " of " + session.program().params[0].name;
                EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
            }
        }
        Session inference(config, Purpose::generate);
        EXPECT_TRUE(StateIo(inference).load(bare).found) << "which reads params alone";
    }
}

TEST(LossScale, FallsWithOverflowAndRisesWithFiniteSteps) {
    const Golden golden = read_golden("gpt2");
    RunConfig config = golden_config(golden, run_in(ComputeDtype::fp16));
    config.run.train.loss_scale_window = 2;
    Session session(config, Purpose::train);
    set_golden_weights(session);
    loss_scale_of(session)[0] = 0x1p24F;  // gradients of the logits overflow fp16
    loss_scale_of(session)[1] = 1.0F;
    const std::vector<uint32_t> before = masters_of(session);
    StateIo state(session);
    const double* clip = session.executor().data<double>(session.program().io.clip);
    run_golden_step(session, golden, 0);
    EXPECT_EQ(clip[2], 0.0) << "not finite";
    EXPECT_EQ(masters_of(session), before) << "a skipped step changes no weight";
    EXPECT_EQ(loss_scale_of(session)[0], 0x1p23F);
    EXPECT_EQ(loss_scale_of(session)[1], 0.0F);
    loss_scale_of(session)[0] = 256.0F;
    const Hash128 digest = state.digest();
    run_golden_step(session, golden, 0);
    EXPECT_EQ(clip[2], 1.0);
    EXPECT_EQ(loss_scale_of(session)[0], 256.0F);
    run_golden_step(session, golden, 1);
    EXPECT_EQ(loss_scale_of(session)[0], 512.0F) << "two finite steps";
    EXPECT_EQ(loss_scale_of(session)[1], 0.0F);
    EXPECT_NE(state.digest(), digest);
}

// The scale is a power of two: it changes no bit where nothing overflows or underflows, and none of
// the norm that is shown.
TEST(LossScale, IsInTheDigestAndNotInTheNorm) {
    const Golden golden = read_golden("gpt2");
    double norm[2];
    Hash128 digest[2];
    for (const int i : {0, 1}) {
        Session session(golden_config(golden, run_in(ComputeDtype::fp16)), Purpose::train);
        set_golden_weights(session);
        loss_scale_of(session)[0] = i == 0 ? 1024.0F : 2048.0F;
        digest[i] = StateIo(session).digest();
        norm[i] = run_golden_step(session, golden, 0).grad_norm;
    }
    EXPECT_NE(digest[0], digest[1]);
    EXPECT_NEAR(norm[0], norm[1], 1e-3 * norm[0]);
}

}  // namespace
}  // namespace plumb
