#include "formats/checkpoint_status.h"

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>

namespace plumb {

Status failure(StatusCode code, const char* format, ...) noexcept {
    Status status;
    status.code = code;
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(status.message, sizeof status.message, format, arguments);
    va_end(arguments);
    return status;
}

Status io_failure(int system_errno, const char* format, ...) noexcept {
    Status status;
    status.code = StatusCode::io;
    status.system_errno = system_errno;
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(status.message, sizeof status.message, format, arguments);
    va_end(arguments);
    // strerrordesc_np is a table look-up: strerror may allocate for translated text.
    const char* description = strerrordesc_np(system_errno);
    const size_t used = std::strlen(status.message);
    std::snprintf(status.message + used, sizeof status.message - used, ": %s (errno %d)",
                  description != nullptr ? description : "unknown error", system_errno);
    return status;
}

void throw_if_failed(const Status& status) {
    switch (status.code) {
        case StatusCode::ok:
            return;
        case StatusCode::io:
            if (status.system_errno != ENOENT && status.system_errno != EIO)
                throw Error(ExitCode::io, status.message);
            throw CheckpointDamage(status.message, status.system_errno == ENOENT);
        case StatusCode::damaged:
            throw CheckpointDamage(status.message);
        case StatusCode::unsupported:
        case StatusCode::bad_argument:
            throw Error(ExitCode::bad_input, status.message);
    }
}

}  // namespace plumb
