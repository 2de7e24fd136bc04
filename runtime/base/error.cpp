#include "runtime/base/error.h"

#include <cstdio>

namespace plumb {

void print_error(const char* message) {
    std::fflush(stdout);
    std::fprintf(stderr, "error: %s\n", message);
}

}  // namespace plumb
