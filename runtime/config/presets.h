// The models known by name, compiled into every binary: a table, no files. Shapes are the published
// ones; what differs from the published model is said in `note`.
// Path: cold.
#pragma once

#include <string>
#include <vector>

#include "runtime/config/model_spec.h"

namespace plumb {

struct Preset {
    const char* name;
    const char* note;
    ModelSpec as_read;  // derived fields are 0, so that they follow settings that override others
    ModelSpec model;    // complete
};

const std::vector<Preset>& presets();

// nullptr when there is none of this name.
const Preset* find_preset(const std::string& name);

}  // namespace plumb
