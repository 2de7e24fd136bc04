// The logical tensors of a training state as a checkpoint sees them: one record per parameter and
// stream, in a fixed order (param, moment1, moment2 of each parameter in declaration order).
// Path: cold.
#pragma once

#include <vector>

#include "formats/checkpoint_layout.h"
#include "runtime/program/param.h"

namespace plumb {

std::vector<TensorRecord> state_records(const std::vector<Param>& params, bool training);

}  // namespace plumb
