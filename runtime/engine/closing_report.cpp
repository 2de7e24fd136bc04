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

namespace {

std::string planned_text(const Plan& plan, MemorySpace space) {
    const int64_t planned = plan.space_bytes[static_cast<int>(space)];
    const int64_t arenas = arena_bytes_in(plan, space);
    return fmt::format("{} planned ({}: {} in arenas, {} outside)", planned, human_bytes(planned),
                       human_bytes(arenas), human_bytes(planned - arenas));
}

}  // namespace

void print_closing_report(int fd, const Session& session, const PeakMemory& peak,
                          const AllocationCounts& counts) {
    std::string gpu_line;
    if (Gpu* gpu = session.gpu()) {
        const auto held = [](const GpuMemory& m) { return m.total_bytes - m.free_bytes; };
        const int64_t before = held(session.gpu_memory_before()), now = held(gpu->memory());
        gpu_line = fmt::format(
            "memory of {}: {} bytes ({}) held, by all processes, against {}; {} bytes ({}) were "
            "held before the arenas were taken, {} were taken after the start",
            gpu->name(), now, human_bytes(now), planned_text(session.plan(), MemorySpace::gpu),
            before, human_bytes(before), now - held(session.gpu_memory_sealed()));
    }
    print_closing_report(fd, session.plan(), gpu_line, peak, counts);
}

void print_closing_report(int fd, const Plan& plan, const std::string& gpu_line,
                          const PeakMemory& peak, const AllocationCounts& counts) {
    print_line(fd, "peak memory{}: {} bytes ({}) against {}; pages of mapped files apart: {}",
               gpu_line.empty() ? "" : " of the host", peak.resident_bytes(),
               human_bytes(peak.resident_bytes()), planned_text(plan, MemorySpace::host),
               human_bytes(peak.file_bytes()));
    if (!gpu_line.empty()) print_line(fd, "{}", gpu_line);
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
