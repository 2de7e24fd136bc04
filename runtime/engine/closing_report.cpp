#include "runtime/engine/closing_report.h"

#include <algorithm>

#include "runtime/base/log.h"
#include "runtime/exec/memory_use.h"
#include "runtime/plan/report.h"

namespace plumb {

void PeakMemory::sample() noexcept {
    const MemoryUse use = memory_use();
    resident_bytes_ = std::max(resident_bytes_, use.anonymous_bytes + use.shared_bytes);
    file_bytes_ = std::max(file_bytes_, use.file_bytes);
}

void print_closing_report(int fd, const Plan& plan, const PeakMemory& peak,
                          const AllocationCounts& counts) {
    const int64_t planned = plan.total_bytes + plan.outside_bytes;
    print_line(fd,
               "peak memory: {} bytes ({}) against {} planned ({}: {} in arenas, {} outside); "
               "pages of mapped files apart: {}",
               peak.resident_bytes(), human_bytes(peak.resident_bytes()), planned,
               human_bytes(planned), human_bytes(plan.total_bytes), human_bytes(plan.outside_bytes),
               human_bytes(peak.file_bytes()));
    if (!seal_is_enforced()) return;
    // Ours would have aborted: what is counted is a library's, inside a LibraryScope.
    int64_t calls = 0;
    std::string libraries;
    for (int i = 0; i < static_cast<int>(Library::count); ++i) {
        if (counts.calls[i] == 0) continue;
        calls += counts.calls[i];
        libraries +=
            fmt::format("{}{} {} ({} bytes)", libraries.empty() ? ": " : ", ",
                        library_name(static_cast<Library>(i)), counts.calls[i], counts.bytes[i]);
    }
    print_line(fd, "allocations after seal: {}{}", calls, libraries);
}

}  // namespace plumb
