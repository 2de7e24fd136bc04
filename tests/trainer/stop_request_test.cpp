#include "trainer/stop_request.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace plumb {
namespace {

class StopRequests : public ::testing::Test {
  protected:
    void SetUp() override {
        folder_ = ::testing::TempDir() + "plumb_stop_XXXXXX";
        ASSERT_NE(::mkdtemp(folder_.data()), nullptr);
    }
    void TearDown() override { std::filesystem::remove_all(folder_); }
    std::string folder_;
};

TEST_F(StopRequests, NothingAsksByItself) {
    const StopRequest stop(folder_);
    EXPECT_EQ(stop.asked(), nullptr);
}

TEST_F(StopRequests, EachSignalIsNotedByName) {
    const struct {
        int signal;
        const char* name;
    } cases[] = {
        {SIGUSR1, "SIGUSR1"}, {SIGTERM, "SIGTERM"}, {SIGINT, "SIGINT"}, {SIGHUP, "SIGHUP"}};
    for (const auto& c : cases) {
        const StopRequest stop(folder_);
        ASSERT_EQ(::raise(c.signal), 0);
        EXPECT_STREQ(stop.asked(), c.name);
        EXPECT_STREQ(stop.asked(), c.name) << "a request stays until the run has ended";
    }
}

TEST_F(StopRequests, NohupIsRespected) {
    ::signal(SIGHUP, SIG_IGN);
    {
        const StopRequest stop(folder_);
        ASSERT_EQ(::raise(SIGHUP), 0);
        EXPECT_EQ(stop.asked(), nullptr);
    }
    EXPECT_EQ(::signal(SIGHUP, SIG_DFL), SIG_IGN);
}

TEST_F(StopRequests, TheFileAsksOnce) {
    StopRequest stop(folder_);
    std::ofstream(folder_ + "/stop") << "";
    EXPECT_EQ(stop.asked(), "the file " + folder_ + "/stop");
    stop.honoured();
    EXPECT_FALSE(std::filesystem::exists(folder_ + "/stop"));
    EXPECT_EQ(stop.asked(), nullptr);
}

// Suites of this name run first, before any test has started threads.
using StopRequestsDeathTest = StopRequests;

TEST_F(StopRequestsDeathTest, ASecondInterruptEndsTheProcess) {
    EXPECT_EXIT(
        {
            const StopRequest stop(folder_);
            ::raise(SIGINT);
            if (stop.asked() == nullptr) ::_exit(1);
            ::raise(SIGINT);
            ::_exit(2);
        },
        ::testing::KilledBySignal(SIGINT), "");
}

TEST_F(StopRequestsDeathTest, OtherSignalsMayComeTwice) {
    EXPECT_EXIT(
        {
            const StopRequest stop(folder_);
            for (int i = 0; i < 2; ++i) {
                ::raise(SIGTERM);
                ::raise(SIGUSR1);
            }
            ::_exit(stop.asked() != nullptr ? 0 : 1);
        },
        ::testing::ExitedWithCode(0), "");
}

TEST_F(StopRequests, TheOldHandlersComeBack) {
    struct sigaction before {
    }, after{};
    ASSERT_EQ(sigaction(SIGTERM, nullptr, &before), 0);
    { const StopRequest stop(folder_); }
    ASSERT_EQ(sigaction(SIGTERM, nullptr, &after), 0);
    EXPECT_EQ(before.sa_handler, after.sa_handler);
}

}  // namespace
}  // namespace plumb
