// Lines for people (stderr and stdout) that allocate nothing: formatted into a fixed buffer and
// written with one write(2). Longer lines are cut at the buffer's size.
// Path: hot.
#pragma once

#include <fmt/format.h>
#include <unistd.h>

#include "runtime/base/types.h"

namespace plumb {

// Writes all bytes to a file descriptor, retrying short writes and EINTR; false on error.
bool write_all(int fd, const char* data, int64_t size_bytes) noexcept;

// False when it could not be written.
template <typename... Args>
bool print_line(int fd, fmt::format_string<Args...> format, Args&&... args) {
    char text[2048];
    const auto result =
        fmt::format_to_n(text, sizeof text - 1, format, std::forward<Args>(args)...);
    const auto size = result.size < sizeof text - 1 ? result.size : sizeof text - 1;
    text[size] = '\n';
    return write_all(fd, text, static_cast<int64_t>(size) + 1);
}

}  // namespace plumb
