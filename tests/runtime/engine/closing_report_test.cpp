#include "runtime/engine/closing_report.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

namespace plumb {
namespace {

std::string report_of(const PeakMemory& peak, const AllocationCounts& counts) {
    Plan plan;
    plan.total_bytes = 3 << 20;
    plan.outside_bytes = 1 << 20;
    ::testing::internal::CaptureStderr();
    plan.arena_bytes[static_cast<int>(Arena::weights)] = plan.total_bytes;
    plan.space_bytes[static_cast<int>(MemorySpace::host)] = plan.total_bytes + plan.outside_bytes;
    print_closing_report(STDERR_FILENO, plan, "", peak, counts);
    return ::testing::internal::GetCapturedStderr();
}

TEST(ClosingReport, ThePeakOutlivesWhatIsFreed) {
    constexpr size_t kBytes = 64 << 20;
    PeakMemory peak;
    peak.sample();
    const int64_t before = peak.resident_bytes();
    ASSERT_GT(before, 0);
    void* memory =
        ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(memory, MAP_FAILED);
    std::memset(memory, 1, kBytes);
    peak.sample();
    const int64_t with = peak.resident_bytes();
    EXPECT_GE(with, before + static_cast<int64_t>(kBytes) * 9 / 10);
    ASSERT_EQ(::munmap(memory, kBytes), 0);
    peak.sample();
    EXPECT_EQ(peak.resident_bytes(), with);
    const std::string text = report_of(peak, {});
    EXPECT_EQ(text.rfind("peak memory: " + std::to_string(with) + " bytes (", 0), 0u) << text;
    EXPECT_NE(
        text.find(" against 4194304 planned (4.00 MiB: 3.00 MiB in arenas, 1.00 MiB outside)"),
        std::string::npos)
        << text;
}

TEST(ClosingReport, LibrariesAreListedWhenTheyAllocate) {
    if (!seal_is_enforced()) GTEST_SKIP() << "nothing is counted in this build";
    const std::string none = report_of({}, {});
    EXPECT_NE(none.find("\nallocations after seal: 0\n"), std::string::npos) << none;
    AllocationCounts counts;
    counts.calls[static_cast<int>(Library::openmp)] = 2;
    counts.bytes[static_cast<int>(Library::openmp)] = 100;
    const std::string some = report_of({}, counts);
    EXPECT_NE(some.find("\nallocations after seal: 2: openmp 2 (100 bytes)\n"), std::string::npos)
        << some;
}

}  // namespace
}  // namespace plumb
