#include "tests/formats/simulated_training.h"

#include <algorithm>

namespace plumb {

namespace {

void hope(bool holds, const std::string& what) {
    if (!holds) throw Violation(what);
}

void hope(const Status& status) {
    hope(status.ok(), status.message);
}

// Coded and raw chunks, several of one tensor, and little of each: crash states are many.
State small_training_state(int64_t step) {
    State state;
    state.run.byte[0] = 7;
    state.add("param", "wte", Dtype::f32, make_shape(23, 29));
    state.add("state", "average", Dtype::f32, make_shape(9, 29));
    state.add("state", "counts", Dtype::i64, make_shape(3, 5));
    state.add("state", "flags", Dtype::u8, make_shape(700));
    state.fill(static_cast<uint64_t>(step));
    return state;
}

}  // namespace

SimulatedTraining::Step::Step(int64_t step)
    : state(small_training_state(step)), saver(state), digest(state.digest()) {}

SimulatedTraining::Step& SimulatedTraining::at(int64_t step) {
    while (static_cast<int64_t>(steps_.size()) <= step)
        steps_.push_back(std::make_unique<Step>(static_cast<int64_t>(steps_.size())));
    return *steps_[static_cast<size_t>(step)];
}

Status SimulatedTraining::prune(const FileLayer& files) {
    int removed = 0;
    return keep_newest(files, kFolder, at(1).state.run, kKeep, 0, &removed);
}

Status SimulatedTraining::remove_unfinished(const FileLayer& files) {
    int removed = 0;
    return remove_uncommitted(files, kFolder, at(1).state.run, &removed);
}

void SimulatedTraining::expect_whole(CheckpointReader& reader, int64_t step) {
    hope(reader.record().step == step, reader.path() + " is of another step");
    hope(reader.header().state_digest == at(step).digest,
         reader.path() + " has another state's digest");
    reader.verify(staging_.spans());  // that its bytes have that digest
}

int64_t SimulatedTraining::load(const FileLayer& files,
                                const std::function<void(const CheckpointDamage&)>& skipped) {
    int64_t loaded = 0;
    load_newest(
        kFolder,
        [&](CheckpointReader& reader) {
            expect_whole(reader, reader.record().step);
            loaded = reader.record().step;
        },
        [&](const std::string&, const CheckpointDamage& why) { skipped(why); }, files);
    return loaded;
}

int64_t SimulatedTraining::expect_kept(const SimulatedDisk& disk, const Promise& promise) {
    const int64_t loaded =
        load(disk.layer(), [](const CheckpointDamage& why) { throw Violation(why.what()); });
    hope(loaded >= promise.reported && loaded <= promise.begun,
         "step " + std::to_string(loaded) + " was loaded; " + std::to_string(promise.reported) +
             " was reported and " + std::to_string(promise.begun) + " begun");
    int64_t whole = 0;
    for (const StepEntry& entry : find_steps(kFolder, disk.layer())) {
        hope(entry.status);
        ++whole;
        if (entry.step == loaded) continue;
        CheckpointReader reader(std::string(kFolder) + "/" + entry.name, disk.layer());
        expect_whole(reader, entry.step);
    }
    hope(whole >= promise.whole, std::to_string(whole) + " checkpoints are left of " +
                                     std::to_string(promise.whole) + " that must be");
    return loaded;
}

void SimulatedTraining::expect_clean(const SimulatedDisk& disk) {
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

void SimulatedTraining::expect_untouched() {
    for (const auto& step : steps_)
        hope(step->state.digest() == step->digest, "a state in memory has changed");
}

Promise SimulatedTraining::start(SimulatedDisk& disk, const Promise& before, size_t* saved_at) {
    hope(make_folder(disk.layer()));
    const int64_t loaded = expect_kept(disk, before);
    hope(remove_unfinished(disk.layer()));
    hope(save(loaded + 1, disk.layer()));
    *saved_at = disk.operations();
    hope(prune(disk.layer()));
    const Promise after = {loaded + 1, loaded + 1, std::min<int64_t>(loaded + 1, kKeep)};
    expect_kept(disk, after);
    expect_clean(disk);
    return after;
}

}  // namespace plumb
