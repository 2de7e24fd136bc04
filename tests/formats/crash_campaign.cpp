#include "tests/formats/crash_campaign.h"

#include <algorithm>
#include <memory>
#include <unordered_set>

#include "formats/checkpoint_folder.h"
#include "tests/formats/checkpoint_fixture.h"
#include "tests/formats/simulated_disk.h"

namespace plumb {

namespace {

constexpr char kFolder[] = "/disk/run";
constexpr int kKeep = 2;
constexpr int64_t kFirstSaves = 3;
constexpr size_t kViolationsShown = 10;

// What a training has promised, and what may be there beyond that.
struct Promise {
    int64_t reported = 0;  // the last step reported as saved; 0: none
    int64_t begun = 0;     // the last step whose save was begun
    int64_t whole = 0;     // checkpoints that must be there
};

void hope(bool holds, const std::string& what) {
    if (!holds) throw std::runtime_error(what);
}

void hope(const Status& status) {
    hope(status.ok(), status.message);
}

// Coded and raw chunks, several of one tensor, and little of each: states are many.
State crash_state(int64_t step) {
    State state;
    state.run.byte[0] = 7;
    state.add("param", "wte", Dtype::f32, make_shape(23, 29));
    state.add("moment1", "wte", Dtype::f32, make_shape(9, 29));
    state.add("state", "counts", Dtype::i64, make_shape(3, 5));
    state.add("state", "flags", Dtype::u8, make_shape(700));
    state.fill(static_cast<uint64_t>(step));
    return state;
}

// The state of a step and its saver; made once, since every crash saves and loads the same few.
class Steps {
  public:
    Status save(int64_t step, const FileLayer& files) {
        return at(step).saver.save(kFolder, step, files);
    }
    void expect_whole(CheckpointReader& reader, int64_t step) {
        hope(reader.record().step == step, reader.path() + " is of another step");
        hope(reader.header().state_digest == at(step).digest,
             reader.path() + " has another state's digest");
        reader.verify(staging_.spans());  // that its bytes have that digest
    }
    const Uuid& run() { return at(1).state.run; }

  private:
    struct Step {
        explicit Step(int64_t step)
            : state(crash_state(step)), saver(state), digest(state.digest()) {}
        State state;
        Saver saver;
        Hash128 digest;
    };
    Step& at(int64_t step) {
        while (static_cast<int64_t>(steps_.size()) <= step)
            steps_.push_back(std::make_unique<Step>(static_cast<int64_t>(steps_.size())));
        return *steps_[static_cast<size_t>(step)];
    }

    std::vector<std::unique_ptr<Step>> steps_;
    OwnedStaging staging_{codec_staging_bytes(State().chunk_bytes)};
};

// Loads the newest checkpoint as a training does, looks at all others too, and returns its step.
int64_t load(const SimulatedDisk& disk, Steps& steps, const Promise& promise) {
    int64_t loaded = 0;
    load_newest(
        kFolder,
        [&](CheckpointReader& reader) {
            loaded = reader.record().step;
            steps.expect_whole(reader, loaded);
        },
        [](const std::string&, const CheckpointDamage& why) { hope(false, why.what()); },
        disk.layer());
    hope(loaded >= promise.reported && loaded <= promise.begun,
         "step " + std::to_string(loaded) + " was loaded; " + std::to_string(promise.reported) +
             " was reported and " + std::to_string(promise.begun) + " begun");
    int64_t whole = 0;
    for (const StepEntry& entry : find_steps(kFolder, disk.layer())) {
        hope(entry.status);
        ++whole;
        if (entry.step == loaded) continue;
        CheckpointReader reader(std::string(kFolder) + "/" + entry.name, disk.layer());
        steps.expect_whole(reader, entry.step);
    }
    hope(whole >= promise.whole, std::to_string(whole) + " checkpoints are left of " +
                                     std::to_string(promise.whole) + " that must be");
    return loaded;
}

// Only checkpoints and the hint are left, no more than are kept.
void expect_clean(const SimulatedDisk& disk) {
    int64_t manifests = 0;
    int64_t data_files = 0;
    for (const std::string& path : disk.now().paths()) {
        const std::string name = path.substr(path.rfind('/') + 1);
        manifests += name == kManifestName ? 1 : 0;
        data_files += name == data_file_name(0).text ? 1 : 0;
        // MANIFEST.tmp: a rename of which only the new name had reached the disk.
        hope(name == kManifestName || name == data_file_name(0).text || name == kLatestName ||
                 name == kManifestTemporaryName,
             path + " was left behind");
    }
    hope(manifests == data_files && manifests <= kKeep,
         std::to_string(manifests) + " MANIFESTs and " + std::to_string(data_files) +
             " data files are left");
    hope(disk.open_files() == 0, "a descriptor was left open");
}

// A start after a crash; returns what it promises in the end, when its last save is reported.
// *saved_at: the operations after which that is so.
Promise start(SimulatedDisk& disk, Steps& steps, const Promise& before, size_t* saved_at) {
    hope(make_directories(disk.layer(), kFolder));
    const int64_t loaded = load(disk, steps, before);
    int removed = 0;
    hope(remove_uncommitted(disk.layer(), kFolder, steps.run(), &removed));
    hope(steps.save(loaded + 1, disk.layer()));
    *saved_at = disk.operations();
    hope(keep_newest(disk.layer(), kFolder, steps.run(), kKeep, 0, &removed));
    const Promise after = {loaded + 1, loaded + 1, std::min<int64_t>(loaded + 1, kKeep)};
    load(disk, steps, after);
    expect_clean(disk);
    return after;
}

class Campaign {
  public:
    explicit Campaign(const CampaignRequest& request) : request_(request) {
        first_.loses_sync = request.loses_sync;
        hope(make_directories(first_.layer(), kFolder));
        for (int64_t step = 1; step <= kFirstSaves; ++step) {
            hope(steps_.save(step, first_.layer()));
            saved_at_.push_back(first_.operations());
            int removed = 0;
            hope(keep_newest(first_.layer(), kFolder, steps_.run(), kKeep, 0, &removed));
            hope(removed == (step > kKeep ? 1 : 0), "retention removed another number");
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
        p.whole = std::min<int64_t>(p.reported, kKeep);
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
        const Promise after = start(disk, steps_, before, &saved_at);
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
        const Promise after = start(disk, steps_, before, &saved_at);

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
            expected = {durable, after.begun, std::min<int64_t>(durable, kKeep)};
        else if (second_end < disk.operations())
            expected.whole = std::min<int64_t>(durable + 1, kKeep);
        start(again, steps_, expected, &saved_at);
    }

    const CampaignRequest& request_;
    Steps steps_;
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
