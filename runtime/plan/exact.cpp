#include "runtime/plan/exact.h"

#include <algorithm>
#include <functional>
#include <numeric>

namespace plumb {

namespace {

// Work that one search may cost, in visits of items and moments; and the depth of its recursion.
constexpr int64_t kWorkBudget = 40'000'000;
constexpr size_t kItemsMax = 2'000;

class Search {
  public:
    Search(const std::vector<PackItem>& items, int64_t target_bytes, Packing& best)
        : items_(items), target_(target_bytes), best_(best) {
        find_moments();
        find_neighbours();
    }

    // Items of equal height are tried in order of `rank`. True when the tree was exhausted.
    bool run(const std::vector<int64_t>& priority, int64_t node_budget) {
        const size_t n = items_.size();
        std::vector<int32_t> by_priority(n);
        std::iota(by_priority.begin(), by_priority.end(), 0);
        std::stable_sort(by_priority.begin(), by_priority.end(), [&](int32_t a, int32_t b) {
            return priority[static_cast<size_t>(a)] > priority[static_cast<size_t>(b)];
        });
        rank_.resize(n);
        for (size_t i = 0; i < n; ++i)
            rank_[static_cast<size_t>(by_priority[i])] = static_cast<int32_t>(i);
        offset_.assign(n, -1);
        bottom_.assign(n, 0);
        nodes_left_ =
            std::min(node_budget, kWorkBudget / static_cast<int64_t>(n + live_.size()) + 1);
        return !descend(0, 0, -1);
    }

  private:
    struct Moment {
        int64_t floor = 0;     // top of what is placed
        int64_t unplaced = 0;  // bytes that live here and are not placed
    };

    // Moments at which a set of live items is maximal: two items meet iff they share one.
    void find_moments() {
        std::vector<int32_t> starts;
        for (const PackItem& item : items_) starts.push_back(item.first);
        std::sort(starts.begin(), starts.end());
        starts.erase(std::unique(starts.begin(), starts.end()), starts.end());
        std::vector<int32_t> kept;
        for (size_t k = 0; k < starts.size(); ++k) {
            const bool last = k + 1 == starts.size();
            // If nothing ends before the next start, that moment has all items of this one.
            const bool something_ends =
                last || std::any_of(items_.begin(), items_.end(), [&](const PackItem& item) {
                    return item.last >= starts[k] && item.last < starts[k + 1];
                });
            if (something_ends) kept.push_back(starts[k]);
        }
        live_.resize(kept.size());
        for (const PackItem& item : items_) {
            const auto begin = std::lower_bound(kept.begin(), kept.end(), item.first);
            const auto end = std::upper_bound(kept.begin(), kept.end(), item.last);
            span_.emplace_back(begin - kept.begin(), end - kept.begin());
            for (auto moment = begin; moment != end; ++moment)
                live_[static_cast<size_t>(moment - kept.begin())].unplaced += item.size_bytes;
        }
    }

    void find_neighbours() {
        neighbours_.resize(items_.size());
        for (size_t a = 0; a < items_.size(); ++a)
            for (size_t b = 0; b < items_.size(); ++b)
                if (a != b && items_[a].first <= items_[b].last &&
                    items_[b].first <= items_[a].last)
                    neighbours_[a].push_back(static_cast<int32_t>(b));
    }

    bool cut(int64_t lowest) const {
        for (const Moment& moment : live_)
            if (moment.unplaced > 0 &&
                std::max(moment.floor, lowest) + moment.unplaced >= best_.height_bytes)
                return true;
        return false;
    }

    // Unplaced items that may come next, lowest first; none when this branch cannot be completed.
    std::vector<int32_t> candidates(int64_t lowest, int32_t previous) const {
        int64_t limit = best_.height_bytes;
        for (size_t i = 0; i < items_.size(); ++i)
            if (offset_[i] < 0) limit = std::min(limit, bottom_[i] + items_[i].size_bytes);
        std::vector<int32_t> result;
        for (size_t i = 0; i < items_.size(); ++i) {
            if (offset_[i] >= 0 || bottom_[i] < lowest || bottom_[i] >= limit) continue;
            // Items at one offset do not meet: of their orders try only one.
            if (bottom_[i] == lowest && previous >= 0 &&
                rank_[i] < rank_[static_cast<size_t>(previous)])
                continue;
            result.push_back(static_cast<int32_t>(i));
        }
        std::sort(result.begin(), result.end(), [&](int32_t a, int32_t b) {
            const auto x = static_cast<size_t>(a), y = static_cast<size_t>(b);
            return bottom_[x] != bottom_[y] ? bottom_[x] < bottom_[y] : rank_[x] < rank_[y];
        });
        return result;
    }

    // True: stop (target reached or budget spent). `lowest`: offset of the previous item.
    bool descend(size_t depth, int64_t lowest, int32_t previous) {
        if (depth == items_.size()) {
            int64_t height = 0;
            for (size_t i = 0; i < items_.size(); ++i)
                height = std::max(height, offset_[i] + items_[i].size_bytes);
            best_.height_bytes = height;  // lower, or this branch would have been cut
            best_.offset_bytes = offset_;
            return height <= target_;
        }
        if (--nodes_left_ < 0) return true;
        if (cut(lowest)) return false;
        for (const int32_t next : candidates(lowest, previous)) {
            const auto i = static_cast<size_t>(next);
            const int64_t offset = bottom_[i];
            const std::vector<int64_t> undo = place(i);
            const bool stop = descend(depth + 1, offset, next);
            take_back(i, undo);
            if (stop) return true;
        }
        return false;
    }

    // Returns what take_back needs: old floors of its moments, then old bottoms of neighbours.
    std::vector<int64_t> place(size_t i) {
        std::vector<int64_t> undo;
        const int64_t end = bottom_[i] + items_[i].size_bytes;
        offset_[i] = bottom_[i];
        for (auto m = span_[i].first; m < span_[i].second; ++m) {
            Moment& moment = live_[static_cast<size_t>(m)];
            undo.push_back(moment.floor);
            moment.floor = end;
            moment.unplaced -= items_[i].size_bytes;
        }
        for (const int32_t j : neighbours_[i]) {
            int64_t& bottom = bottom_[static_cast<size_t>(j)];
            undo.push_back(bottom);
            if (offset_[static_cast<size_t>(j)] < 0) bottom = std::max(bottom, end);
        }
        return undo;
    }

    void take_back(size_t i, const std::vector<int64_t>& undo) {
        size_t k = 0;
        for (auto m = span_[i].first; m < span_[i].second; ++m) {
            Moment& moment = live_[static_cast<size_t>(m)];
            moment.floor = undo[k++];
            moment.unplaced += items_[i].size_bytes;
        }
        for (const int32_t j : neighbours_[i]) bottom_[static_cast<size_t>(j)] = undo[k++];
        offset_[i] = -1;
    }

    const std::vector<PackItem>& items_;
    const int64_t target_;
    Packing& best_;
    int64_t nodes_left_ = 0;
    std::vector<Moment> live_;
    std::vector<std::pair<int64_t, int64_t>> span_;  // half-open range of moments
    std::vector<std::vector<int32_t>> neighbours_;
    std::vector<int32_t> rank_;
    std::vector<int64_t> offset_;  // -1: not placed
    std::vector<int64_t> bottom_;  // lowest offset on top of what is placed
};

}  // namespace

void search_packing(const std::vector<PackItem>& items, int64_t target_bytes, int64_t node_budget,
                    Packing& best) {
    if (items.size() > kItemsMax || node_budget <= 0) return;
    Search search(items, target_bytes, best);
    std::vector<int64_t> size, area, span;
    for (const PackItem& item : items) {
        const int64_t duration = int64_t{item.last} - item.first + 1;
        size.push_back(item.size_bytes);
        span.push_back(duration);
        // In units of 64 bytes, capped: only an order, but it must not overflow.
        area.push_back(std::min(ceil_div(item.size_bytes, kAlignBytes), int64_t{1} << 31) *
                       duration);
    }
    for (const auto* priority : {&area, &size, &span}) {
        const bool exhausted = search.run(*priority, node_budget / 3);
        if (exhausted || best.height_bytes <= target_bytes) {
            best.optimal = true;
            return;
        }
    }
}

}  // namespace plumb
