#include "runtime/base/check.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>

namespace plumb {

void check_failed(const char* file, int line, const char* condition, const char* note) noexcept {
    char text[512];
    const int length =
        std::snprintf(text, sizeof text, "fatal: %s:%d: %s %s\n", file, line, condition, note);
    if (length > 0) {
        const auto size = static_cast<size_t>(length) < sizeof text ? static_cast<size_t>(length)
                                                                    : sizeof text - 1;
        [[maybe_unused]] const auto written = ::write(STDERR_FILENO, text, size);
    }
    std::abort();
}

}  // namespace plumb
