// Where the time of a list of entries (a training step, a decode) goes: its ops beside the least
// time that the limits of the run allow them. Equal ops are timed together, in the order of the
// program and on the operands that they have there, as often as it takes to measure them: on a GPU
// as one graph for which the host waits at the end, so that no launch is in the time. What the
// entries take as a whole beyond the sum is what lies between ops: gaps, and operands that are not
// in a cache any more.
// Path: cold.
#pragma once

#include <span>
#include <string>

#include "runtime/engine/session.h"

namespace plumb::testing {

// The most that a device does of the two things that ops are made of.
struct Limits {
    double flops;      // of products of a dtype
    double bandwidth;  // bytes/s of memory
    double sheet = 0;  // flops in the data sheet of a GPU; 0: unknown
};

struct ProfileRequest {
    std::string what;  // "train gpt2-124m"
    std::span<const Entry> entries;
    double measured_s;  // what they took in the benchmark, with all that the host does
    Limits limits;
    int64_t cached_positions;  // that attention over a cache reads; 0: there is none
    double least_s;            // of a measurement; 0 for a smoke run
};

// Prints two tables, by kind and the ops that lose most against their limits, and returns all as a
// JSON object. The session's weights are other ones after it.
std::string profile_entries(Session& session, const ProfileRequest& request);

}  // namespace plumb::testing
