// XXH3-128 over everything that decides which bytes a run uses and what it does with them: the
// program (names, shapes, ops, attributes, schedule), the places, and what kernels' traits read of
// the device record (not its name). Outside rows are estimates and stay out.
// Path: cold.
#pragma once

#include "runtime/plan/plan.h"

namespace plumb {

Hash128 plan_digest(const Program& program, const Plan& plan, const DeviceRecord& device);

}  // namespace plumb
