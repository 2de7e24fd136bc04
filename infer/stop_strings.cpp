#include "infer/stop_strings.h"

#include <algorithm>

#include "runtime/base/error.h"

namespace plumb {

StopStrings::StopStrings(std::vector<std::string> texts) : texts_(std::move(texts)) {
    for (const std::string& text : texts_)
        if (text.empty())
            throw Error(ExitCode::bad_input,
                        "--stop: the text is empty; give at least one character");
}

StopStrings::Found StopStrings::look(const int32_t* tokens, int64_t count,
                                     int64_t free_count) const noexcept {
    int64_t held = count;  // from here on something may be a stop string's beginning
    for (int64_t first = free_count; first < count; ++first) {
        for (const std::string& text : texts_) {
            const auto size = static_cast<int64_t>(text.size());
            const int64_t common = std::min(size, count - first);
            const auto same = [](int32_t token, char character) {
                return token == static_cast<uint8_t>(character);
            };
            if (!std::equal(tokens + first, tokens + first + common, text.begin(), same)) continue;
            if (common == size) return {first, true};
            held = std::min(held, first);
        }
    }
    return {held, false};
}

}  // namespace plumb
