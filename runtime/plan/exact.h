// Branch and bound for the packing problem of pack.h. Items are placed in order of rising offset,
// each on top of what lies below it (every packing can be pushed down into this form). A branch is
// cut when at some moment floor + unplaced live bytes reach the best height known, and when an item
// would be placed so high that another one fits entirely beneath it (cf. Moffitt, "MiniMalloc",
// ASPLOS 2023). The budget counts nodes and the work per node, so that large instances stay cheap;
// both depend on the instance alone.
// Path: cold.
#pragma once

#include "runtime/plan/pack.h"

namespace plumb {

// Tries to get below best.height_bytes; stops at `target_bytes`. Replaces `best` when it does.
// Sets best.optimal when the whole tree was searched or the target reached.
void search_packing(const std::vector<PackItem>& items, int64_t target_bytes, int64_t node_budget,
                    Packing& best);

}  // namespace plumb
