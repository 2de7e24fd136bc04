#include "tests/formats/crash_campaign.h"

#include <algorithm>
#include <unordered_set>

#include "runtime/base/hash.h"
#include "runtime/base/random.h"
#include "tests/formats/simulated_training.h"

namespace plumb {

namespace {

constexpr int64_t kFirstSaves = 3;
constexpr size_t kViolationsShown = 10;

class Campaign {
  public:
    explicit Campaign(const CampaignRequest& request) : request_(request) {
        first_.loses_sync = request.loses_sync;
        throw_if_failed(training_.make_folder(first_.layer()));
        for (int64_t step = 1; step <= kFirstSaves; ++step) {
            throw_if_failed(training_.save(step, first_.layer()));
            saved_at_.push_back(first_.operations());
            throw_if_failed(training_.prune(first_.layer()));
        }
        result_.operations = static_cast<int64_t>(first_.operations());
    }

    CampaignResult run() {
        const size_t ends = first_.operations() + 1;
        // A state that was seen is drawn again at times; many times over, there are no more.
        const int64_t draws_most = 20 * request_.states + static_cast<int64_t>(ends);
        for (int64_t draw = 0; draw < draws_most && result_.states < request_.states; ++draw) {
            const auto end = static_cast<size_t>(draw) % ends;
            const uint64_t round = static_cast<uint64_t>(draw) / ends;
            const uint64_t seed = philox(request_.seed, round, end).word[0] |
                                  uint64_t{philox(request_.seed, round, end).word[1]} << 32;
            try {
                if (round % 2 == 0)
                    crash_once(end, seed);
                else
                    crash_twice(end, seed, round % 4 == 1);
            } catch (const std::exception& violation) {  // ours, and any that loading throws
                ++result_.violations;
                if (result_.first_violations.size() < kViolationsShown)
                    result_.first_violations.push_back("after operation " + std::to_string(end) +
                                                       " of " + std::to_string(ends - 1) +
                                                       ", round " + std::to_string(round) + ": " +
                                                       violation.what());
            }
            if (request_.progress && draw % 65536 == 65535) request_.progress(result_.states);
        }
        return result_;
    }

  private:
    Promise promise(size_t end) const {
        Promise p;
        for (const size_t saved : saved_at_) p.reported += saved <= end ? 1 : 0;
        p.begun = std::min(p.reported + 1, kFirstSaves);
        p.whole = std::min<int64_t>(p.reported, SimulatedTraining::kKeep);
        return p;
    }

    // Counts a state unless it was seen.
    bool is_new(uint64_t choices, size_t end, size_t second_end) {
        const uint64_t key[] = {choices, end, second_end};
        if (!seen_.insert(hash64(key, sizeof key)).second) return false;
        ++result_.states;
        return true;
    }

    void crash_once(size_t end, uint64_t seed) {
        uint64_t choices = 0;
        SimulatedDisk disk(first_.power_failure(end, seed, &choices));
        if (!is_new(choices, end, 0)) return;
        disk.loses_sync = request_.loses_sync;
        size_t saved_at = 0;
        const Promise before = promise(end);
        const Promise after = training_.start(disk, before, &saved_at);
        if (after.reported > before.reported + 1) ++result_.with_unfinished;
    }

    void crash_twice(size_t end, uint64_t seed, bool power_fails) {
        uint64_t choices = 0;
        DiskImage image;
        if (power_fails) image = first_.power_failure(end, seed, &choices);
        SimulatedDisk disk(std::move(image));
        if (!power_fails) disk.restart_from(first_, end);
        disk.loses_sync = request_.loses_sync;
        const size_t restarted_at = disk.operations();
        const Promise before = promise(end);
        size_t saved_at = 0;
        const Promise after = training_.start(disk, before, &saved_at);

        const size_t span = disk.operations() - restarted_at + 1;
        const size_t second_end = restarted_at + philox(seed, 1, 1).word[0] % span;
        uint64_t second_choices = 0;
        SimulatedDisk again(disk.power_failure(second_end, ~seed, &second_choices));
        if (!is_new(choices * 31 + second_choices, end, second_end + 1)) return;
        again.loses_sync = request_.loses_sync;
        // What a start loads is durable after a power failure. After the death of a process it is
        // what was reported before; the rest is durable when the start has pruned.
        const int64_t loaded = after.reported - 1;
        const int64_t durable = power_fails ? loaded : before.reported;
        Promise expected = after;
        if (second_end < saved_at)
            expected = {durable, after.begun, std::min<int64_t>(durable, SimulatedTraining::kKeep)};
        else if (second_end < disk.operations())
            expected.whole = std::min<int64_t>(durable + 1, SimulatedTraining::kKeep);
        training_.start(again, expected, &saved_at);
    }

    const CampaignRequest& request_;
    SimulatedTraining training_;
    SimulatedDisk first_;
    std::vector<size_t> saved_at_;
    std::unordered_set<uint64_t> seen_;
    CampaignResult result_;
};

}  // namespace

CampaignResult explore_crashes(const CampaignRequest& request) {
    return Campaign(request).run();
}

}  // namespace plumb
