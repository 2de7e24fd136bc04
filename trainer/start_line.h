// The line of log.jsonl with which a start of a run begins: what is needed to read the rest of the
// log without the machine it came from. One object:
//   step      finished steps at this start, 0 for a new run
//   time      seconds since 1970
//   numerics  hash of what decides the last bits (runtime/engine/numerics.h)
//   plan      as plumb-plan --json prints it (runtime/plan/report.h)
//   settings  every setting as "section.key = value" lines (runtime/config/run_config.h)
// Path: cold.
#pragma once

#include <string>

#include "runtime/engine/session.h"

namespace plumb {

// `name` is what the user called the configuration. Ends with a newline.
std::string start_line(const Session& session, const std::string& name, int64_t step);

}  // namespace plumb
