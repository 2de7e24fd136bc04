#include "runtime/plan/prove.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

namespace plumb {

namespace {

const std::string& name_of(const Program& program, TensorId id) {
    return program.tensors.at(static_cast<size_t>(id)).name;
}

struct Event {
    int64_t time;
    bool starts;  // at one time, ends come first: `time` of an end is one past the last moment
    size_t block;
};

struct ByAddress {
    const std::vector<Block>* blocks;
    bool operator()(size_t a, size_t b) const {
        const Block& x = (*blocks)[a];
        const Block& y = (*blocks)[b];
        return x.begin != y.begin ? x.begin < y.begin : a < b;
    }
};

// One address space: an arena, a slot or an io row.
struct Space {
    Base base;
    Arena arena;
    SlotClass slot_class;
    auto operator<=>(const Space&) const = default;
};

constexpr int64_t kForever = INT64_MAX / 2;

// First and last op of each root, anew.
std::vector<Block> spans_of_ops(const Program& program) {
    std::vector<Block> spans(program.tensors.size(), Block{0, 0, kForever, -1, kNoTensor});
    for (size_t i = 0; i < program.ops.size(); ++i) {
        const Op& op = program.ops[i];
        for (int k = -1; k < op.operand_count; ++k) {
            TensorId id = k < 0 ? op.scratch : op.operand[k];
            if (id == kNoTensor) continue;
            const Tensor& tensor = program.tensors[static_cast<size_t>(id)];
            if (tensor.alias_of != kNoTensor) id = tensor.alias_of;
            Block& span = spans[static_cast<size_t>(id)];
            span.first = std::min(span.first, static_cast<int64_t>(i));
            span.last = std::max(span.last, static_cast<int64_t>(i));
        }
    }
    return spans;
}

std::string flaw_of_place(const Program& program, const Plan& plan, const Block& block,
                          const Placement& place) {
    const auto arena = static_cast<size_t>(place.arena);
    if (place.arena >= Arena::count)
        return fmt::format("{} has no arena", name_of(program, block.tensor));
    int64_t size = plan.arena_bytes[arena];
    if (place.base == Base::slot)
        size = plan.pool[static_cast<size_t>(place.slot_class)].slot_bytes;
    if (place.base == Base::io_row) size = plan.io_row_bytes;
    if (block.begin % kAlignBytes != 0)
        return fmt::format("{} starts at {}, not a multiple of {}", name_of(program, block.tensor),
                           block.begin, kAlignBytes);
    if (block.begin < 0 || block.end > size)
        return fmt::format("{} takes bytes {} to {} of {}", name_of(program, block.tensor),
                           block.begin, block.end, size);
    return "";
}

std::string flaw_of_alias(const Program& program, const Plan& plan, TensorId id) {
    const Tensor& tensor = program.tensors[static_cast<size_t>(id)];
    const Tensor& root = program.tensors.at(static_cast<size_t>(tensor.alias_of));
    const Placement& place = plan.placement[static_cast<size_t>(id)];
    const Placement& whole = plan.placement[static_cast<size_t>(tensor.alias_of)];
    if (place.base != whole.base || place.arena != whole.arena ||
        place.slot_class != whole.slot_class ||
        place.offset_bytes != whole.offset_bytes + tensor.alias_offset_bytes ||
        place.offset_bytes + tensor.size_bytes > whole.offset_bytes + root.size_bytes)
        return fmt::format("{} does not lie in {}", tensor.name, root.name);
    return "";
}

// Pools and io rows, which hold whole layouts, lie inside their arenas and apart.
std::string flaw_of_pools(const Program& program, const Plan& plan) {
    std::vector<Block> areas;
    for (int c = 1; c < kSlotClassCount; ++c) {
        const SlotPool& pool = plan.pool[c];
        const int64_t end = pool.offset_bytes + pool.slot_bytes * pool.slot_count;
        if (pool.slot_bytes % kAlignBytes != 0 || pool.offset_bytes % kAlignBytes != 0 ||
            end > plan.arena_bytes[static_cast<int>(Arena::stash)])
            return fmt::format("slot pool {} ends at {} of the stash arena's {}", c, end,
                               plan.arena_bytes[static_cast<int>(Arena::stash)]);
        for (const Block& other : areas)
            if (pool.offset_bytes < other.end && other.begin < end)
                return fmt::format("slot pool {} overlaps another", c);
        areas.push_back({pool.offset_bytes, end, 0, 0, kNoTensor});
    }
    const int64_t rows_end =
        plan.io_row_offset_bytes + plan.io_row_bytes * program.micro_batch_count;
    if (plan.io_row_bytes > 0 && rows_end > plan.arena_bytes[static_cast<int>(Arena::io)])
        return fmt::format("io rows end at {} of the io arena's {}", rows_end,
                           plan.arena_bytes[static_cast<int>(Arena::io)]);
    for (size_t t = 0; t < program.tensors.size(); ++t) {
        const Placement& place = plan.placement[t];
        if (plan.io_row_bytes > 0 && program.tensors[t].alias_of == kNoTensor &&
            place.base == Base::arena && place.arena == Arena::io &&
            place.offset_bytes + program.tensors[t].size_bytes > plan.io_row_offset_bytes)
            return fmt::format("{} overlaps the io rows", program.tensors[t].name);
    }
    return "";
}

}  // namespace

std::string find_overlap(const Program& program, std::vector<Block> blocks) {
    std::vector<Event> events;
    for (size_t i = 0; i < blocks.size(); ++i) {
        events.push_back({blocks[i].first, true, i});
        events.push_back({blocks[i].last + 1, false, i});
    }
    std::sort(events.begin(), events.end(), [](const Event& a, const Event& b) {
        return a.time != b.time ? a.time < b.time : a.starts < b.starts;
    });
    std::set<size_t, ByAddress> live(ByAddress{&blocks});
    for (const Event& event : events) {
        if (!event.starts) {
            live.erase(event.block);
            continue;
        }
        // What lives is disjoint, so only the neighbours by address can meet the new block.
        const auto here = live.insert(event.block).first;
        const Block& block = blocks[event.block];
        const auto next = std::next(here);
        const Block* other = nullptr;
        if (next != live.end() && blocks[*next].begin < block.end) other = &blocks[*next];
        if (here != live.begin() && blocks[*std::prev(here)].end > block.begin)
            other = &blocks[*std::prev(here)];
        if (other != nullptr)
            return fmt::format("{} [{}, {}) and {} [{}, {}) overlap at op {}",
                               name_of(program, other->tensor), other->begin, other->end,
                               name_of(program, block.tensor), block.begin, block.end, event.time);
    }
    return "";
}

std::string find_flaw(const Program& program, const Plan& plan) {
    if (plan.placement.size() != program.tensors.size()) return "not every tensor has a place";
    const std::vector<Block> spans = spans_of_ops(program);
    std::vector<std::pair<Space, Block>> placed;
    for (size_t t = 0; t < spans.size(); ++t) {
        const auto id = static_cast<TensorId>(t);
        const Tensor& tensor = program.tensors[t];
        if (tensor.alias_of != kNoTensor) {
            const Placement& whole = plan.placement[static_cast<size_t>(tensor.alias_of)];
            if (whole.arena == Arena::count) continue;
            if (std::string flaw = flaw_of_alias(program, plan, id); !flaw.empty()) return flaw;
            continue;
        }
        const Placement& place = plan.placement[t];
        const bool passing = tensor.role == Role::activation || tensor.role == Role::scratch ||
                             tensor.role == Role::staging || tensor.role == Role::saved;
        if (passing && spans[t].last < 0) continue;  // nobody will ask where it lies
        Block block = spans[t];
        if (!passing) block.first = 0, block.last = kForever;
        block.tensor = id;
        block.begin = place.offset_bytes;
        // At least a byte, so that no two tensors have one address.
        block.end = block.begin + std::max(tensor.size_bytes, int64_t{1}) + plan.red_zone_bytes;
        if (std::string flaw = flaw_of_place(program, plan, block, place); !flaw.empty())
            return flaw;
        // Caches that overlay the stash never meet slots in time; among themselves they must not
        // meet: base = arena keeps them a space of their own.
        placed.emplace_back(Space{place.base, place.arena, place.slot_class}, block);
    }
    std::stable_sort(placed.begin(), placed.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    for (size_t i = 0; i < placed.size();) {
        std::vector<Block> blocks;
        size_t k = i;
        for (; k < placed.size() && placed[k].first == placed[i].first; ++k)
            blocks.push_back(placed[k].second);
        if (std::string flaw = find_overlap(program, std::move(blocks)); !flaw.empty()) return flaw;
        i = k;
    }
    if (std::string flaw = flaw_of_pools(program, plan); !flaw.empty()) return flaw;
    return find_schedule_flaw(program, plan);
}

}  // namespace plumb
