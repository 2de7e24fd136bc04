// The result of checkpoint functions that may run after seal: a code and a message in a fixed
// buffer, never an exception. The message names the file, what was found and what would be right.
// Cold callers turn a failure into plumb::Error with throw_if_failed.
// Path: hot.
#pragma once

#include "runtime/base/error.h"
#include "runtime/base/types.h"

namespace plumb {

enum class StatusCode : int32_t {
    ok,
    io,            // a system call failed; system_errno says how
    damaged,       // bytes are not what was written
    unsupported,   // undamaged, but of a version or with features this program does not know
    bad_argument,  // the caller's tensors, boxes or buffers
};

struct [[nodiscard]] Status {
    StatusCode code = StatusCode::ok;
    int32_t system_errno = 0;
    char message[504] = "";
    bool ok() const { return code == StatusCode::ok; }
};

// A failed status with a printf-formatted message (cut at the buffer's size).
Status failure(StatusCode code, const char* format, ...) noexcept
    __attribute__((format(printf, 2, 3)));

// The same with ": strerror (errno N)" appended.
Status io_failure(int system_errno, const char* format, ...) noexcept
    __attribute__((format(printf, 2, 3)));

// A checkpoint that cannot be read back: loading falls back to the step before. Exit code 4.
// It is lasting when bytes or files are not there any more; a disk's read error may pass.
class CheckpointDamage : public Error {
  public:
    explicit CheckpointDamage(const std::string& message, bool lasting = true)
        : Error(ExitCode::io, message), lasting_(lasting) {}
    bool lasting() const { return lasting_; }

  private:
    bool lasting_;
};

// Throws CheckpointDamage for damaged bytes, a missing file (ENOENT) and a read error (EIO). Other
// system errors (no permission, no descriptor or memory left) say nothing of the checkpoint: Error
// with exit code 4. The others: Error with exit code 2.
void throw_if_failed(const Status& status);

}  // namespace plumb
