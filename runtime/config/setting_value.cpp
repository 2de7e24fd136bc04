#include "runtime/config/setting_value.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <optional>

#include "runtime/base/error.h"

namespace plumb {
namespace {

// The whole text as a number, or nothing. from_chars knows no locale and takes no leading '+'.
template <typename T>
std::optional<T> whole_number(std::string_view text, std::errc* error) {
    T value{};
    const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
    *error = code;
    if (code != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return value;
}

int64_t edit_distance(std::string_view a, std::string_view b) {
    std::vector<int64_t> row(b.size() + 1);
    for (size_t j = 0; j <= b.size(); ++j) row[j] = static_cast<int64_t>(j);
    for (size_t i = 1; i <= a.size(); ++i) {
        int64_t diagonal = row[0];
        row[0] = static_cast<int64_t>(i);
        for (size_t j = 1; j <= b.size(); ++j) {
            const int64_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
            diagonal = row[j];
            row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
        }
    }
    return row[b.size()];
}

}  // namespace

std::string describe(const SettingValue& value) {
    if (const auto* v = std::get_if<int64_t>(&value)) return fmt::format("the integer {}", *v);
    if (const auto* v = std::get_if<double>(&value)) return fmt::format("the number {}", *v);
    if (const auto* v = std::get_if<bool>(&value)) return fmt::format("the boolean {}", *v);
    if (const auto* v = std::get_if<std::string>(&value)) return "the text " + quote(*v);
    if (const auto* v = std::get_if<UntypedValue>(&value)) return "the text " + quote(v->text);
    return std::get<ForeignValue>(value).type;
}

SettingValue typed(const SettingValue& value, const std::string& where) {
    const auto* untyped = std::get_if<UntypedValue>(&value);
    if (!untyped) return value;
    const std::string& text = untyped->text;
    if (text == "true") return true;
    if (text == "false") return false;
    std::errc error;
    if (const auto integer = whole_number<int64_t>(text, &error)) return *integer;
    const bool digits_only = text.find_first_not_of("-0123456789") == std::string::npos;
    if (error == std::errc::result_out_of_range && digits_only)
        throw Error(ExitCode::bad_input,
                    fmt::format("{}: the integer {} does not fit 63 bits", where, text));
    if (const auto number = whole_number<double>(text, &error)) return *number;
    return text;
}

int64_t parse_size(const std::string& text, const std::string& where) {
    static constexpr struct {
        const char* name;
        int shift;
    } kUnits[] = {{"", 0}, {"B", 0}, {"KiB", 10}, {"MiB", 20}, {"GiB", 30}, {"TiB", 40}};
    const size_t digits = std::min(text.find_first_not_of("0123456789."), text.size());
    const std::string_view unit = std::string_view(text).substr(digits);
    std::errc error;
    const auto count = whole_number<double>(std::string_view(text).substr(0, digits), &error);
    const auto* row = std::find_if(std::begin(kUnits), std::end(kUnits),
                                   [&](const auto& u) { return unit == u.name; });
    if (!count || row == std::end(kUnits))
        throw Error(ExitCode::bad_input,
                    fmt::format("{}: {} is not a size; write bytes, or a number with B, KiB, MiB, "
                                "GiB or TiB, as in \"8GiB\" or \"1.5GiB\"",
                                where, quote(text)));
    const double size_bytes = std::ldexp(*count, row->shift);
    if (!(size_bytes < std::ldexp(1.0, 63)))
        throw Error(ExitCode::bad_input,
                    fmt::format("{}: the size {} does not fit 63 bits", where, quote(text)));
    // Plain bytes are exact beyond the 53 bits of a double.
    const auto exact = row->shift == 0
                           ? whole_number<int64_t>(std::string_view(text).substr(0, digits), &error)
                           : std::nullopt;
    return exact ? *exact : static_cast<int64_t>(size_bytes);
}

std::string quote(std::string_view text) {
    std::string out = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') {
            out += '\\';
            out += c;
        } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
            out += fmt::format("\\u{:04X}", static_cast<unsigned>(static_cast<unsigned char>(c)));
        } else {
            out += c;
        }
    }
    return out + '"';
}

bool printable(std::string_view text) {
    for (size_t i = 0; i < text.size();) {
        const unsigned lead = static_cast<unsigned char>(text[i]);
        if (lead < 0x20 || lead == 0x7f) return false;
        const size_t length = lead < 0x80             ? 1
                              : (lead & 0xe0) == 0xc0 ? 2
                              : (lead & 0xf0) == 0xe0 ? 3
                              : (lead & 0xf8) == 0xf0 ? 4
                                                      : 0;
        if (length == 0 || i + length > text.size()) return false;
        unsigned code = length == 1 ? lead : lead & (0x7fu >> length);
        for (size_t k = 1; k < length; ++k) {
            const unsigned next = static_cast<unsigned char>(text[i + k]);
            if ((next & 0xc0) != 0x80) return false;
            code = code << 6 | (next & 0x3f);
        }
        static constexpr unsigned kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
        // C1 controls (0x80-0x9f), overlong forms, surrogates and codes beyond Unicode.
        if ((code >= 0x80 && code < 0xa0) || code < kLeast[length] || code > 0x10ffff ||
            (code >= 0xd800 && code < 0xe000))
            return false;
        i += length;
    }
    return true;
}

std::string nearest(std::string_view word, const std::vector<std::string>& candidates) {
    // Longer words cannot be a slip of the pen; cutting bounds the cost for hostile input.
    word = word.substr(0, 64);
    const auto last_part = [](std::string_view key) { return key.substr(key.rfind('.') + 1); };
    std::string best;
    int64_t best_distance = -1;
    for (const std::string& candidate : candidates) {
        const int64_t distance = std::min(edit_distance(word, candidate),
                                          1 + edit_distance(last_part(word), last_part(candidate)));
        if (best_distance < 0 || distance < best_distance) {
            best = candidate;
            best_distance = distance;
        }
    }
    return best;
}

std::string read_text_file(const std::string& path) {
    const auto fail = [&](const std::string& why) {
        throw Error(ExitCode::io, fmt::format("{}: cannot read: {}", path, why));
    };
    struct stat status {};
    if (stat(path.c_str(), &status) != 0) fail(std::strerror(errno));
    if (!S_ISREG(status.st_mode)) fail("not a regular file");
    if (status.st_size > kMiB)
        fail(fmt::format("{} bytes; settings have at most {}", status.st_size, kMiB));
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"),
                                                               std::fclose);
    if (!file) fail(std::strerror(errno));
    std::string text(static_cast<size_t>(status.st_size), '\0');
    if (std::fread(text.data(), 1, text.size(), file.get()) != text.size()) fail("short read");
    return text;
}

}  // namespace plumb
