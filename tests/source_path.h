// Files of the repository for tests that read them: where it was built or, when the tests were
// carried to another machine, below the current folder, which then is the repository's root there.
// Path: cold.
#pragma once

#include <filesystem>
#include <string>

namespace plumb {

// `path` is relative to the repository's root.
inline std::string source_path(const std::string& path) {
    const std::string built = std::string(PLUMB_SOURCE_DIR) + "/" + path;
    return std::filesystem::exists(built) ? built : path;
}

}  // namespace plumb
