// Nothing of ours allocates after seal: counted over a whole training in this process, and death
// to those who do.
#include <cstdio>

#include "runtime/exec/seal.h"
#include "tests/trainer/train_folder.h"
#include "trainer/train_loop.h"

namespace plumb {
namespace {

class Allocation : public TrainFolder {
  protected:
    void SetUp() override {
#ifdef PLUMB_SANITIZE
        ASSERT_FALSE(seal_is_enforced());
        GTEST_SKIP() << "sanitizers bring their own allocator: nothing is enforced in this build";
#else
        ASSERT_TRUE(seal_is_enforced());
        TrainFolder::SetUp();
#endif
    }
};

// 50 steps, two evaluations, two samples of 200 tokens and saves beside every other step. An
// allocation outside a LibraryScope would abort; no library of ours is in a scope, so all counts
// are zero.
TEST_F(Allocation, TrainingEvaluatingGeneratingAndSavingAllocateNothing) {
    RunConfig config = parse_run(
        contents_of(path("run.toml")), "run.toml", folder_,
        {"model.max_position_embeddings=256", "train.steps=50", "train.eval_every=25",
         "train.sample_tokens=200", "run.threads=2", "checkpoint.every=2",
         "checkpoint.dir=" + path("run"), "data.train=" + path("data/train.bin"),
         "data.valid=" + path("data/valid.bin"), "batch.micro_batch=1", "batch.global_batch=2"});
    const TokenFile train(config.run.data.train), valid(config.run.data.valid);
    const DataLoader train_loader(train, 256, DataOrder::shuffled, 1);
    const DataLoader valid_loader(valid, 256, DataOrder::sequential, 1);
    Session session(config, Purpose::train);
    session.run_phase(PhaseKind::initialise);
    StateIo state(session);
    state.prepare_folder();
    TextSampler sampler(session, valid);
    EventFile events(path("run"), 0);
    StepLog log(path("run"), 0, 50, 1, &events);
    StopRequest stop(path("run"));
    PeakMemory peak;
    BackgroundSave saver(state);
    TrainLoop loop({session, &saver, train_loader, &valid_loader, &sampler, log, stop, peak, 1.0},
                   {}, "");
    ::testing::internal::CaptureStdout();
    session.seal();
    const TrainResult result = loop.run();
    const bool sealed = is_sealed();
    const AllocationCounts counts = allocation_counts();
    unseal();
    const std::string text = ::testing::internal::GetCapturedStdout();
    EXPECT_TRUE(sealed);
    EXPECT_EQ(result.end, TrainEnd::finished);
    EXPECT_FALSE(result.last_save_failed);
    EXPECT_EQ(this->log("loss").size(), 50u);
    EXPECT_EQ(this->log("valid_loss").size(), 2u);
    EXPECT_EQ(digests().size(), 25u);
    EXPECT_NE(text.find("sample after step 50"), std::string::npos) << text;
    for (int i = 0; i < static_cast<int>(Library::count); ++i) {
        EXPECT_EQ(counts.calls[i], 0) << library_name(static_cast<Library>(i));
        EXPECT_EQ(counts.bytes[i], 0) << library_name(static_cast<Library>(i));
    }
}

// Hides a pointer's origin, so that no compiler removes the allocation behind it.
void keep(const void* pointer) {
    asm volatile("" : : "r"(pointer) : "memory");
}

using AllocationDeathTest = Allocation;

TEST_F(AllocationDeathTest, AStringAfterSealEndsTheProcess) {
    EXPECT_DEATH(
        {
            seal();
            const std::string text(100, 'x');
            keep(text.data());
        },
        "allocation of 101 bytes after seal");
}

TEST_F(AllocationDeathTest, AnOpenedStreamAfterSealEndsTheProcess) {
    EXPECT_DEATH(
        {
            seal();
            std::FILE* file = std::fopen("/dev/null", "r");
            keep(file);
        },
        "allocation of [0-9]+ bytes after seal");
}

// The saving thread is ours: seal judges it too.
TEST_F(AllocationDeathTest, AnAllocationWhileSavingEndsTheProcess) {
    const RunConfig config = parse_run(contents_of(path("run.toml")), "run.toml", folder_,
                                       {"checkpoint.dir=" + path("run")});
    FileLayer files = posix_files();
    files.fdatasync = [](void*, int) {
        const std::string text(100, 'x');
        keep(text.data());
        return 0;
    };
    EXPECT_DEATH(
        {
            Session session(config, Purpose::train);
            session.run_phase(PhaseKind::initialise);
            StateIo state(session, files);
            state.prepare_folder();
            BackgroundSave saver(state);
            session.seal();
            saver.start({});
            saver.finish();
        },
        "allocation of 101 bytes after seal");
}

TEST_F(AllocationDeathTest, InsideALibraryScopeItIsCounted) {
    EXPECT_EXIT(
        {
            seal();
            {
                const LibraryScope scope(Library::libc);
                std::FILE* file = std::fopen("/dev/null", "r");
                keep(file);
            }
            const AllocationCounts counts = allocation_counts();
            ::_exit(counts.calls[static_cast<int>(Library::libc)] == 1 &&
                            counts.bytes[static_cast<int>(Library::libc)] > 100
                        ? 0
                        : 1);
        },
        ::testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace plumb
