// What a training does to its folder, on a simulated disk: it loads the newest checkpoint, removes
// what is unfinished, saves steps whose states are known, and removes what is old. Looks at all
// that is left and throws a Violation where it is not what was promised.
// Path: cold.
#pragma once

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "formats/checkpoint_folder.h"
#include "tests/formats/checkpoint_fixture.h"
#include "tests/formats/simulated_disk.h"

namespace plumb {

// What a training has promised to whoever reads its log, and what may be there beyond that.
struct Promise {
    int64_t reported = 0;  // the last step reported as saved; 0: none
    int64_t begun = 0;     // the last step whose save was begun
    int64_t whole = 0;     // checkpoints that must be there
};

class Violation : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

class SimulatedTraining {
  public:
    static constexpr char kFolder[] = "/disk/run";
    static constexpr int kKeep = 2;

    Status make_folder(const FileLayer& files) { return make_directories(files, kFolder); }
    Status save(int64_t step, const FileLayer& files) {
        return at(step).saver.save(kFolder, step, files);
    }
    Status prune(const FileLayer& files);
    Status remove_unfinished(const FileLayer& files);

    // The step of the newest checkpoint that can be read, which is that step's state to the bit; 0
    // when there is none. Damage goes to `skipped`.
    int64_t load(const FileLayer& files,
                 const std::function<void(const CheckpointDamage&)>& skipped);

    // Loads, and looks at all other checkpoints too. Returns the step.
    int64_t expect_kept(const SimulatedDisk& disk, const Promise& promise);
    // Nothing but checkpoints and the hint is left, no more than are kept.
    void expect_clean(const SimulatedDisk& disk);
    // The states in memory are what they were.
    void expect_untouched();

    // A start, with all of the above. Returns what it promises in the end. *saved_at: the
    // operations of the disk when its save was reported.
    Promise start(SimulatedDisk& disk, const Promise& before, size_t* saved_at);

  private:
    // Made once, since every crash saves and loads the same few.
    struct Step {
        explicit Step(int64_t step);
        State state;
        Saver saver;
        Hash128 digest;
    };
    Step& at(int64_t step);
    void expect_whole(CheckpointReader& reader, int64_t step);

    std::vector<std::unique_ptr<Step>> steps_;
    OwnedStaging staging_{codec_staging_bytes(State().chunk_bytes)};
};

}  // namespace plumb
