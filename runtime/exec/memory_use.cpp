#include "runtime/exec/memory_use.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

namespace plumb {

namespace {

int64_t kib_field(const char* text, const char* name) {
    const char* found = std::strstr(text, name);
    return found == nullptr ? 0 : std::strtoll(found + std::strlen(name), nullptr, 10) * kKiB;
}

}  // namespace

MemoryUse memory_use() noexcept {
    MemoryUse use;
    const int fd = ::open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return use;
    char text[8192];
    const ssize_t size = ::read(fd, text, sizeof text - 1);
    ::close(fd);
    if (size <= 0) return use;
    text[size] = '\0';
    use.anonymous_bytes = kib_field(text, "RssAnon:");
    use.file_bytes = kib_field(text, "RssFile:");
    use.shared_bytes = kib_field(text, "RssShmem:");
    return use;
}

}  // namespace plumb
