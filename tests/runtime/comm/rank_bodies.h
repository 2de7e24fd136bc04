// What ranks do in the tests, wherever they run: as processes of the test program (group_test.cpp)
// or under mpirun (main_mpi_ranks.cpp). A body throws std::runtime_error when something is wrong.
// Path: cold.
#pragma once

#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "runtime/comm/world.h"

namespace plumb {

struct RankBody {
    std::string name;
    int32_t rank_count;
    std::function<void(World&)> run;
};
inline void PrintTo(const RankBody& body, std::ostream* out) {
    *out << body.name;
}
const std::vector<RankBody>& rank_bodies();

std::vector<int32_t> all_ranks(const World& world);

// Exchanges at "first" of step 16, does what is between, exchanges at "reduce_scatter block.3" of
// step 17.
void exchange_twice(World& world, const std::function<void()>& between);

}  // namespace plumb
