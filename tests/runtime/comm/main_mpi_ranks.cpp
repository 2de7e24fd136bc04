// What a rank does under mpirun: `mpi_ranks BODY [between-hosts]` runs one of rank_bodies.h; `kill`
// and `stop` are the failures of group_test.cpp, in which the last rank ends or stands still.
// Path: cold.
#include <csignal>
#include <cstdio>
#include <cstring>

#include "runtime/comm/start.h"
#include "tests/runtime/comm/rank_bodies.h"

int main(int argc, char** argv) {
    using namespace plumb;
    return run_main([&] {
        if (argc < 2 || !started_by_mpirun())
            throw Error(ExitCode::bad_input, "usage: mpirun -n N mpi_ranks BODY [between-hosts]");
        const std::string name = argv[1];
        const bool between_hosts = argc > 2 && std::strcmp(argv[2], "between-hosts") == 0;
        const auto world = make_mpi_world({name == "stop" ? 1.0 : 20.0, true}, between_hosts);
        const bool last = world->rank() + 1 == world->size();
        if (name == "kill" || name == "stop") {
            exchange_twice(*world, [&] {
                if (last) ::raise(name == "kill" ? SIGKILL : SIGSTOP);
            });
            return 0;
        }
        for (const RankBody& body : rank_bodies()) {
            if (body.name != name) continue;
            body.run(*world);
            if (world->rank() == 0) std::puts("all ranks agree");
            return 0;
        }
        throw Error(ExitCode::bad_input, "no body is called " + name);
    });
}
