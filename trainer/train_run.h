// A training run from a checked configuration to its exit code: data, session, resume or
// initialise, seal, loop, and the report at the end.
// Path: cold.
#pragma once

#include <string>

#include "runtime/config/run_config.h"

namespace plumb {

// `name` is what the user called the configuration. Returns the process's exit code: 0, also when
// asked to stop; 1 after three steps without finite gradients in a row; 4 when the last save
// failed. Throws Error for everything found before the first step.
int train_run(const RunConfig& config, const std::string& name);

}  // namespace plumb
