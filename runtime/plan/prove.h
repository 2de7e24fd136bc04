// Proof, after the fact, that a plan is sound: no two tensors that live at the same time share a
// byte (nor a red zone), every tensor lies inside its arena, slot or row, aligned, and aliases lie
// in their roots. Walking the entries of every phase it proves that no slot is written again before
// all sections that read it have run on its micro-batch, and that caches over the stash are touched
// only by phases that touch no slot; and that what runs beside a phase shares no byte with it. It
// derives lives from the ops again and sweeps over time with its own ordered set: no code of
// lifetime, pack or exact is used, so an error there does not hide here. Every make_plan runs it.
// Path: cold.
#pragma once

#include <string>
#include <vector>

#include "runtime/plan/plan.h"

namespace plumb {

// Bytes [begin, end) of one address space taken from time `first` to `last`, both inclusive.
struct Block {
    int64_t begin = 0;
    int64_t end = 0;
    int64_t first = 0;
    int64_t last = 0;
    TensorId tensor = kNoTensor;
};

// Names two blocks that share a byte and a moment; "" when there are none.
std::string find_overlap(const Program& program, std::vector<Block> blocks);

// The same for the schedule: slots and caches over the phases' entries.
std::string find_schedule_flaw(const Program& program, const Plan& plan);

// "" when the plan is sound, else what is wrong.
std::string find_flaw(const Program& program, const Plan& plan);

}  // namespace plumb
