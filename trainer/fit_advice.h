// What to tell who started a run that does not fit: the best few single changes of settings, and
// the plumb-plan command that ranks all of them. Planned here and now, for the memory that the run
// may use: run.memory, or what the machine has left if that is less.
// Path: cold.
#pragma once

#include <string>
#include <vector>

#include "runtime/config/run_config.h"

namespace plumb {

// Lines for stderr, for the run of load_run(file, overrides), which is `config`; empty when it fits
// after all (another process gave memory back).
std::string fit_advice(const RunConfig& config, const std::string& file,
                       const std::vector<std::string>& overrides);

}  // namespace plumb
