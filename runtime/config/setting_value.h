// A value as it was found in a file or on the command line, before the setting it is meant for is
// known, and where it stood. Parsers (run_file.cpp, hf_config.cpp) make these; the settings table
// consumes them and is the only judge of types and ranges.
// Path: cold.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "runtime/base/types.h"

namespace plumb {

// What a file can hold and no setting takes: "a list", "a table", "a date", "null".
struct ForeignValue {
    const char* type;
};
inline constexpr char kEmptyTable[] = "an empty table";

// Text from the command line: has no type until the setting is known.
struct UntypedValue {
    std::string text;
};

using SettingValue = std::variant<int64_t, double, bool, std::string, UntypedValue, ForeignValue>;

struct FoundValue {
    std::string key;    // "train.lr"
    std::string where;  // "run.toml:12:6" or "--train.lr=x"
    SettingValue value;
};

// Type with article and the value: `the text "four"`, `the integer 4`.
std::string describe(const SettingValue& value);

// Gives untyped text the type it looks like: integer, number, boolean, else text. Throws Error when
// it is an integer that does not fit 63 bits.
SettingValue typed(const SettingValue& value, const std::string& where);

// "8GiB", "1.5GiB", "512MiB", "64KiB", "100B", "100" to bytes, rounded down. Throws Error.
int64_t parse_size(const std::string& text, const std::string& where);

// TOML's spelling of a string: quoted, with escapes.
std::string quote(std::string_view text);

// No control characters and well-formed UTF-8, so that it can stand in TOML, JSON and a terminal.
bool printable(std::string_view text);

// The candidate with the least edit distance (Levenshtein 1966); a candidate "a.b" also matches by
// its part "b" at a cost of one. Empty when there are no candidates.
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);

// A whole regular file of at most 1 MiB. Throws Error (io).
std::string read_text_file(const std::string& path);

}  // namespace plumb
