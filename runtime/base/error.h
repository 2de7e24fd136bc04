// The one exception of the cold path. Its text names the field or file, what was found and what
// would be right; its code is the process's exit code. Hot code throws nothing (see check.h).
// Path: cold.
#pragma once

#include <stdexcept>
#include <string>

namespace plumb {

enum class ExitCode : int {
    ok = 0,
    bad_input = 2,
    does_not_fit = 3,
    io = 4,
    peer_lost = 5,
};

class Error : public std::runtime_error {
  public:
    Error(ExitCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
    ExitCode code() const { return code_; }

  private:
    ExitCode code_;
};

// Runs a program's body; on Error prints one line `error: ...` to stderr and returns its code; on
// any other exception code 1. Every main() is `return run_main([&] { ...; return 0; })`.
template <typename Body>
int run_main(Body body);

// Prints `error: MESSAGE` to stderr.
void print_error(const char* message);

template <typename Body>
int run_main(Body body) {
    try {
        return body();
    } catch (const Error& error) {
        print_error(error.what());
        return static_cast<int>(error.code());
    } catch (const std::bad_alloc&) {
        print_error("out of memory outside the planned arenas");
        return static_cast<int>(ExitCode::does_not_fit);
    } catch (const std::exception& error) {
        print_error(error.what());
        return 1;
    }
}

}  // namespace plumb
