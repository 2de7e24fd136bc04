#include "runtime/exec/arena.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/exec/machine_limits.h"

namespace plumb {

namespace {

constexpr int64_t kPageBytes = 4096;
constexpr int64_t kHugePageBytes = 2 * kMiB;

std::string mib(int64_t bytes) {
    return fmt::format("{} bytes ({:.1f} MiB)", bytes,
                       static_cast<double>(bytes) / static_cast<double>(kMiB));
}

}  // namespace

ArenaSet::ArenaSet(const Plan& plan, int64_t memory_limit_bytes) {
    const int64_t needed = plan.total_bytes + plan.outside_bytes;
    const auto refuse = [&](const char* what, int64_t limit) {
        throw Error(ExitCode::does_not_fit,
                    fmt::format("the plan needs {} in arenas and {} outside them; {} is {}",
                                mib(plan.total_bytes), mib(plan.outside_bytes), what, mib(limit)));
    };
    if (memory_limit_bytes > 0 && needed > memory_limit_bytes)
        refuse("run.memory", memory_limit_bytes);
    const char* source = nullptr;
    const int64_t available = available_memory_bytes(&source);
    if (needed > available) refuse(source, available);
    for (int a = 0; a < kArenaCount; ++a) {
        size_[a] = plan.arena_bytes[a];
        if (size_[a] == 0) continue;
        // Large arenas start on a huge page; small ones would waste most of it.
        const bool huge = size_[a] >= kHugePageBytes;
        const int64_t alignment = huge ? kHugePageBytes : kPageBytes;
        const int64_t wanted = align_up(size_[a], kPageBytes);
        const int64_t span = wanted + (huge ? kHugePageBytes : 0);
        void* raw = mmap(nullptr, static_cast<size_t>(span), PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (raw == MAP_FAILED) {
            release();
            throw Error(ExitCode::does_not_fit, fmt::format("cannot map arena {} of {}: {}",
                                                            arena_name(static_cast<Arena>(a)),
                                                            mib(size_[a]), std::strerror(errno)));
        }
        const auto address = reinterpret_cast<int64_t>(raw);
        const int64_t start = align_up(address, alignment);
        char* base = static_cast<char*>(raw) + (start - address);
        if (start > address) munmap(raw, static_cast<size_t>(start - address));
        const int64_t tail = address + span - (start + wanted);
        if (tail > 0) munmap(base + wanted, static_cast<size_t>(tail));
        base_[a] = base;
        mapped_[a] = wanted;
        // Only whole huge pages are asked for, so that the tail does not take another 2 MiB.
        if (huge)
            madvise(base, static_cast<size_t>(wanted / kHugePageBytes * kHugePageBytes),
                    MADV_HUGEPAGE);
        if (madvise(base, static_cast<size_t>(wanted), MADV_POPULATE_WRITE) != 0) {
            if (errno == ENOMEM || errno == EFAULT) {
                release();
                throw Error(ExitCode::does_not_fit,
                            fmt::format("cannot populate arena {} of {}: {}",
                                        arena_name(static_cast<Arena>(a)), mib(size_[a]),
                                        std::strerror(errno)));
            }
            std::memset(base, 0, static_cast<size_t>(wanted));  // kernels before 5.14
        }
    }
    CHECK(reserved_bytes() == plan.total_bytes);
}

ArenaSet::~ArenaSet() {
    release();
}

void ArenaSet::release() noexcept {
    for (int a = 0; a < kArenaCount; ++a) {
        if (base_[a] != nullptr) munmap(base_[a], static_cast<size_t>(mapped_[a]));
        base_[a] = nullptr;
    }
}

int64_t ArenaSet::reserved_bytes() const {
    int64_t sum = 0;
    for (const int64_t size : size_) sum += size;
    return sum;
}

int64_t ArenaSet::mapped_bytes() const {
    int64_t sum = 0;
    for (const int64_t size : mapped_) sum += size;
    return sum;
}

}  // namespace plumb
