#include "runtime/config/run_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "runtime/base/error.h"

namespace plumb {
namespace {

// A failed assertion of the parser. Malformed headers such as "[[[" reach one in toml++ before
// 2026.
struct ParserAssertion {};
[[noreturn]] void throw_parser_assertion() {
    throw ParserAssertion();
}

}  // namespace
}  // namespace plumb

// toml++ would abort, or under NDEBUG run on with undefined behaviour, where this throws. Only this
// file includes it, so there is one definition of its functions.
#undef NDEBUG
#define TOML_ASSERT(condition) \
    ((condition) ? static_cast<void>(0) : ::plumb::throw_parser_assertion())
// No setting is a nested value; the limit bounds the parser's recursion.
#define TOML_MAX_NESTED_VALUES 16
#include <toml++/toml.h>

namespace plumb {
namespace {

constexpr int64_t kMaxFileBytes = 64 * kKiB;
constexpr int64_t kMaxDotsOfLine = 16;

[[noreturn]] void fail(const std::string& name, int64_t line, size_t at, const std::string& why) {
    throw Error(ExitCode::bad_input, fmt::format("{}:{}:{}: {}", name, line, at + 1, why));
}

// Looks at what lies outside strings and comments. A dot may open a table inside a table, so their
// number is bounded. TOML allows only ASCII there; toml++ 3.3 has undefined behaviour otherwise.
void check_line(std::string_view content, int64_t line, const std::string& name) {
    int64_t dots = 0;
    char quote = 0;
    for (size_t i = 0; i < content.size(); ++i) {
        const char c = content[i];
        if (quote) {
            if (c == '\\' && quote == '"') ++i;
            if (c == quote) quote = 0;
        } else if (c == '"' || c == '\'') {
            quote = c;
        } else if (c == '#') {
            break;
        } else if (static_cast<unsigned char>(c) >= 0x80) {
            fail(name, line, i,
                 "not TOML: only strings and comments may have non-ASCII characters");
        } else if (c == '.' && ++dots > kMaxDotsOfLine) {
            fail(name, line, i,
                 fmt::format("more than {} dots in the keys of a line; a setting has one",
                             kMaxDotsOfLine));
        }
    }
}

void check_bounds(std::string_view text, const std::string& name) {
    if (static_cast<int64_t>(text.size()) > kMaxFileBytes)
        throw Error(ExitCode::bad_input, fmt::format("{}: {} bytes; a run file has at most {}",
                                                     name, text.size(), kMaxFileBytes));
    if (text.rfind("\xef\xbb\xbf", 0) == 0) text.remove_prefix(3);  // a byte order mark
    for (int64_t line = 1; !text.empty(); ++line) {
        const size_t end = std::min(text.find('\n'), text.size());
        const std::string_view content = text.substr(0, end);
        // Without strings over several lines, check_line sees what the parser sees.
        for (const char* marks : {"\"\"\"", "'''"})
            if (const size_t at = content.find(marks); at != std::string_view::npos)
                fail(name, line, at, "no setting is a string of several lines");
        check_line(content, line, name);
        text.remove_prefix(std::min(end + 1, text.size()));
    }
}

SettingValue to_value(const toml::node& node) {
    switch (node.type()) {
        case toml::node_type::integer:
            return node.as_integer()->get();
        case toml::node_type::floating_point:
            return node.as_floating_point()->get();
        case toml::node_type::boolean:
            return node.as_boolean()->get();
        case toml::node_type::string:
            return node.as_string()->get();
        case toml::node_type::array:
            return ForeignValue{"a list"};
        case toml::node_type::table:
            return ForeignValue{"a table"};
        default:
            return ForeignValue{"a date or time"};
    }
}

struct Placed {
    toml::source_position at;
    FoundValue found;
};

void collect(const toml::table& table, const std::string& prefix, const std::string& name,
             std::vector<Placed>& all) {
    for (const auto& [key, node] : table) {
        const std::string path = prefix + std::string(key.str());
        const toml::table* section = prefix.empty() ? node.as_table() : nullptr;
        if (section) {
            // Reported, so that an empty section of an unknown name is an error like any other.
            if (section->empty())
                all.push_back({key.source().begin, {path, {}, ForeignValue{kEmptyTable}}});
            collect(*section, path + ".", name, all);
        } else {
            all.push_back({key.source().begin, {path, {}, to_value(node)}});
        }
    }
    for (Placed& placed : all)
        placed.found.where = fmt::format("{}:{}:{}", name, placed.at.line, placed.at.column);
}

}  // namespace

std::vector<FoundValue> parse_run_file(const std::string& text, const std::string& name) {
    check_bounds(text, name);
    std::vector<Placed> all;
    try {
        collect(toml::parse(text, name), "", name, all);
    } catch (const toml::parse_error& error) {
        const toml::source_position at = error.source().begin;
        throw Error(ExitCode::bad_input, fmt::format("{}:{}:{}: not TOML: {}", name, at.line,
                                                     at.column, error.description()));
    } catch (const ParserAssertion&) {
        throw Error(ExitCode::bad_input, fmt::format("{}: not TOML: malformed key or value", name));
    }
    std::stable_sort(all.begin(), all.end(),
                     [](const Placed& a, const Placed& b) { return a.at < b.at; });
    std::vector<FoundValue> found;
    for (Placed& placed : all) found.push_back(std::move(placed.found));
    return found;
}

}  // namespace plumb
