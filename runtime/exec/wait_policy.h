// How OpenMP threads wait between parallel regions. The libraries' default is to spin for many
// milliseconds; when anything else runs on a core, the team then waits whole time slices at every
// op. We want what our own waits do: spin briefly, then sleep. The OpenMP libraries read their
// settings before main, so the process sets them and executes itself once more.
// Path: cold.
#pragma once

namespace plumb {

// Call first thing in main. Does nothing when the user has set OMP_WAIT_POLICY, GOMP_SPINCOUNT or
// KMP_BLOCKTIME, or bound the threads, or when the process cannot execute itself again.
void spin_briefly(char** argv);

}  // namespace plumb
