#include "runtime/plan/pack.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "runtime/base/check.h"
#include "runtime/base/checked.h"
#include "runtime/plan/exact.h"

namespace plumb {

namespace {

using Order = std::vector<int32_t>;

struct Placed {
    int64_t begin;
    int64_t end;
    int32_t first;
    int32_t last;
};

int64_t duration(const PackItem& item) {
    return int64_t{item.last} - item.first + 1;
}

// Orders by the keys (high first), then by size, first use and index, so that it is total.
template <typename Key>
Order order_by(const std::vector<PackItem>& items, Key key) {
    Order order(items.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
        const PackItem& x = items[static_cast<size_t>(a)];
        const PackItem& y = items[static_cast<size_t>(b)];
        const auto kx = key(x), ky = key(y);
        if (kx != ky) return kx > ky;
        if (x.size_bytes != y.size_bytes) return x.size_bytes > y.size_bytes;
        return x.first < y.first;
    });
    return order;
}

// The lowest free offset, or with `tightest` the lowest offset of the smallest gap that is enough.
// `placed` is sorted by begin.
int64_t find_gap(const std::vector<Placed>& placed, const PackItem& item, bool tightest) {
    int64_t top = 0;  // end of everything below that meets the item in time
    int64_t best_offset = -1;
    int64_t best_gap = std::numeric_limits<int64_t>::max();
    for (const Placed& other : placed) {
        if (other.last < item.first || other.first > item.last) continue;
        const int64_t gap = other.begin - top;
        if (gap >= item.size_bytes && gap < best_gap) {
            if (!tightest) return top;
            best_gap = gap;
            best_offset = top;
        }
        top = std::max(top, other.end);
    }
    return best_offset >= 0 ? best_offset : top;
}

Packing place_in_order(const std::vector<PackItem>& items, const Order& order, bool tightest) {
    Packing result;
    result.offset_bytes.resize(items.size());
    std::vector<Placed> placed;
    placed.reserve(items.size());
    for (const int32_t i : order) {
        const PackItem& item = items[static_cast<size_t>(i)];
        const int64_t offset = find_gap(placed, item, tightest);
        const Placed now{offset, offset + item.size_bytes, item.first, item.last};
        placed.insert(
            std::upper_bound(placed.begin(), placed.end(), now,
                             [](const Placed& a, const Placed& b) { return a.begin < b.begin; }),
            now);
        result.offset_bytes[static_cast<size_t>(i)] = offset;
        result.height_bytes = std::max(result.height_bytes, now.end);
    }
    return result;
}

Packing pack_greedily(const std::vector<PackItem>& items, int64_t target_bytes) {
    const auto area = [](const PackItem& x) {
        return static_cast<double>(x.size_bytes) * static_cast<double>(duration(x));
    };
    const Order orders[] = {
        order_by(items, [](const PackItem& x) { return x.size_bytes; }),
        order_by(items, duration),
        order_by(items, area),
        order_by(items, [](const PackItem& x) { return -int64_t{x.first}; }),
        order_by(items, [](const PackItem& x) { return int64_t{x.last}; }),
    };
    Packing best;
    best.height_bytes = std::numeric_limits<int64_t>::max();
    for (const Order& order : orders) {
        for (const bool tightest : {false, true}) {
            Packing result = place_in_order(items, order, tightest);
            if (result.height_bytes < best.height_bytes) best = std::move(result);
            if (best.height_bytes <= target_bytes) return best;
        }
    }
    return best;
}

// Groups of items that no other group meets in time: each packs by itself from offset 0.
std::vector<Order> split_in_time(const std::vector<PackItem>& items) {
    std::vector<Order> groups;
    int64_t last = -1;
    for (const int32_t i : order_by(items, [](const PackItem& x) { return -int64_t{x.first}; })) {
        const PackItem& item = items[static_cast<size_t>(i)];
        if (groups.empty() || item.first > last) groups.emplace_back();
        groups.back().push_back(i);
        last = std::max(last, int64_t{item.last});
    }
    return groups;
}

}  // namespace

int64_t max_live_bytes(const std::vector<PackItem>& items) {
    std::vector<std::pair<int64_t, int64_t>> events;  // time, change; falls before rises
    events.reserve(items.size() * 2);
    for (const PackItem& item : items) {
        events.emplace_back(item.first, item.size_bytes);
        events.emplace_back(int64_t{item.last} + 1, -item.size_bytes);
    }
    std::sort(events.begin(), events.end());
    int64_t live = 0;
    int64_t highest = 0;
    for (const auto& [time, change] : events) highest = std::max(highest, live += change);
    return highest;
}

Packing pack(const std::vector<PackItem>& items, const PackOptions& options) {
    int64_t sum = 0;  // bounds every offset that can arise below
    for (const PackItem& item : items) {
        CHECK(item.size_bytes > 0 && 0 <= item.first && item.first <= item.last);
        sum = checked_add(sum, item.size_bytes, "sum of tensor sizes to pack");
    }
    Packing result;
    result.offset_bytes.resize(items.size());
    result.lower_bound_bytes = max_live_bytes(items);
    result.optimal = true;
    for (const Order& group : split_in_time(items)) {
        std::vector<PackItem> part;
        part.reserve(group.size());
        for (const int32_t i : group) part.push_back(items[static_cast<size_t>(i)]);
        Packing best = pack_greedily(part, result.lower_bound_bytes);
        if (best.height_bytes > result.lower_bound_bytes) {
            search_packing(part, result.lower_bound_bytes, options.node_budget, best);
            result.optimal = result.optimal && best.optimal;
        }
        for (size_t k = 0; k < group.size(); ++k)
            result.offset_bytes[static_cast<size_t>(group[k])] = best.offset_bytes[k];
        result.height_bytes = std::max(result.height_bytes, best.height_bytes);
    }
    return result;
}

}  // namespace plumb
