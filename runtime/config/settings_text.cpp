// The settings table as text: --help, the canonical lines a checkpoint keeps, their hashes and
// their differences. Declared in run_config.h.
#include <fmt/format.h>

#include <map>
#include <sstream>

#include "runtime/base/error.h"
#include "runtime/config/presets.h"
#include "runtime/config/settings.h"

namespace plumb {
namespace {

struct Group {
    HashGroup group;
    const char* name;
};
constexpr Group kGroups[] = {{HashGroup::model, "model"},
                             {HashGroup::training, "training"},
                             {HashGroup::layout, "layout"},
                             {HashGroup::none, "none"}};

const char* group_name(HashGroup wanted) {
    for (const Group& row : kGroups)
        if (row.group == wanted) return row.name;
    return "?";
}

std::string in_thousands(int64_t count) {
    std::string digits = std::to_string(count);
    for (size_t at = digits.size(); at > 3;) digits.insert(at -= 3, ",");
    return digits;
}

std::string range_text(const Setting& setting) {
    const Limits& limits = setting.limits;
    if (limits.has_only) return fmt::format("only {} yet", limits.only);
    if (setting.field.index() >= 2) return "";
    return fmt::format("{} to {}", limits.least, limits.most);
}

std::string setting_help(const Setting& setting, const RunConfig& defaults) {
    const std::string_view key = setting.key;
    const bool in_model = key.rfind("model.", 0) == 0;
    std::vector<std::string> notes;
    const auto note = [&](const std::string& text) {
        if (!text.empty()) notes.push_back(text);
    };
    note(setting.unit);
    note(range_text(setting));
    if (!in_model) note("default " + print_value(setting, defaults));
    if (setting.applies != AppliesTo::all)
        note(setting.applies == AppliesTo::gpt2 ? "gpt2 only" : "llama only");
    if (*setting.known_as)
        note(fmt::format("{}{}", in_model ? "gpt2 name: " : "", setting.known_as));
    note(fmt::format("hash {}", group_name(setting.group)));
    return fmt::format("  --{:<33} {}\n{:>38}[{}]\n", fmt::format("{}=", key), setting.help, "",
                       fmt::join(notes, "; "));
}

std::map<std::string, std::string> parse_lines(const std::string& text) {
    std::map<std::string, std::string> values;
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
        const size_t equals = line.find(" = ");
        if (line.empty() || line[0] == '#' || equals == std::string::npos) continue;
        values[line.substr(0, equals)] = line.substr(equals + 3);
    }
    return values;
}

Hash128 group_hash(const RunConfig& config, HashGroup group) {
    const std::string text = settings_text(config, group);
    return hash128(text.data(), static_cast<int64_t>(text.size()));
}

}  // namespace

std::string settings_help() {
    std::string text =
        "NAME|FILE is a preset, a run file (TOML) or a Hugging Face config.json (gpt2, llama).\n"
        "\nPresets:\n";
    for (const Preset& preset : presets())
        text += fmt::format("  {:<12}{:>16} parameters  {}\n", preset.name,
                            in_thousands(parameter_count(preset.model)), preset.note);
    text +=
        "\nA run file has preset = \"NAME\", or model = \"PATH/config.json\" (relative to the run "
        "file),\nor a [model] table; [model] also overrides single values of either. Every setting "
        "can be\ngiven as --section.key=value, also --preset=NAME and --model=PATH. Paths start at "
        "the\ncurrent directory, except a run file's model. Sizes may be written 8GiB, 1.5GiB, "
        "512MiB.\nHash: which of a checkpoint's hashes the setting is in: model must match, "
        "training\ndifferences are printed, layout and none are free.\nGoing on with other "
        "\"numerics\", so that last digits may differ, is said.\n";
    const RunConfig defaults;
    std::string section;
    for (const Setting& setting : settings()) {
        const std::string_view key = setting.key;
        const std::string next(key.substr(0, key.find('.')));
        if (next != section) text += fmt::format("\n[{}]\n", next);
        section = next;
        text += setting_help(setting, defaults);
    }
    return text;
}

std::string settings_text(const RunConfig& config, HashGroup group) {
    std::string text;
    for (const Setting& setting : settings())
        if (setting.group == group && applies(setting, config.model.model_type))
            text += fmt::format("{} = {}\n", setting.key, print_value(setting, config));
    return text;
}

std::string settings_text(const RunConfig& config) {
    std::string text;
    for (const Group& row : kGroups)
        text += fmt::format("# hash {}\n{}", row.name, settings_text(config, row.group));
    return text;
}

Hash128 model_hash(const RunConfig& config) {
    return group_hash(config, HashGroup::model);
}

Hash128 training_hash(const RunConfig& config) {
    return group_hash(config, HashGroup::training);
}

Hash128 layout_hash(const RunConfig& config) {
    return group_hash(config, HashGroup::layout);
}

RunConfig parse_settings_text(const std::string& text, const std::string& where) {
    return parse_run(text, where, "");
}

std::vector<std::string> differing_settings(const std::string& checkpoint_text,
                                            const std::string& now_text) {
    const auto before = parse_lines(checkpoint_text);
    const auto now = parse_lines(now_text);
    std::map<std::string, std::string> keys = before;
    keys.insert(now.begin(), now.end());
    const auto value = [](const std::map<std::string, std::string>& values,
                          const std::string& key) {
        const auto at = values.find(key);
        return at == values.end() ? std::string("absent") : at->second;
    };
    std::vector<std::string> lines;
    for (const auto& [key, unused] : keys)
        if (value(before, key) != value(now, key))
            lines.push_back(fmt::format("{}: {} in the checkpoint, {} now", key, value(before, key),
                                        value(now, key)));
    return lines;
}

}  // namespace plumb
