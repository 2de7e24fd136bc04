// Crashes a training's saves on a simulated disk at every operation and looks at what is left. The
// training saves three times and keeps two, so that writing, publishing and removing are all
// crashed. After each crash a training starts as the real one does (simulated_training.h). Half of
// the crashes hit such a start once more, after a power failure or after the mere death of the
// process before it. What must hold: the newest checkpoint is the last one reported or the one in
// progress, bit for bit; none that is there is damaged; and with two reported there are two.
// Path: cold.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "runtime/base/types.h"

namespace plumb {

struct CampaignRequest {
    int64_t states = 0;  // crash states to look at, all different
    uint64_t seed = 1;
    // For disks that lie; see SimulatedDisk.
    std::function<bool(const std::string& path)> loses_sync;
    std::function<void(int64_t states_done)> progress;  // now and then, when set
};

struct CampaignResult {
    int64_t states = 0;
    int64_t operations = 0;       // of the three saves: crashes happen after each
    int64_t with_unfinished = 0;  // states in which a save in progress survived as a checkpoint
    int64_t violations = 0;
    std::vector<std::string> first_violations;  // what was found, and the state that shows it
};

CampaignResult explore_crashes(const CampaignRequest& request);

}  // namespace plumb
