#include "runtime/exec/arena.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
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

}  // namespace

ArenaSet::ArenaSet(const Plan& plan, int64_t memory_limit_bytes, Gpu* gpu) : gpu_(gpu) {
    CHECK((gpu != nullptr) == (plan.main == MemorySpace::gpu));
    check_fits(plan, memory_limit_bytes);
    for (int a = 0; a < kArenaCount; ++a) {
        size_[a] = plan.arena_bytes[a];
        if (size_[a] == 0) continue;
        const auto arena = static_cast<Arena>(a);
        try {
            if (gpu == nullptr)
                map_arena(a);
            else
                allocate_arena(a, is_shared_with_host(arena));
        } catch (const Error& error) {
            release();
            throw Error(error.code(), fmt::format("arena {}: {}", arena_name(arena), error.what()));
        }
    }
    CHECK(reserved_bytes() == plan.total_bytes);
}

void ArenaSet::check_fits(const Plan& plan, int64_t memory_limit_bytes) {
    const auto refuse = [&](MemorySpace space, const char* what, int64_t limit) {
        const int64_t arenas = arena_bytes_in(plan, space);
        throw Error(ExitCode::does_not_fit,
                    fmt::format("the plan needs {} in arenas and {} outside them{}; {} is {}",
                                bytes_text(arenas),
                                bytes_text(plan.space_bytes[static_cast<int>(space)] - arenas),
                                gpu_ == nullptr             ? ""
                                : space == MemorySpace::gpu ? fmt::format(" on {}", gpu_->name())
                                                            : " on the host",
                                what, bytes_text(limit)));
    };
    const int64_t needed = plan.space_bytes[static_cast<int>(plan.main)];
    if (memory_limit_bytes > 0 && needed > memory_limit_bytes)
        refuse(plan.main, "run.memory", memory_limit_bytes);
    const char* source = nullptr;
    const int64_t available = available_memory_bytes(&source);
    if (plan.space_bytes[static_cast<int>(MemorySpace::host)] > available)
        refuse(MemorySpace::host, source, available);
    if (gpu_ == nullptr) return;
    // Of what lies outside the arenas a part is taken already (CUDA's context), the rest is still
    // to come (code, graphs): at least what all processes together do not hold.
    const GpuMemory memory = gpu_->memory();
    const int64_t arenas = arena_bytes_in(plan, MemorySpace::gpu);
    const int64_t outside = plan.space_bytes[static_cast<int>(MemorySpace::gpu)] - arenas;
    const int64_t held = memory.total_bytes - memory.free_bytes;
    const int64_t to_come = std::max<int64_t>(0, outside - held);
    if (arenas + to_come > memory.free_bytes)
        gpu_->refuse(fmt::format("the plan needs {} in arenas and {} that CUDA has not taken yet",
                                 bytes_text(arenas), bytes_text(to_come)));
}

// Of the host's memory, every page populated.
void ArenaSet::map_arena(int arena) {
    const int64_t size = size_[arena];
    // Large arenas start on a huge page; small ones would waste most of it.
    const bool huge = size >= kHugePageBytes;
    const int64_t alignment = huge ? kHugePageBytes : kPageBytes;
    const int64_t wanted = align_up(size, kPageBytes);
    const int64_t span = wanted + (huge ? kHugePageBytes : 0);
    const auto refuse = [&](const char* verb) {
        throw Error(ExitCode::does_not_fit,
                    fmt::format("cannot {} {}: {}", verb, bytes_text(size), std::strerror(errno)));
    };
    void* raw = mmap(nullptr, static_cast<size_t>(span), PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (raw == MAP_FAILED) refuse("map");
    const auto address = reinterpret_cast<int64_t>(raw);
    const int64_t start = align_up(address, alignment);
    char* base = static_cast<char*>(raw) + (start - address);
    if (start > address) munmap(raw, static_cast<size_t>(start - address));
    const int64_t tail = address + span - (start + wanted);
    if (tail > 0) munmap(base + wanted, static_cast<size_t>(tail));
    base_[arena] = host_base_[arena] = base;
    mapped_[arena] = wanted;
    // Only whole huge pages are asked for, so that the tail does not take another 2 MiB.
    if (huge)
        madvise(base, static_cast<size_t>(wanted / kHugePageBytes * kHugePageBytes), MADV_HUGEPAGE);
    if (madvise(base, static_cast<size_t>(wanted), MADV_POPULATE_WRITE) == 0) return;
    if (errno == ENOMEM || errno == EFAULT) refuse("populate");
    std::memset(base, 0, static_cast<size_t>(wanted));  // kernels before 5.14
}

void ArenaSet::allocate_arena(int arena, bool copied) {
    const bool on_host = space_of(static_cast<Arena>(arena), MemorySpace::gpu) == MemorySpace::host;
    if (!on_host) base_[arena] = static_cast<char*>(gpu_->allocate(size_[arena]));
    if (on_host || copied)
        host_base_[arena] = static_cast<char*>(gpu_->allocate_host(size_[arena]));
    if (!on_host) return;
    base_[arena] = host_base_[arena];
    mapped_[arena] = size_[arena];
}

ArenaSet::~ArenaSet() {
    release();
}

void ArenaSet::release() noexcept {
    for (int a = 0; a < kArenaCount; ++a) {
        if (gpu_ == nullptr) {
            if (base_[a] != nullptr) munmap(base_[a], static_cast<size_t>(mapped_[a]));
        } else {
            if (base_[a] != nullptr && base_[a] != host_base_[a]) gpu_->release(base_[a]);
            if (host_base_[a] != nullptr) gpu_->release_host(host_base_[a]);
        }
        base_[a] = host_base_[a] = nullptr;
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
