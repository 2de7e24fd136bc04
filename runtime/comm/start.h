// How worlds come to be: of one rank; of ranks on this host that this process starts itself; or of
// the ranks that mpirun has started. What a rank's body does is the same in all. One file includes
// mpi.h, mpi_world.cpp, so that another MPI means compiling that one anew; a program that was built
// without MPI has the other worlds.
// Path: cold.
#pragma once

#include <functional>

#include "runtime/comm/world.h"

namespace plumb {

// A world of one.
std::unique_ptr<World> make_self_world();

// Whether this process is one of several that mpirun (or srun) has started.
bool started_by_mpirun() noexcept;

// The world of the ranks that were started with this one; ends MPI when it goes. Ranks that are all
// on one host exchange through its memory, and need MPI no more; otherwise, or when between_hosts
// asks for it, by messages. Throws Error when the program was built without MPI.
std::unique_ptr<World> make_mpi_world(const WorldOptions& options, bool between_hosts);

// Starts `count` processes, each of which runs `body` as one rank and ends with the exit code that
// it returns (as run_main makes it of exceptions). Passes SIGINT, SIGTERM and SIGUSR1 on to them.
// Returns when all have ended: 0 when all returned 0, otherwise the exit code of the rank that
// failed first. After a failure the others have the world's timeout and a few seconds to see it;
// then they are killed. Call before this process has threads. Throws Error when processes or their
// shared memory are not to be had.
int run_local_ranks(int32_t count, const WorldOptions& options,
                    const std::function<int(World&)>& body);

}  // namespace plumb
