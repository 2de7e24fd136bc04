// Who holds a GPU's memory, in the words of a management library that the test speaks for; not in
// builds with CUDA, whose tests may meet the real one.
#ifdef PLUMB_FAKE_NVML
#include "kernels/cuda/holders.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "runtime/base/types.h"
#include "tests/kernels/gpu/fake_nvml.h"

namespace plumb::testing {
namespace {

constexpr unsigned kNobody = 4194305;  // above any id that Linux gives
constexpr unsigned long long kUnknown = ~0ULL;
constexpr int kCannot = 77;

class Holders : public ::testing::Test {
  protected:
    // A process with the name of this test program.
    Holders() : child_(::fork()) {
        if (child_ == 0)
            while (true) ::pause();
    }
    ~Holders() override {
        ::kill(child_, SIGKILL);
        ::waitpid(child_, nullptr, 0);
        fake_nvml() = {};
    }
    static std::string text() { return cuda::memory_holders("0000:65:00.0"); }
    static unsigned own() { return static_cast<unsigned>(::getpid()); }
    unsigned child() const { return static_cast<unsigned>(child_); }
    std::string child_text() const { return "kernels_tests (pid " + std::to_string(child_) + ")"; }

    pid_t child_;
};

TEST_F(Holders, AreNamedTheLargestFirst) {
    fake_nvml().processes = {{child(), kUnknown}, {own(), 3 * kGiB / 2}, {kNobody, 70 * kGiB}};
    EXPECT_EQ(text(),
              "pid 4194305 (not visible here) 70.0 GiB, this process 1.5 GiB, " + child_text());
    EXPECT_EQ(fake_nvml().opened, 0);
    EXPECT_EQ(cuda::memory_holders("0000:66:00.0"), "") << "another GPU";
}

// In a container ids may be the host's, where another process here has the same.
TEST_F(Holders, HaveNamesOnlyWhereIdsAreTheSystemsOwn) {
    fake_nvml().processes = {{child(), kGiB}};
    if (std::filesystem::read_symlink("/proc/self/ns/pid") == "pid:[4026531836]") {
        EXPECT_EQ(text(), child_text() + " 1.0 GiB");
    }
    const std::string unnamed = "pid " + std::to_string(child_) + " (not visible here) 1.0 GiB";
    const pid_t outer = ::fork();
    if (outer == 0) {
        if (::unshare(CLONE_NEWUSER | CLONE_NEWPID) != 0) ::_exit(kCannot);
        const pid_t inner = ::fork();  // the first process of a namespace of its own
        if (inner == 0) ::_exit(text() == unnamed ? 0 : 1);
        int status = 0;
        ::_exit(::waitpid(inner, &status, 0) == inner ? WEXITSTATUS(status) : kCannot);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(outer, &status, 0), outer);
    if (WEXITSTATUS(status) == kCannot) GTEST_SKIP() << "no namespaces here";
    EXPECT_EQ(status, 0);
}

TEST_F(Holders, AreNotNamedWhenTheSystemDoesNotTell) {
    EXPECT_EQ(text(), "") << "no process is seen";
    fake_nvml().processes = {{child(), kGiB, 3, 0}};
    EXPECT_EQ(text(), "") << "of a part of the GPU (MIG)";
    fake_nvml().processes = {{child(), kGiB}};
    for (int FakeNvml::*status :
         {&FakeNvml::init_status, &FakeNvml::device_status, &FakeNvml::process_status}) {
        fake_nvml().*status = 4;  // no permission
        EXPECT_EQ(text(), "");
        EXPECT_EQ(fake_nvml().opened, 0);
        fake_nvml().*status = 0;
    }
    EXPECT_NE(text(), "");
}

}  // namespace
}  // namespace plumb::testing
#endif
