#include "runtime/exec/wait_policy.h"

#include <omp.h>
#include <unistd.h>

#include <cstdlib>
#include <initializer_list>

namespace plumb {

void spin_briefly(char** argv) {
    for (const char* name : {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"})
        if (std::getenv(name) != nullptr) return;
    // A bound team's first thread is bound already, and would pass its one CPU on as the mask.
    if (omp_get_proc_bind() != omp_proc_bind_false) return;
    // About 10 us: longer than the gap between two ops, shorter than a time slice.
    setenv("GOMP_SPINCOUNT", "1000", 1);
    setenv("KMP_BLOCKTIME", "0", 1);
    execv("/proc/self/exe", argv);
}

}  // namespace plumb
