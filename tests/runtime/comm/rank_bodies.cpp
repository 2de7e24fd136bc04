#include "tests/runtime/comm/rank_bodies.h"

#include <cstring>
#include <numeric>
#include <stdexcept>

namespace plumb {

namespace {

void expect(bool good, const std::string& what) {
    if (!good) throw std::runtime_error("expected: " + what);
}

// Longer than a mailbox, and none.
void gather_texts(World& world) {
    for (const int64_t size : {int64_t{3}, int64_t{200'001}, int64_t{0}}) {
        const auto said_by = [&](int32_t rank) {
            return std::string(static_cast<size_t>(size * rank), static_cast<char>('a' + rank));
        };
        const std::vector<std::string> all = world.all_gather(said_by(world.rank()));
        expect(static_cast<int32_t>(all.size()) == world.size(), "a text of each rank");
        for (int32_t r = 0; r < world.size(); ++r)
            expect(all[static_cast<size_t>(r)] == said_by(r), "what the rank said");
    }
}

// What is offered changes between every two exchanges: who reads too early or too late sees that.
void show_parts(World& world) {
    constexpr int32_t kRounds = 300;
    constexpr int64_t kElements = 1000;  // of a part
    const int32_t ranks = world.size();
    const Window window = world.make_window(2 * ranks * kElements * 4);
    auto* mine = reinterpret_cast<int32_t*>(window.data);
    char* room = window.data + ranks * kElements * 4;
    const auto group = world.make_group(GroupAxis::data, all_ranks(world));
    expect(group->rank() == world.rank() && group->size() == ranks, "the group of all");
    std::vector<const char*> parts(static_cast<size_t>(ranks));
    const auto value = [&](int32_t round, int32_t rank, int64_t i) {
        return round * 7919 + rank * 104'729 + static_cast<int32_t>(i);
    };
    for (int32_t round = 0; round < kRounds; ++round) {
        for (int64_t i = 0; i < ranks * kElements; ++i) mine[i] = value(round, world.rank(), i);
        group->open({round, "test"}, {window.data, kElements * 4, kElements * 4, room},
                    parts.data());
        for (int32_t r = 0; r < ranks; ++r)
            for (int64_t i = 0; i < kElements; ++i) {
                int32_t seen;
                std::memcpy(&seen, parts[static_cast<size_t>(r)] + 4 * i, 4);
                expect(seen == value(round, r, world.rank() * kElements + i),
                       "part of rank " + std::to_string(r) + " in round " + std::to_string(round));
            }
        group->close({round, "test"});
    }
}

// Groups of a grid of 2 x 3: none of them hears another.
void cross_groups(World& world) {
    const Window window = world.make_window(4096);
    std::vector<int32_t> data, pipeline;
    for (int32_t r = 0; r < 6; ++r) {
        if (r / 2 == world.rank() / 2) data.push_back(r);
        if (r % 2 == world.rank() % 2) pipeline.push_back(r);
    }
    const auto group_d = world.make_group(GroupAxis::data, data);
    const auto group_p = world.make_group(GroupAxis::pipeline, pipeline);
    const char* parts[3];
    for (int32_t round = 0; round < 50; ++round)
        for (const auto& [group, ranks] :
             {std::pair(group_d.get(), data), std::pair(group_p.get(), pipeline)}) {
            expect(group->size() == static_cast<int32_t>(ranks.size()), "the line's ranks");
            window.data[0] = static_cast<char>(world.rank() + round);
            group->open({round, "test"}, {window.data, 0, 1, window.data + 64}, parts);
            for (size_t i = 0; i < ranks.size(); ++i)
                expect(parts[i][0] == static_cast<char>(ranks[i] + round), "the line's bytes");
            group->close({round, "test"});
        }
}

// A chain in which every rank adds one to what comes by, with several on their way.
void pass_along(World& world) {
    constexpr int32_t kMessages = 200, kSlots = 3;
    constexpr int64_t kBytes = 5000;
    const Window window = world.make_window(kSlots * kBytes);
    const auto group = world.make_group(GroupAxis::pipeline, all_ranks(world));
    const bool sends = world.rank() + 1 < world.size();
    std::vector<char> got(kBytes);
    for (int32_t m = 0; m < kMessages; ++m) {
        const CommPlace place{m, "test"};
        char* slot = window.data + m % kSlots * kBytes;
        if (sends) group->finish_sends(place, world.rank() + 1, kSlots - 1);
        if (world.rank() == 0)
            std::memset(slot, m % 100, kBytes);
        else
            group->receive(place, world.rank() - 1, got.data(), kBytes);
        for (size_t i = 0; world.rank() > 0 && i < got.size(); ++i) {
            expect(got[i] == m % 100 + world.rank() - 1, "message " + std::to_string(m));
            slot[i] = static_cast<char>(got[i] + 1);
        }
        if (sends) group->send(place, world.rank() + 1, slot, kBytes);
    }
    if (sends) group->finish_sends({kMessages, "test"}, world.rank() + 1, 0);
}

}  // namespace

std::vector<int32_t> all_ranks(const World& world) {
    std::vector<int32_t> ranks(static_cast<size_t>(world.size()));
    std::iota(ranks.begin(), ranks.end(), 0);
    return ranks;
}

const std::vector<RankBody>& rank_bodies() {
    static const std::vector<RankBody> bodies = {{"GatherTexts", 5, gather_texts},
                                                 {"ShowParts", 4, show_parts},
                                                 {"CrossGroups", 6, cross_groups},
                                                 {"PassAlong", 3, pass_along}};
    return bodies;
}

void exchange_twice(World& world, const std::function<void()>& between) {
    const int32_t ranks = world.size();
    const Window window = world.make_window((1 + ranks) * 64);
    const auto group = world.make_group(GroupAxis::data, all_ranks(world));
    std::vector<const char*> parts(static_cast<size_t>(ranks));
    const Offer offer{window.data, 0, 64, window.data + 64};
    group->open({16, "first"}, offer, parts.data());
    group->close({16, "first"});
    between();
    group->open({17, "reduce_scatter block.3"}, offer, parts.data());
    group->close({17, "reduce_scatter block.3"});
}

}  // namespace plumb
