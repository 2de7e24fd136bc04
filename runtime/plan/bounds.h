// How many bytes live at each moment of the schedule, whatever places they are given: the peak of
// every phase, and the bound below which no placement can be. The schedule is unrolled entry by
// entry; a tensor in a slot counts from the op that makes it to the last op that reads that
// micro-batch's copy. Sizes are rounded up to kAlignBytes, red zones do not count.
// Path: cold.
#pragma once

#include <vector>

#include "runtime/plan/lifetime.h"

namespace plumb {

struct LivePeak {
    int64_t live_bytes = 0;
    SectionId section = -1;
    int32_t op = -1;  // index into program.ops
};

// One per phase of the program. An io row counts as often as there are micro-batches. Checks that
// every entry's slots exist.
std::vector<LivePeak> live_peaks(const Program& program, const std::vector<Life>& lives);

// Bytes of the tensor, at least kAlignBytes, rounded up to kAlignBytes; checked.
int64_t aligned_bytes(const Tensor& tensor);

}  // namespace plumb
