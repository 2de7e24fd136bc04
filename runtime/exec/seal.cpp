#include "runtime/exec/seal.h"

#include <omp.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "runtime/base/check.h"

namespace plumb {

namespace {

constexpr int kLibraryCount = static_cast<int>(Library::count);

std::atomic<bool> g_sealed{false};
std::atomic<int64_t> g_calls[kLibraryCount];
std::atomic<int64_t> g_bytes[kLibraryCount];
thread_local bool t_ours = false;
thread_local int32_t t_library = -1;

}  // namespace

const char* library_name(Library library) noexcept {
    static constexpr const char* kNames[] = {"libc", "openmp", "terminal", "cuda"};
    static_assert(std::size(kNames) == kLibraryCount);
    return kNames[static_cast<int>(library)];
}

void mark_thread_ours() noexcept {
    t_ours = true;
}

void warm_threads(int32_t threads) {
    omp_set_dynamic(0);
    // Twice: the second region proves that the team is reused.
    for (int round = 0; round < 2; ++round) {
#pragma omp parallel num_threads(threads)
        t_ours = true;
    }
    t_ours = true;
}

void seal() noexcept {
    for (int i = 0; i < kLibraryCount; ++i) {
        g_calls[i] = 0;
        g_bytes[i] = 0;
    }
    t_ours = true;
    g_sealed = true;
}

void unseal() noexcept {
    g_sealed = false;
}

bool is_sealed() noexcept {
    return g_sealed;
}

AllocationCounts allocation_counts() noexcept {
    AllocationCounts counts;
    for (int i = 0; i < kLibraryCount; ++i) {
        counts.calls[i] = g_calls[i];
        counts.bytes[i] = g_bytes[i];
    }
    return counts;
}

LibraryScope::LibraryScope(Library library) noexcept : outer_(t_library) {
    t_library = static_cast<int32_t>(library);
}

LibraryScope::~LibraryScope() {
    t_library = outer_;
}

#ifdef PLUMB_SANITIZE

bool seal_is_enforced() noexcept {
    return false;
}

#else

bool seal_is_enforced() noexcept {
    return true;
}

namespace {

// Called by every allocation of the process.
inline void note_allocation(size_t size_bytes) noexcept {
    if (!g_sealed.load(std::memory_order_relaxed) || !t_ours) return;
    if (t_library >= 0) {
        g_calls[t_library].fetch_add(1, std::memory_order_relaxed);
        g_bytes[t_library].fetch_add(static_cast<int64_t>(size_bytes), std::memory_order_relaxed);
        return;
    }
    g_sealed = false;  // so that abort's own path may allocate
    char text[96];
    const int length =
        std::snprintf(text, sizeof text, "fatal: allocation of %zu bytes after seal\n", size_bytes);
    [[maybe_unused]] const auto written = ::write(STDERR_FILENO, text, static_cast<size_t>(length));
    std::abort();
}

}  // namespace

#endif

}  // namespace plumb

#ifndef PLUMB_SANITIZE

// glibc's own entry points under the public names: every allocation passes here first.
extern "C" {

void* __libc_malloc(size_t size);
void* __libc_calloc(size_t count, size_t size);
void* __libc_realloc(void* pointer, size_t size);
void* __libc_memalign(size_t alignment, size_t size);

void* malloc(size_t size) {
    plumb::note_allocation(size);
    return __libc_malloc(size);
}

void* calloc(size_t count, size_t size) {
    plumb::note_allocation(count * size);
    return __libc_calloc(count, size);
}

void* realloc(void* pointer, size_t size) {
    plumb::note_allocation(size);
    return __libc_realloc(pointer, size);
}

void* aligned_alloc(size_t alignment, size_t size) {
    plumb::note_allocation(size);
    return __libc_memalign(alignment, size);
}

void* memalign(size_t alignment, size_t size) {
    plumb::note_allocation(size);
    return __libc_memalign(alignment, size);
}

int posix_memalign(void** result, size_t alignment, size_t size) {
    plumb::note_allocation(size);
    *result = __libc_memalign(alignment, size);
    return *result == nullptr ? ENOMEM : 0;
}

void* reallocarray(void* pointer, size_t count, size_t size) {
    size_t bytes = 0;
    if (__builtin_mul_overflow(count, size, &bytes)) {
        errno = ENOMEM;
        return nullptr;
    }
    return realloc(pointer, bytes);
}

// Whole pages, as old programs ask for them.
void* valloc(size_t size) {
    plumb::note_allocation(size);
    return __libc_memalign(static_cast<size_t>(sysconf(_SC_PAGESIZE)), size);
}

void* pvalloc(size_t size) {
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    plumb::note_allocation(size);
    if (size > SIZE_MAX - page) {
        errno = ENOMEM;
        return nullptr;
    }
    return __libc_memalign(page, (size + page - 1) / page * page);
}

}  // extern "C"

#endif
