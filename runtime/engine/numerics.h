// What decides the last bits of a training and nothing else about it, as one hash: the instruction
// set of the kernels, the micro-batch, the loss chunk, how gradients are summed and, on a GPU, the
// algorithms of the products that the program has (with the GPU and the version of cuBLASLt, whose
// they are; tf32 is a property of a product). What changes no bit is not in it: threads, recompute,
// graphs, places in memory. Nor is what says which training it is: data, seed, sizes, dtype are
// training settings. Compilers and the version of this program are not in it. Two trainings with
// the same settings, by one build, with equal hashes have equal digests.
// Path: cold.
#pragma once

#include <string>

#include "runtime/engine/session.h"

namespace plumb {

Hash128 numerics_hash(const Session& session);

// "" or a line that says that a checkpoint's hash, where it has one, is another.
std::string numerics_difference(const Hash128& checkpoint, const Hash128& now);

}  // namespace plumb
