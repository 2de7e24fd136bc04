// A folder of checkpoints: one step-* directory per save. Only a directory with a hash-valid
// MANIFEST is a checkpoint. Removal takes MANIFEST first and makes that durable, so a directory
// that is half removed is merely uncommitted. Directories of another run and names of another
// pattern are never touched. Nothing here allocates, so it may run after seal.
// Path: hot.
#pragma once

#include "formats/checkpoint_layout.h"
#include "formats/file_layer.h"

namespace plumb {

enum class StepState : uint8_t { committed, uncommitted, damaged };

struct StepEntry {
    char name[48] = "";
    int64_t step = 0;
    int64_t created_ns = 0;  // committed only
    StepState state = StepState::uncommitted;
    Uuid run;       // of the MANIFEST, or of the data file when uncommitted; zero when unknown
    Status status;  // why damaged
};

// True when a is older than b: by step, then by time of creation, then by name.
bool older(const StepEntry& a, const StepEntry& b) noexcept;

// Calls visit for each step directory, in no order, with the judgement of its MANIFEST's header.
using VisitStep = bool (*)(void* user, const StepEntry& entry);
Status list_steps(const FileLayer& files, const char* directory, VisitStep visit,
                  void* user) noexcept;

// Removes a step directory: MANIFEST, fsync, data files, the directory itself, fsync of parent.
Status remove_step(const FileLayer& files, const char* directory, const char* name) noexcept;

// Renames a step directory to damaged-NAME, durably: nothing loads, counts or removes it from then
// on, and a person can look at it. Fails when that name is taken.
Status set_aside_step(const FileLayer& files, const char* directory, const char* name) noexcept;

// Removes committed checkpoints of `run` but the `keep` newest (at least 2) and those whose step is
// a multiple of keep_every (0: none). The newest are made durable first. *removed counts them.
Status keep_newest(const FileLayer& files, const char* directory, const Uuid& run, int keep,
                   int64_t keep_every, int* removed) noexcept;

// At start-up: removes directories without MANIFEST that `run` began, and those so incomplete that
// their data file does not say whose they are. No save of any run may be in progress here.
Status remove_uncommitted(const FileLayer& files, const char* directory, const Uuid& run,
                          int* removed) noexcept;

}  // namespace plumb
