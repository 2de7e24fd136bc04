#include "runtime/base/log.h"

#include <cerrno>

namespace plumb {

bool write_all(int fd, const char* data, int64_t size_bytes) noexcept {
    while (size_bytes > 0) {
        const ssize_t written = ::write(fd, data, static_cast<size_t>(size_bytes));
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) return false;
        data += written;
        size_bytes -= written;
    }
    return true;
}

}  // namespace plumb
