// From a preset's name or a file to a checked configuration, and from a configuration to the text
// and hashes that a checkpoint keeps. Everything that can be wrong with settings is found here and
// nowhere later: each error names the key, where it stands, what was found and what would be right
// (exit 2). Three hashes: `model` must equal a checkpoint's; `training` may differ and the
// differences are printed; `layout` is free. Settings that only steer the process (paths of
// checkpoints, how often to save) are in none.
// Path: cold.
#pragma once

#include <string>
#include <vector>

#include "runtime/base/hash.h"
#include "runtime/config/layout_spec.h"
#include "runtime/config/model_spec.h"
#include "runtime/config/run_spec.h"

namespace plumb {

struct RunConfig {
    ModelSpec model;
    LayoutSpec layout;
    RunSpec run;
    std::vector<std::string> notes;  // what of a config.json is not applied; for people only

    bool operator==(const RunConfig& other) const {
        return model == other.model && layout == other.layout && run == other.run;
    }
};

// NAME|FILE: a preset's name, a run file (.toml) or a Hugging Face config.json (.json). Overrides
// are
// "--section.key=value" (the dashes may be missing), applied last and in order. In a run file a
// relative `model = "path"` starts at the run file; all other paths start at the current directory.
// Throws Error: bad_input, or io when the file cannot be read.
RunConfig load_run(const std::string& name_or_file, const std::vector<std::string>& overrides = {});

// The same from the text of a run file; `name` stands in errors, `folder` is where model paths
// start.
RunConfig parse_run(const std::string& text, const std::string& name, const std::string& folder,
                    const std::vector<std::string>& overrides = {});

// Resolves everything automatic and checks what involves several settings. load_run has done it;
// code that fills in a RunConfig by hand calls it. Doing it twice changes nothing.
void complete_run(RunConfig& config, const std::string& where);

// Presets and all settings with unit, default, range and help, for --help.
std::string settings_help();

enum class HashGroup : int32_t { none, model, training, layout };

// Canonical "section.key = value" lines of one group, in the table's order; equal text means equal
// settings.
std::string settings_text(const RunConfig& config, HashGroup group);
// All groups; what a checkpoint's run record keeps, and a valid run file's content in dotted keys.
std::string settings_text(const RunConfig& config);

// XXH3-128 of the group's text.
Hash128 model_hash(const RunConfig& config);
Hash128 training_hash(const RunConfig& config);
Hash128 layout_hash(const RunConfig& config);

// Back from settings_text, e.g. to generate from a checkpoint alone.
RunConfig parse_settings_text(const std::string& text, const std::string& where);

// One line per setting that differs, "train.lr: 0.0006 in the checkpoint, 0.0003 now".
std::vector<std::string> differing_settings(const std::string& checkpoint_text,
                                            const std::string& now_text);

}  // namespace plumb
