#include "runtime/comm/world.h"

#include <algorithm>
#include <cstring>

namespace plumb {

std::vector<std::string> World::all_gather(const std::string& mine) {
    const auto bytes = static_cast<int64_t>(mine.size());
    const std::vector<char> told = all_gather(&bytes, sizeof bytes);
    std::vector<int64_t> sizes(static_cast<size_t>(size()));
    std::memcpy(sizes.data(), told.data(), told.size());
    const int64_t longest = *std::max_element(sizes.begin(), sizes.end());
    std::string padded = mine;
    padded.resize(static_cast<size_t>(longest));
    const std::vector<char> all = all_gather(padded.data(), longest);
    std::vector<std::string> texts;
    for (int32_t r = 0; r < size(); ++r)
        texts.emplace_back(all.data() + r * longest,
                           static_cast<size_t>(sizes[static_cast<size_t>(r)]));
    return texts;
}

}  // namespace plumb
