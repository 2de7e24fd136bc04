// Control groups as trees of plain files, and the affinity mask of this process.
#include "runtime/exec/machine_limits.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <filesystem>
#include <fstream>

namespace plumb {
namespace {

namespace fs = std::filesystem;

class MachineLimits : public testing::Test {
  protected:
    void SetUp() override {
        const auto* test = testing::UnitTest::GetInstance()->current_test_info();
        root_ = testing::TempDir() + "machine_limits_" + test->name();
        fs::remove_all(root_);
        write("/proc/meminfo", "MemTotal: 99 kB\nHugePages_Total: 0\nMemAvailable:  64 kB\n");
    }
    void TearDown() override { fs::remove_all(root_); }

    void write(const std::string& path, const std::string& text) const {
        fs::create_directories(fs::path(root_ + path).parent_path());
        std::ofstream(root_ + path) << text;
    }
    void memory_v2(const std::string& group, const char* limit, const char* used,
                   const char* stat = "anon 1\n") const {
        write("/sys/fs/cgroup" + group + "/memory.max", limit);
        write("/sys/fs/cgroup" + group + "/memory.current", used);
        write("/sys/fs/cgroup" + group + "/memory.stat", stat);
    }
    int64_t left() {
        const char* source = "";
        const int64_t bytes = available_memory_bytes(&source, root_);
        source_ = source;
        return bytes;
    }

    std::string root_, source_;
};

TEST_F(MachineLimits, WithoutGroupsTheMachineDecides) {
    EXPECT_EQ(left(), 64 * kKiB);
    EXPECT_EQ(source_, "available on this machine");
}

TEST_F(MachineLimits, TheTightestGroupUpToTheRootCounts) {
    write("/proc/self/cgroup", "0::/user/job/step\n");
    memory_v2("/user/job/step", "max\n", "900\n");
    memory_v2("/user/job", "5000\n", "1000\n");
    memory_v2("/user", "50000\n", "2000\n");
    EXPECT_EQ(left(), 4000);
    EXPECT_EQ(source_, "left in this control group");
    memory_v2("/user", "5000\n", "2000\n");
    EXPECT_EQ(left(), 3000);
    memory_v2("/user/job/step", "1000\n", "900\n");
    EXPECT_EQ(left(), 100);
    memory_v2("/elsewhere", "10\n", "10\n");  // not above this process
    EXPECT_EQ(left(), 100);
    memory_v2("", "100\n", "90\n");  // the root of a container's namespace
    EXPECT_EQ(left(), 10);
}

TEST_F(MachineLimits, CacheThatCanBeDroppedIsFree) {
    write("/proc/self/cgroup", "0::/job\n");
    memory_v2("/job", "5000\n", "4900\n", "anon 900\nactive_file 1000\ninactive_file 3000\n");
    EXPECT_EQ(left(), 5000 - (4900 - 3000));
    memory_v2("/job", "5000\n", "6000\n");  // over a limit that was lowered
    EXPECT_EQ(left(), 0);
}

TEST_F(MachineLimits, VersionOneGroups) {
    write("/proc/self/cgroup", "12:cpuset:/a\n7:memory:/docker/id\n3:cpu,cpuacct:/docker\n0::/x\n");
    const std::string memory = "/sys/fs/cgroup/memory";
    // The group of the host's path is not there; the container sees its own at the mount.
    write(memory + "/memory.limit_in_bytes", "9000");
    write(memory + "/memory.usage_in_bytes", "5000");
    write(memory + "/memory.stat", "inactive_file 7\ntotal_inactive_file 1000\n");
    EXPECT_EQ(left(), 5000);
    write(memory + "/docker/id/memory.limit_in_bytes", "6000");
    write(memory + "/docker/id/memory.usage_in_bytes", "5500");
    EXPECT_EQ(left(), 500);
}

TEST_F(MachineLimits, LinesThatAreNoGroupsAreNone) {
    write("/proc/self/cgroup", "garbage\n0:\n0::relative\n0::/../sibling\n");
    memory_v2("", "100\n", "90\n");
    EXPECT_EQ(left(), 10);
}

// Leaves the affinity of the process as it was.
class UsableCpus : public MachineLimits {
  protected:
    void SetUp() override {
        MachineLimits::SetUp();
        ASSERT_EQ(sched_getaffinity(0, sizeof mask_, &mask_), 0);
    }
    void TearDown() override {
        sched_setaffinity(0, sizeof mask_, &mask_);
        MachineLimits::TearDown();
    }
    cpu_set_t mask_;
};

TEST_F(UsableCpus, AreThoseOfTheAffinityMask) {
    EXPECT_EQ(usable_cpus(root_), CPU_COUNT(&mask_));
    cpu_set_t one;
    CPU_ZERO(&one);
    for (size_t cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++cpu)
        if (CPU_ISSET(cpu, &mask_)) CPU_SET(cpu, &one);
    ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
    EXPECT_EQ(usable_cpus(root_), 1);
}

TEST_F(UsableCpus, AreAtMostTheQuotaRoundedUp) {
    if (CPU_COUNT(&mask_) < 2) GTEST_SKIP() << "one CPU is the least already";
    write("/proc/self/cgroup", "0::/a/b\n5:cpu,cpuacct:/c\n");
    write("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
    EXPECT_EQ(usable_cpus(root_), CPU_COUNT(&mask_));
    write("/sys/fs/cgroup/a/cpu.max", "100001 100000\n");
    EXPECT_EQ(usable_cpus(root_), 2);
    write("/sys/fs/cgroup/a/cpu.max", "50000 100000\n");
    EXPECT_EQ(usable_cpus(root_), 1);
    fs::remove_all(root_ + "/sys/fs/cgroup/a");
    write("/sys/fs/cgroup/cpu/c/cpu.cfs_quota_us", "100000\n");
    write("/sys/fs/cgroup/cpu/c/cpu.cfs_period_us", "100000\n");
    EXPECT_EQ(usable_cpus(root_), 1);
    write("/sys/fs/cgroup/cpu/c/cpu.cfs_quota_us", "-1\n");
    EXPECT_EQ(usable_cpus(root_), CPU_COUNT(&mask_));
}

}  // namespace
}  // namespace plumb
