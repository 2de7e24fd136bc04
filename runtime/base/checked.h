// Checked 64-bit arithmetic for every size that came from a file or a user. Overflow and negative
// operands give an Error (exit 2) that names what was being computed; nothing wraps or clamps.
// Path: cold.
#pragma once

#include <string>

#include "runtime/base/error.h"
#include "runtime/base/types.h"

namespace plumb {

[[noreturn]] inline void throw_overflow(const char* what, int64_t a, const char* op, int64_t b) {
    throw Error(ExitCode::bad_input, std::string(what) + ": " + std::to_string(a) + " " + op + " " +
                                         std::to_string(b) +
                                         " is negative or does not fit 63 bits");
}

inline int64_t checked_mul(int64_t a, int64_t b, const char* what) {
    int64_t r;
    if (a < 0 || b < 0 || __builtin_mul_overflow(a, b, &r)) throw_overflow(what, a, "*", b);
    return r;
}

inline int64_t checked_add(int64_t a, int64_t b, const char* what) {
    int64_t r;
    if (a < 0 || b < 0 || __builtin_add_overflow(a, b, &r)) throw_overflow(what, a, "+", b);
    return r;
}

// The same without exceptions, for validators that must not throw: false on overflow.
inline bool mul_fits(uint64_t a, uint64_t b, uint64_t* r) noexcept {
    return !__builtin_mul_overflow(a, b, r);
}
inline bool add_fits(uint64_t a, uint64_t b, uint64_t* r) noexcept {
    return !__builtin_add_overflow(a, b, r);
}

}  // namespace plumb
