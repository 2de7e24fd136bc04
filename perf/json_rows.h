// A benchmark's results as a JSON file: what all rows share, then one list of them. The file is
// whole after every row, so that a run that is ended early leaves what it has measured: it is
// written beside the old one and put in its place. Rows are JSON already, made by json_format.
// Path: cold.
#pragma once

#include <fmt/format.h>

#include <cmath>
#include <string>
#include <utility>

namespace plumb::testing {

// JSON has no nan and no inf: such a number is null.
struct JsonNumber {
    double value;
};

inline JsonNumber json_argument(double value) {
    return {value};
}
template <typename T>
const T& json_argument(const T& value) {
    return value;
}

// As fmt::format, but for such numbers.
template <typename... T>
std::string json_format(
    fmt::format_string<decltype(json_argument(std::declval<const T&>()))...> text,
    const T&... values) {
    return fmt::format(fmt::runtime(fmt::string_view(text)), json_argument(values)...);
}

class JsonRows {
  public:
    // Writes {head, "list": []}; `head` is members of the object. Nothing at all when path is
    // empty. Throws Error (io).
    JsonRows(std::string path, const std::string& head, const char* list);
    void add(const std::string& row);
    bool empty() const { return empty_; }

  private:
    void write() const;

    std::string path_;
    std::string text_;  // but its end
    bool empty_ = true;
};

}  // namespace plumb::testing

template <>
struct fmt::formatter<plumb::testing::JsonNumber> : fmt::formatter<double> {
    auto format(plumb::testing::JsonNumber number, format_context& context) const {
        if (!std::isfinite(number.value)) return fmt::format_to(context.out(), "null");
        return fmt::formatter<double>::format(number.value, context);
    }
};
