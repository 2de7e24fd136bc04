// A training run from a checked configuration to its exit code: data, session, resume or
// initialise, seal, loop, and the report at the end.
// Path: cold.
#pragma once

#include <string>

#include "runtime/config/run_config.h"

namespace plumb {

// The override that keeps a resumed run in its dtype: train.dtype = auto chooses for the machine at
// the start of a run only. Empty when the dtype is not auto or nothing is there to resume.
std::string dtype_override(const RunConfig& config);

// `name` is what the user called the configuration. Returns the process's exit code: 0, also when
// asked to stop; 1 after three steps without finite gradients in a row; 4 when the last save
// failed. Throws Error for everything found before the first step.
int train_run(const RunConfig& config, const std::string& name);

}  // namespace plumb
