// What the kernel says this process holds, to stand beside the plan at the end of a run.
// Path: cold.
#pragma once

#include "runtime/base/types.h"

namespace plumb {

struct MemoryUse {
    int64_t anonymous_bytes = 0;  // RssAnon: arenas, heap, stacks
    int64_t file_bytes = 0;       // RssFile: code and mapped data files, which can be dropped
    int64_t shared_bytes = 0;     // RssShmem
};

// Reads /proc/self/status without allocating; zeros where the system has none.
MemoryUse memory_use() noexcept;

}  // namespace plumb
