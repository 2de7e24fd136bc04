// Saves beside a training in this process, through files that a test can hold up: what is written
// is the state of the step that was to be saved, and saving changes no bit of what is trained.
#include <csignal>
#include <functional>
#include <map>
#include <optional>
#include <thread>

#include "tests/trainer/train_folder.h"
#include "trainer/train_loop.h"

namespace plumb {
namespace {

// The system's files, with a word to say before each write and each fdatasync of a data file: a
// test may hold the saving thread up there, or make the call fail with an errno.
struct HeldFiles {
    std::function<int(int64_t step, int64_t write)> on_write = [](int64_t, int64_t) { return 0; };
    std::function<int(int64_t step)> on_sync = [](int64_t) { return 0; };
    FileLayer layer = posix_files();

    HeldFiles() {
        layer.context = this;
        layer.open = [](void* context, const char* path, int flags, unsigned mode) {
            auto& self = *static_cast<HeldFiles*>(context);
            const int fd = posix_files().open(nullptr, path, flags, mode);
            const std::string text(path);
            const size_t at = text.find("/step-");
            if (at != std::string::npos && text.find("/data-") != std::string::npos)
                self.fd_ = fd, self.write_ = 0, self.step_ = std::stoll(text.substr(at + 6));
            return fd;
        };
        layer.close = [](void* context, int fd) {
            auto& self = *static_cast<HeldFiles*>(context);
            if (fd == self.fd_) self.fd_ = -1;
            return posix_files().close(nullptr, fd);
        };
        layer.pwrite = [](void* context, int fd, const void* data, int64_t size,
                          int64_t offset) -> int64_t {
            auto& self = *static_cast<HeldFiles*>(context);
            if (fd == self.fd_) errno = self.on_write(self.step_, self.write_++);
            if (fd == self.fd_ && errno != 0) return -1;
            return posix_files().pwrite(nullptr, fd, data, size, offset);
        };
        layer.fdatasync = [](void* context, int fd) {
            auto& self = *static_cast<HeldFiles*>(context);
            errno = self.on_sync(self.step_);
            return errno != 0 ? -1 : posix_files().fdatasync(nullptr, fd);
        };
    }
    HeldFiles(const HeldFiles&) = delete;
    HeldFiles& operator=(const HeldFiles&) = delete;

  private:
    int fd_ = -1;
    int64_t step_ = 0;
    int64_t write_ = 0;
};

class TrainSave : public TrainFolder {
  protected:
    struct Trained {
        TrainResult result;
        int64_t step = 0;
        Hash128 digest;  // by the digest ops, after the end
    };

    // Trains from the start, or from the checkpoint `resume`, to the end of step `last` in `run`.
    Trained train_here(const std::string& run, int64_t last, int64_t every,
                       const std::string& resume = "", std::vector<std::string> settings = {}) {
        for (const std::string& setting :
             {std::string("train.steps=20"), "train.stop_at=" + std::to_string(last),
              std::string("checkpoint.keep=20"), "checkpoint.every=" + std::to_string(every),
              "checkpoint.dir=" + path(run), "data.train=" + path("data/train.bin"),
              "train.dtype=" + dtype_})
            settings.push_back(setting);
        const RunConfig config =
            parse_run(contents_of(path("run.toml")), "run.toml", folder_, settings);
        const TokenFile tokens(config.run.data.train);
        const DataLoader loader(tokens, 16, DataOrder::shuffled, 1);
        Session session(config, Purpose::train, red_zone_bytes_);
        StateIo state(session, files_.layer);
        state.prepare_folder();
        RunRecord record;
        if (resume.empty())
            session.run_phase(PhaseKind::initialise);
        else
            record = state.load(resume).record;
        note_unit_starts(session.program());
        if (every > 0) saver_.emplace(state);
        StepLog log(path(run), record.step, last, 1000);
        StopRequest stop(path(run));
        PeakMemory peak;
        TrainLoop loop(
            {session, saver_ ? &*saver_ : nullptr, loader, nullptr, nullptr, log, stop, peak, 1.0},
            record, resume);
        Trained trained;
        trained.result = loop.run();
        trained.step = loop.record().step;
        trained.digest = state.digest();
        saver_.reset();
        return trained;
    }

    // The digest after `step` steps of a training that saves nothing.
    std::string digest_without_saves(int64_t step) {
        auto& digest = references_[step];
        if (digest.empty())
            digest = to_hex(train_here("reference" + std::to_string(step), step, 0).digest);
        return digest;
    }
    std::string checkpoint_of(const std::string& run, int64_t step) const {
        for (const StepEntry& entry : find_steps(path(run)))
            if (entry.step == step) return path(run) + "/" + entry.name;
        return "";
    }
    // Checkpoints are of `steps`, each with the digest that a training without saves has there.
    void expect_saved(const std::string& run, const std::vector<int64_t>& steps) {
        std::vector<std::string> expected;
        for (const int64_t step : steps) {
            expected.push_back(std::to_string(step) + " " + digest_without_saves(step));
            EXPECT_NE(checkpoint_of(run, step), "") << step;
        }
        EXPECT_EQ(digests(run), expected);
        EXPECT_EQ(checkpoints(run).size(), steps.size());
    }
    nlohmann::json save_line(const std::string& run, int64_t step) const {
        for (const auto& line : log("state_digest", run))
            if (line["step"] == step) return line;
        ADD_FAILURE() << "no save of step " << step;
        return {};
    }

    // By the saving thread: until `happened`. After 20 seconds the test fails instead of hanging,
    // and holds nothing up any more.
    void hold_until(const std::function<bool()>& happened) {
        const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
        while (!gave_up_ && !happened()) {
            if (std::chrono::steady_clock::now() > end) {
                ADD_FAILURE() << "the training did not wait";
                gave_up_ = true;
                return;
            }
            std::this_thread::sleep_for(std::chrono::microseconds(100));
        }
    }

    // Writes of a data file: header, tensors, then a chunk for each tensor, as small as these are.
    void note_unit_starts(const Program& program) {
        unit_starts_.clear();
        int64_t write = program.io.loss_scale == kNoTensor ? 2 : 3;
        UnitId unit = -1;
        for (const Param& param : program.params) {
            if (param.unit != unit) unit_starts_.push_back(write);
            unit = param.unit;
            write += param.master == kNoTensor ? 3 : 4;  // param, its master, both moments
        }
    }
    bool starts_unit(int64_t write) const {
        return std::find(unit_starts_.begin(), unit_starts_.end(), write) != unit_starts_.end();
    }

    // Holds the saving thread up before the header and before the first write of every unit until
    // the next update has begun to wait for just that, so that an update which did not wait, or for
    // less, would change what is then written. Only where there is a loss scale to be read does the
    // update of no unit wait; otherwise the first unit's is the one that the header holds up.
    void expect_updates_wait_unit_by_unit() {
        const bool scaled = dtype_ == "fp16";
        int64_t stalls = 0;
        files_.on_write = [&](int64_t step, int64_t write) {
            const bool waited_for =
                write == 0 || (starts_unit(write) && (scaled || write != unit_starts_.front()));
            if (step < 20 && waited_for) {
                ++stalls;
                hold_until([&] { return saver_->stall_count() >= stalls; });
                EXPECT_EQ(saver_->stall_count(), stalls);
            }
            return 0;
        };
        const Trained trained = train_here("slow", 20, 5);
        EXPECT_EQ(unit_starts_.size(), 4u) << "embedding, two blocks, head";
        EXPECT_EQ(stalls, 3 * (scaled + static_cast<int64_t>(unit_starts_.size())));
        EXPECT_EQ(to_hex(trained.digest), digest_without_saves(20));
        expect_saved("slow", {5, 10, 15, 20});
        for (const int64_t step : {5, 10, 15})
            EXPECT_GT(save_line("slow", step)["stall_ms"].get<double>(), 0.0) << step;
        EXPECT_EQ(save_line("slow", 20)["stall_ms"].get<double>(), 0.0) << "no update follows";
    }

    std::string dtype_ = "auto";
    int64_t red_zone_bytes_ = kBuildRedZoneBytes;
    bool gave_up_ = false;
    HeldFiles files_;
    std::optional<BackgroundSave> saver_;
    std::vector<int64_t> unit_starts_;
    std::map<int64_t, std::string> references_;
};

TEST_F(TrainSave, SavingChangesNoBit) {
    const Trained plain = train_here("plain", 20, 0);
    const Trained saved = train_here("saved", 20, 5);
    EXPECT_EQ(saved.digest, plain.digest);
    const auto a = log("loss", "plain"), b = log("loss", "saved");
    ASSERT_EQ(a.size(), 20u);
    ASSERT_EQ(b.size(), 20u);
    for (size_t i = 0; i < 20; ++i)
        for (const char* key : {"step", "loss", "grad_norm"}) EXPECT_EQ(a[i][key], b[i][key]) << i;
    expect_saved("saved", {5, 10, 15, 20});
    for (const int64_t step : {5, 10, 15}) {
        const std::string from = checkpoint_of("saved", step);
        const Trained resumed = train_here("from" + std::to_string(step), 20, 0, from);
        EXPECT_EQ(resumed.digest, plain.digest) << "from step " << step;
    }
}

TEST_F(TrainSave, UpdatesWaitForASlowDiskUnitByUnit) {
    dtype_ = "fp32";
    expect_updates_wait_unit_by_unit();
}

TEST_F(TrainSave, UpdatesWaitForASlowDiskUnitByUnitAfterTheLossScale) {
    dtype_ = "fp16";
    expect_updates_wait_unit_by_unit();
}

TEST_F(TrainSave, ZonesAndThePatternInDeadBytesStayWhole) {
    red_zone_bytes_ = kAlignBytes;
    train_here("zones", 20, 5);
    red_zone_bytes_ = 0;
    expect_saved("zones", {5, 10, 15, 20});
}

TEST_F(TrainSave, ASaveDueDuringASaveWaitsAndIsCounted) {
    files_.on_sync = [&](int64_t step) {
        if (step < 20) hold_until([&] { return saver_->waited_count() == step / 5; });
        return 0;
    };
    train_here("run", 20, 5);
    expect_saved("run", {5, 10, 15, 20});
    for (const int64_t step : {5, 10, 15, 20}) {
        const auto line = save_line("run", step);
        EXPECT_EQ(line["waited"].get<int64_t>(), step / 5 - 1);
        EXPECT_EQ(line["waited_ms"].get<double>() > 0, step > 5) << step;
    }
}

TEST_F(TrainSave, AFailedSaveLetsUpdatesGoAndTheNextOneIsGood) {
    files_.on_write = [&](int64_t step, int64_t write) {
        if (step == 5 && write == 0) {
            hold_until([&] { return saver_->stall_count() > 0; });
            return ENOSPC;
        }
        return step == 10 && write == unit_starts_.at(1) ? EIO : 0;
    };
    ::testing::internal::CaptureStderr();
    const Trained trained = train_here("run", 20, 5);
    const std::string said = ::testing::internal::GetCapturedStderr();
    EXPECT_NE(said.find("STEP 5 WAS NOT SAVED: "), std::string::npos) << said;
    EXPECT_NE(said.find("STEP 10 WAS NOT SAVED: "), std::string::npos) << said;
    EXPECT_EQ(to_hex(trained.digest), digest_without_saves(20));
    EXPECT_FALSE(trained.result.last_save_failed);
    expect_saved("run", {15, 20});
}

TEST_F(TrainSave, AFailedLastSaveIsTheRunsFailure) {
    files_.on_sync = [&](int64_t step) { return step == 20 ? EIO : 0; };
    ::testing::internal::CaptureStderr();
    const Trained trained = train_here("run", 20, 5);
    const std::string said = ::testing::internal::GetCapturedStderr();
    EXPECT_NE(said.find("STEP 20 WAS NOT SAVED: "), std::string::npos) << said;
    EXPECT_TRUE(trained.result.last_save_failed);
    EXPECT_EQ(trained.result.last_saved.text, checkpoint_of("run", 15));
    expect_saved("run", {5, 10, 15});
}

TEST_F(TrainSave, AStopDuringASaveWaitsAndSavesTheLastStep) {
    files_.on_write = [](int64_t step, int64_t write) {
        if (step == 5 && write == 0) std::raise(SIGTERM);  // step 6 cannot end before
        return 0;
    };
    files_.on_sync = [&](int64_t step) {
        if (step == 5) hold_until([&] { return saver_->waited_count() > 0; });
        return 0;
    };
    const Trained trained = train_here("run", 20, 5);
    EXPECT_EQ(trained.result.end, TrainEnd::stopped);
    EXPECT_EQ(trained.step, 6);
    expect_saved("run", {5, 6});
}

// A save runs while the steps after it change nothing: that they do not must not be relied upon.
TEST_F(TrainSave, StepsWithoutFiniteGradientsBesideASave) {
    const std::vector<std::string> diverging = {"train.lr=5", "train.min_lr=5",
                                                "train.weight_decay=1", "train.warmup_steps=0"};
    const Trained plain = train_here("plain", 20, 0, "", diverging);
    ASSERT_EQ(plain.result.end, TrainEnd::not_finite);
    const int64_t good = plain.step - 3;
    ASSERT_GT(good, 3) << "no other save is due before the end";
    files_.on_sync = [&](int64_t step) {  // not over before the run's end
        if (step == good)
            hold_until([&] { return log("loss", "run").back()["step"] == plain.step; });
        return 0;
    };
    const Trained trained = train_here("run", 20, good, "", diverging);
    EXPECT_EQ(trained.result.end, TrainEnd::not_finite);
    EXPECT_EQ(trained.step, plain.step);
    EXPECT_EQ(digests("run"),
              std::vector<std::string>{std::to_string(good) + " " + to_hex(plain.digest)});
}

// What is saved has the loss scale of its step, which fell in every step since.
TEST_F(TrainSave, TheLastGoodStepIsSavedWithItsLossScale) {
    dtype_ = "fp16";
    const std::vector<std::string> diverging = {"train.lr=5", "train.min_lr=5",
                                                "train.weight_decay=1", "train.warmup_steps=0",
                                                "train.loss_scale=16"};
    const Trained trained = train_here("run", 20, 20, "", diverging);
    ASSERT_EQ(trained.result.end, TrainEnd::not_finite);
    const auto lines = log("loss", "run");
    const auto good = std::find_if(lines.rbegin(), lines.rend(), [](const nlohmann::json& line) {
        return line["grad_norm"].is_number();
    });
    ASSERT_NE(good, lines.rend());
    ASSERT_GT((*good)["loss_scale"].get<double>(), lines.back()["loss_scale"].get<double>());
    const int64_t step = (*good)["step"];
    const Trained until = train_here("until", step, 0, "", diverging);
    EXPECT_EQ(digests("run"),
              std::vector<std::string>{std::to_string(step) + " " + to_hex(until.digest)});
    EXPECT_EQ(trained.digest, until.digest);
    const CheckpointReader saved(checkpoint_of("run", step));
    EXPECT_EQ(saved.record().loss_scale, (*good)["loss_scale"].get<double>());
    EXPECT_EQ(saved.record().skipped_steps, (*good)["skipped"].get<int64_t>());
    train_here("next", step + 1, 0, saved.path(), diverging);
    const auto next = static_cast<size_t>(step);
    EXPECT_EQ(log("loss", "next").at(0)["loss_scale"], lines.at(next)["loss_scale"]);
}

}  // namespace
}  // namespace plumb
