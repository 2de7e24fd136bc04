// The syntax of run files (TOML): text in, the list of found values out, in the order of the file.
// Knows no setting. Bounded for hostile input: a run file has at most 64 KiB, no multi-line
// strings, at most 16 dots in the keys of a line and 16 nested values, because the parser
// underneath recurses.
// Path: cold.
#pragma once

#include <string>
#include <vector>

#include "runtime/config/setting_value.h"

namespace plumb {

// `name` stands in errors as name:line:column. Tables are opened two levels deep ("train.lr"); what
// is below is a ForeignValue. Throws Error (bad_input).
std::vector<FoundValue> parse_run_file(const std::string& text, const std::string& name);

}  // namespace plumb
