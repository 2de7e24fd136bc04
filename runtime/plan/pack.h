// Places intervals of time with sizes at offsets so that no two that meet in time meet in space,
// as low as it can. First greedy: several orders, each item at the lowest offset that is free or in
// the tightest gap; then, where that stays above the lower bound, an exact search (exact.h) with a
// budget of nodes, never of seconds: the result depends on nothing but the arguments. Offsets are
// sums of sizes, so sizes that are multiples of an alignment give aligned offsets.
// Path: cold.
#pragma once

#include <vector>

#include "runtime/base/types.h"

namespace plumb {

struct PackItem {
    int64_t size_bytes = 0;  // > 0
    int32_t first = 0;
    int32_t last = 0;  // inclusive
};

struct PackOptions {
    int64_t node_budget = 20'000;  // of the exact search; 0: greedy only
};

struct Packing {
    std::vector<int64_t> offset_bytes;  // per item
    int64_t height_bytes = 0;
    int64_t lower_bound_bytes = 0;  // highest sum of sizes that live at once
    bool optimal = false;           // at the lower bound, or the search was exhausted
};

Packing pack(const std::vector<PackItem>& items, const PackOptions& options = {});

int64_t max_live_bytes(const std::vector<PackItem>& items);

}  // namespace plumb
