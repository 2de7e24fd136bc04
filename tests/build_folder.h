// Where what a test starts was built: beside the test itself, also on another machine than the one
// that built it.
// Path: cold.
#pragma once

#include <filesystem>
#include <string>

namespace plumb::testing {

// `path` of the build folder, absolute; tests lie in its folder tests.
inline std::string in_build_folder(const std::string& path) {
    return std::filesystem::read_symlink("/proc/self/exe").parent_path().parent_path() / path;
}

}  // namespace plumb::testing
