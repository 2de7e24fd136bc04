// Invariants. CHECK stays in every build and stands where silence would corrupt state; ASSERT is
// compiled only in the checked build. Both print file, line and the condition, then abort: on the
// hot path there is nobody to catch an exception. Bad *input* is never a CHECK (see error.h).
// Path: hot.
#pragma once

namespace plumb {

// Writes the message without allocating, then aborts the process.
[[noreturn]] void check_failed(const char* file, int line, const char* condition,
                               const char* note) noexcept;

}  // namespace plumb

#define CHECK_NOTE(condition, note)                      \
    (static_cast<bool>(condition) ? static_cast<void>(0) \
                                  : ::plumb::check_failed(__FILE__, __LINE__, #condition, note))
#define CHECK(condition) CHECK_NOTE(condition, "")

#ifdef PLUMB_CHECKED
#define ASSERT(condition) CHECK(condition)
#else
#define ASSERT(condition) static_cast<void>(sizeof((condition) ? 1 : 0))
#endif
