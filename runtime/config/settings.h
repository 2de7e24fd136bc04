// The one table of all settings. A row is all there is to know of a setting: key, kind, unit,
// range, a sentence of help, the hash it belongs to, the word Megatron or DeepSpeed uses, and the
// field it fills. TOML, config.json, command line, --help, the canonical text and the hashes are
// loops over this table; adding a setting is one row and one field, whose initial value is the
// default.
// Path: cold.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "runtime/config/run_config.h"
#include "runtime/config/setting_value.h"

namespace plumb {

// A setting written as text but held as something else (an enum, "block:K").
struct CodedField {
    // Throws Error beginning with `where` when the text means nothing or is not supported yet.
    void (*parse)(RunConfig& config, const std::string& text, const std::string& where);
    std::string (*print)(const RunConfig& config);
};

using Field = std::variant<int64_t* (*)(RunConfig&), double* (*)(RunConfig&), bool* (*)(RunConfig&),
                           std::string* (*)(RunConfig&), CodedField>;

// Integers and numbers must lie in [least, most]. `is_size`: text such as "8GiB" is taken too.
// `only`: the one value this version implements; others in the range are "not supported yet".
struct Limits {
    double least = 0;
    double most = 0;
    bool is_size = false;
    bool has_only = false;
    double only = 0;
};

enum class AppliesTo : int32_t { all, gpt2, llama };

struct Setting {
    const char* key;
    Field field;
    HashGroup group;
    Limits limits;
    const char* unit;  // or, for text, the values it may have
    const char* help;
    const char* known_as = "";  // Megatron or DeepSpeed word; for [model], Hugging Face gpt2's name
    AppliesTo applies = AppliesTo::all;
};

const std::vector<Setting>& settings();

// nullptr when there is none. For gpt2, [model] also knows the short names ("model.n_embd").
const Setting* find_setting(std::string_view key);

// find_setting, or an Error that names the nearest key.
const Setting& require_setting(const FoundValue& found);

bool applies(const Setting& setting, ModelType type);

// "an integer", "a number", "true or false", "a text", "a size".
const char* type_name(const Setting& setting);

// Checks type and range and sets the field. Throws Error (bad_input).
void assign(RunConfig& config, const Setting& setting, const FoundValue& found);

// Every number of the config against its range, for configs that no file went through. Throws
// Error.
void check_ranges(const RunConfig& config, const std::string& where);

// The value in the spelling that assign accepts from a run file.
std::string print_value(const Setting& setting, const RunConfig& config);

}  // namespace plumb
