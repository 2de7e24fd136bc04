// The configuration of a training, settled with the checkpoint that it would resume: what the
// checkpoint decides for it, and what it forbids. plumb-train, plumb-plan and the advice of both
// load a training's configuration here, so that what is planned is what runs. Whether the
// checkpoint can be loaded at all is for StateIo to find out.
// Path: cold.
#pragma once

#include <string>
#include <vector>

#include "runtime/config/run_config.h"

namespace plumb {

// load_run(name, *overrides). Where a checkpoint of this model is there to resume,
// - train.dtype = auto becomes the checkpoint's dtype: an override more, and a note that says so;
// - a checkpoint.chunk_bytes that is smaller than its chunks is an Error (bad_input).
RunConfig load_training(const std::string& name, std::vector<std::string>* overrides);

}  // namespace plumb
