#include "runtime/exec/wait_policy.h"

#include <unistd.h>

#include <cstdlib>
#include <initializer_list>

namespace plumb {

void spin_briefly(char** argv) {
    for (const char* name : {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"})
        if (std::getenv(name) != nullptr) return;
    // About 10 us: longer than the gap between two ops, shorter than a time slice.
    setenv("GOMP_SPINCOUNT", "1000", 1);
    setenv("KMP_BLOCKTIME", "0", 1);
    execv("/proc/self/exe", argv);
}

}  // namespace plumb
