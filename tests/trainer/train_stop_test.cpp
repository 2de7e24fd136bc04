// Asks a running plumb-train to stop, in every way there is.
#include <fcntl.h>
#include <sys/resource.h>

#include <chrono>
#include <csignal>
#include <functional>
#include <thread>

#include "tests/trainer/train_folder.h"

namespace plumb {
namespace {

class TrainStop : public TrainFolder {
  protected:
    // Starts a training far too long to end by itself.
    void start(const std::string& argument = "--checkpoint.every=1000000",
               bool small_files = false) {
        child_ = ::fork();
        ASSERT_GE(child_, 0);
        if (child_ > 0) return;
        if (::chdir(folder_.c_str()) != 0) ::_exit(127);
        redirect("stdout.txt", STDOUT_FILENO);
        redirect("stderr.txt", STDERR_FILENO);
        if (small_files) {
            ::signal(SIGXFSZ, SIG_IGN);
            const rlimit limit{32768, RLIM_INFINITY};
            ::setrlimit(RLIMIT_FSIZE, &limit);
        }
        ::execl(PLUMB_BIN_DIR "/plumb-train", "plumb-train", "run.toml", "--train.steps=1000000",
                argument.c_str(), nullptr);
        ::_exit(127);
    }
    void TearDown() override {
        if (child_ > 0) {
            ::kill(child_, SIGKILL);
            ::waitpid(child_, nullptr, 0);
        }
        TrainFolder::TearDown();
    }
    static void redirect(const char* file, int fd) {
        const int opened = ::open(file, O_WRONLY | O_CREAT | O_TRUNC, 0666);
        if (opened < 0 || ::dup2(opened, fd) < 0) ::_exit(127);
    }
    // Until `happened`, or for at most a minute: then the test fails instead of hanging.
    static bool wait_until(const std::function<bool()>& happened) {
        const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(1);
        while (std::chrono::steady_clock::now() < end) {
            if (happened()) return true;
            std::this_thread::sleep_for(std::chrono::milliseconds(2));
        }
        return false;
    }
    bool said(const std::string& file, const std::string& text) const {
        return contents_of(path(file)).find(text) != std::string::npos;
    }
    bool wait_for_steps() {
        return wait_until([&] { return said("run/log.jsonl", "{\"step\":3,"); });
    }
    // The child's wait status, or -1 when it does not end.
    int wait_for_end() {
        int status = -1;
        const pid_t child = child_;
        if (!wait_until([&] { return ::waitpid(child, &status, WNOHANG) == child; })) return -1;
        child_ = -1;
        return status;
    }
    // It ended well, with one checkpoint, that of its last step.
    void expect_saved_and_stopped(const std::string& by) {
        const int status = wait_for_end();
        ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
        const auto steps = log("loss");
        ASSERT_GE(steps.size(), 3u);
        const auto saves = log("state_digest");
        ASSERT_EQ(saves.size(), 1u);
        EXPECT_EQ(saves[0]["step"], steps.back()["step"]);
        EXPECT_EQ(checkpoints().size(), 1u);
        EXPECT_TRUE(said("stdout.txt", "stopped by " + by + " after step " +
                                           steps.back()["step"].dump() + " of 1000000"))
            << contents_of(path("stdout.txt"));
        EXPECT_EQ(contents_of(path("stderr.txt")), "");
    }

    pid_t child_ = -1;
};

TEST_F(TrainStop, SignalsSaveAndEnd) {
    const struct {
        int signal;
        const char* name;
    } cases[] = {
        {SIGTERM, "SIGTERM"}, {SIGUSR1, "SIGUSR1"}, {SIGINT, "SIGINT"}, {SIGHUP, "SIGHUP"}};
    for (const auto& c : cases) {
        std::filesystem::remove_all(path("run"));
        start();
        ASSERT_TRUE(wait_for_steps()) << contents_of(path("stderr.txt"));
        ASSERT_EQ(::kill(child_, c.signal), 0);
        expect_saved_and_stopped(c.name);
    }
}

TEST_F(TrainStop, AFileNamedStopSavesAndEndsOnce) {
    start();
    ASSERT_TRUE(wait_for_steps()) << contents_of(path("stderr.txt"));
    put("run/stop", "");
    expect_saved_and_stopped("the file run/stop");
    EXPECT_FALSE(std::filesystem::exists(path("run/stop")));
    // What was saved can be gone on from.
    const auto stopped_at = log("loss").back()["step"].get<int64_t>();
    ASSERT_EQ(train("--train.stop_at=" + std::to_string(stopped_at + 2)), 0) << error_;
    EXPECT_EQ(static_cast<int64_t>(log("loss").size()), stopped_at + 2);
}

TEST_F(TrainStop, WithoutCheckpointsItJustEnds) {
    start("--checkpoint.every=0");
    ASSERT_TRUE(wait_for_steps()) << contents_of(path("stderr.txt"));
    ASSERT_EQ(::kill(child_, SIGTERM), 0);
    const int status = wait_for_end();
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
    EXPECT_EQ(checkpoints().size(), 0u);
}

TEST_F(TrainStop, ASaveThatWorksAgainMakesTheRunGood) {
    start("--checkpoint.every=2", true);
    ASSERT_TRUE(wait_until([&] { return said("stderr.txt", "STEP 2 WAS NOT SAVED"); }));
    const rlimit unlimited{RLIM_INFINITY, RLIM_INFINITY};
    ASSERT_EQ(::prlimit(child_, RLIMIT_FSIZE, &unlimited, nullptr), 0);
    ASSERT_TRUE(wait_until([&] { return said("run/log.jsonl", "state_digest"); }));
    ASSERT_EQ(::kill(child_, SIGTERM), 0);
    const int status = wait_for_end();
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
    EXPECT_EQ(log("state_digest").back()["step"], log("loss").back()["step"]);
}

}  // namespace
}  // namespace plumb
