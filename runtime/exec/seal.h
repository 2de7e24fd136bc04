// After seal(), memory comes only from the arenas: a malloc-family call on one of our threads
// outside a LibraryScope aborts with its size; inside one it is counted for the library named. The
// C library, MPI, CUDA and others may allocate for themselves, and their rows of the plan say so.
// Sanitizer builds keep their own allocator: there nothing is enforced (seal_is_enforced()).
// Path: hot.
#pragma once

#include "runtime/base/types.h"

namespace plumb {

enum class Library : uint8_t { libc, openmp, terminal, cuda, count };

struct AllocationCounts {
    int64_t calls[static_cast<int>(Library::count)] = {};
    int64_t bytes[static_cast<int>(Library::count)] = {};
};

const char* library_name(Library library) noexcept;

// Marks the calling thread as ours.
void mark_thread_ours() noexcept;
// Marks the calling thread and the OpenMP team of this size as ours; call before seal().
void warm_threads(int32_t threads);
void seal() noexcept;
// For the cold end of a process (reports, destructors).
void unseal() noexcept;
bool is_sealed() noexcept;
bool seal_is_enforced() noexcept;

// Counts since seal().
AllocationCounts allocation_counts() noexcept;

class LibraryScope {
  public:
    explicit LibraryScope(Library library) noexcept;
    ~LibraryScope();
    LibraryScope(const LibraryScope&) = delete;
    LibraryScope& operator=(const LibraryScope&) = delete;

  private:
    int32_t outer_;
};

}  // namespace plumb
