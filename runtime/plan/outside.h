// The rows of a plan for memory that no arena holds: code and libraries, stacks, the C library's
// heap. Estimates from constants taken on one machine, and each row says so; they enter no
// digest.
// Path: cold.
#pragma once

#include <vector>

#include "runtime/plan/plan.h"

namespace plumb {

std::vector<OutsideRow> outside_rows(const Program& program, const DeviceRecord& device);

}  // namespace plumb
