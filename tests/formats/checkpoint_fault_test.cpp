// A call goes wrong, for every call of a load, a start's clean-up, a save and the retention after
// it, until there is no further call. What was interrupted or fell short is carried on; an error is
// reported with the file and the reason, costs no checkpoint, and the next start leaves no trace.
#include <gtest/gtest.h>

#include "tests/formats/simulated_training.h"

namespace plumb {
namespace {

struct Kind {
    const char* name;
    Fault fault;
    int error;
    bool for_ever;
};
constexpr Kind kKinds[] = {
    {"EIO", Fault::error, EIO, false},
    {"EIO from then on", Fault::error, EIO, true},
    {"ENOSPC", Fault::error, ENOSPC, false},
    {"ENOSPC from then on", Fault::error, ENOSPC, true},
    {"EINTR", Fault::interrupted, 0, false},
    {"a short count", Fault::short_count, 0, false},
    {"short counts from then on", Fault::short_count, 0, true},
};

struct Faults : ::testing::Test {
    Faults() {
        SimulatedDisk disk;
        throw_if_failed(training.make_folder(disk.layer()));
        for (const int64_t step : {1, 2, 3}) throw_if_failed(training.save(step, disk.layer()));
        image = disk.now();
        // What a start has to clean up: a save without its MANIFEST, and one without anything.
        const std::string step = std::string(SimulatedTraining::kFolder) + "/step-000000000009-";
        image.file(step + "00000001/data-00000.pck").assign(5000, 0);
        image.file(step + "00000002/MANIFEST.tmp").assign(100, 1);
    }

    // Runs `work` on a disk with three checkpoints and with its n-th call going wrong, for all
    // kinds and every n. `judge` says whether what it returned is right, without a fault then.
    // Retention has not run, so that it has something to do: three are whole at first.
    void for_every_call(
        int64_t calls_least, const std::function<Status(const FileLayer&)>& work,
        const std::function<void(SimulatedDisk&, const Kind&, const Status&)>& judge) {
        for (const Kind& kind : kKinds) {
            int64_t failures = 0;
            int64_t calls = 1;
            for (int64_t n = 0; n < calls; ++n) {
                SCOPED_TRACE(std::string(kind.name) + " at call " + std::to_string(n));
                SimulatedDisk disk(image);
                FaultyFiles files(disk.layer());
                files.fault_at = n;
                files.fault = kind.fault;
                files.error = kind.error;
                files.for_ever = kind.for_ever;
                const Status status = work(files.layer);
                if (files.calls > n) calls = std::max(calls, n + 2);
                failures += status.ok() ? 0 : 1;
                expect_told(kind, status);
                ASSERT_EQ(disk.open_files(), 0);
                ASSERT_NO_THROW(training.expect_untouched());
                judge(disk, kind, status);
                if (HasFatalFailure()) return;
            }
            EXPECT_GT(calls, calls_least) << kind.name;
            EXPECT_EQ(failures > 0, kind.fault == Fault::error) << kind.name;
        }
    }

    // An error is one of the call that failed, and says which file and why.
    void expect_told(const Kind& kind, const Status& status) const {
        ASSERT_TRUE(status.ok() || kind.fault == Fault::error) << status.message;
        if (status.ok()) return;
        EXPECT_EQ(status.code, StatusCode::io) << status.message;
        EXPECT_EQ(status.system_errno, kind.error) << status.message;
        EXPECT_NE(std::string(status.message).find(path_told), std::string::npos) << status.message;
        EXPECT_NE(std::string(status.message).find(strerrordesc_np(kind.error)), std::string::npos)
            << status.message;
    }

    // The machine goes on without faults, and loses nothing.
    void expect_start(SimulatedDisk& disk, const Promise& promise) {
        size_t saved_at = 0;
        try {
            training.start(disk, promise, &saved_at);
        } catch (const std::exception& violation) {
            FAIL() << violation.what();
        }
    }

    SimulatedTraining training;
    DiskImage image;
    std::string path_told = SimulatedTraining::kFolder;
};

TEST_F(Faults, OfASaveCostNoCheckpoint) {
    for_every_call(
        30, [&](const FileLayer& files) { return training.save(4, files); },
        [&](SimulatedDisk& disk, const Kind& kind, const Status& status) {
            // A save that fails removes what it made, when it can.
            for (const std::string& path : disk.now().paths())
                EXPECT_TRUE(status.ok() || kind.for_ever ||
                            path.find("/step-000000000004") == std::string::npos)
                    << path;
            expect_start(disk, {status.ok() ? 4 : 3, 4, 3});
        });
}

TEST_F(Faults, OfRetentionCostNoCheckpointThatIsKept) {
    for_every_call(
        15, [&](const FileLayer& files) { return training.prune(files); },
        [&](SimulatedDisk& disk, const Kind&, const Status&) {
            expect_start(disk, {3, 3, 2});
        });
}

TEST_F(Faults, OfACleanUpCostNoCheckpoint) {
    for_every_call(
        30, [&](const FileLayer& files) { return training.remove_unfinished(files); },
        [&](SimulatedDisk& disk, const Kind&, const Status&) {
            expect_start(disk, {3, 3, 3});
        });
}

TEST_F(Faults, OfMakingTheFolderAreTold) {
    image = {};
    path_told = " /";  // each directory above it can fail
    for_every_call(
        4, [&](const FileLayer& files) { return training.make_folder(files); },
        [&](SimulatedDisk& disk, const Kind&, const Status&) {
            expect_start(disk, {0, 0, 0});
        });
}

// A read error falls back to the step before and says so; other errors end the load. Nothing that
// is not a whole checkpoint is ever taken.
TEST_F(Faults, OfALoadAreToldAndTakeNothingWrong) {
    for_every_call(
        30,
        [&](const FileLayer& files) {
            Status told;
            const auto remember = [&](const Error& error) {
                told = failure(StatusCode::io, "%s", error.what());
                for (const int known : {EIO, ENOSPC})
                    if (told.ok() || std::strstr(told.message, strerrordesc_np(known)) != nullptr)
                        told.system_errno = known;
            };
            try {
                const int64_t loaded = training.load(files, [&](const CheckpointDamage& why) {
                    EXPECT_FALSE(why.lasting()) << why.what();
                    remember(why);
                });
                EXPECT_GT(loaded, 0);
                EXPECT_TRUE(loaded == 3 || !told.ok()) << loaded;
            } catch (const Error& error) {
                EXPECT_EQ(error.code(), ExitCode::io);
                remember(error);
            }
            return told;
        },
        [&](SimulatedDisk& disk, const Kind&, const Status&) {
            expect_start(disk, {3, 3, 3});
        });
}

}  // namespace
}  // namespace plumb
