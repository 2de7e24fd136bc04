// Reads a Hugging Face config.json of model_type "gpt2" or "llama". Keys that only describe
// training elsewhere or file formats are ignored (dropout with a note); keys that would change the
// forward computation (another activation, scaled RoPE, a sliding window, experts) are errors that
// name the key, unless they hold their neutral value.
// Path: cold.
#pragma once

#include <string>
#include <vector>

#include "runtime/config/model_spec.h"

namespace plumb {

// `name` stands in errors. Throws Error (bad_input). The result is checked; fields that the file
// leaves to be derived stay 0, so that they follow overrides (see complete_model).
// `notes`, when given, gets a line for dropout, which is not applied.
ModelSpec parse_hf_config(const std::string& text, const std::string& name,
                          std::vector<std::string>* notes = nullptr);

// Throws Error: io when the file cannot be read.
ModelSpec load_hf_config(const std::string& path, std::vector<std::string>* notes = nullptr);

}  // namespace plumb
