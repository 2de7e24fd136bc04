// When each root tensor lives, as a closed interval of op indices of the program: from the first op
// that touches it (or any alias of it) to the last. Sections are recorded in the order in which
// they run on a micro-batch (forward before backward), so for a slot's tensors the same interval
// is their life over forward and backward joined. A scratch tensor lives for its one op. Persistent
// tensors have intervals too, but live always. Also here: which role lies in which arena.
// Path: cold.
#pragma once

#include <vector>

#include "runtime/program/program.h"

namespace plumb {

struct Life {
    int32_t first = -1;  // -1: no op touches it
    int32_t last = -1;   // inclusive
    bool used() const { return first >= 0; }
};

enum class Residence : uint8_t { persistent, io_row, section, slot };

Residence residence_of(Role role);

// True when the caches lie where the stash does: the program also trains, so that they live only
// in the phase generate, when no micro-batch is between forward and backward.
bool kv_cache_overlays_stash(const Program& program);

Arena arena_of(const Program& program, Role role);

// Per tensor; aliases have no life of their own. Checks (abort: a malformed program is a bug) that
// a tensor which lives in a section is touched in one section only, that only `saved` has a slot
// class, that a scratch tensor has one op and that aliases lie inside their roots.
std::vector<Life> lifetimes(const Program& program);

// Section of each op.
std::vector<SectionId> section_of_ops(const Program& program);

}  // namespace plumb
