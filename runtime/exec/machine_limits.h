// What the machine leaves to this process: memory and processors, as its control groups, its
// affinity and the kernel's own figures bound them. A process's limits stand in its own group and
// in every group above it, so all of them are read, of cgroup v2 and v1. `root` is put before the
// paths of the system's files ("" for the real ones), so that the parsing is tested on a tree of
// plain files.
// Path: cold.
#pragma once

#include <string>

#include "runtime/base/types.h"

namespace plumb {

// The tightest of: the machine's available memory, and of each control group its limit less what is
// used, where page cache that the kernel can drop (inactive_file) counts as free. *source names
// which, for "... is 4 bytes".
int64_t available_memory_bytes(const char** source, const std::string& root = "");

// CPUs that this process may keep busy: those of its affinity mask, at most the tightest quota of
// its control groups rounded up; at least 1.
int32_t usable_cpus(const std::string& root = "");

}  // namespace plumb
