#include "perf/json_rows.h"

#include <fmt/format.h>

#include <cstdio>

#include "runtime/base/error.h"

namespace plumb::testing {

JsonRows::JsonRows(std::string path, const std::string& head, const char* list)
    : path_(std::move(path)), text_(fmt::format("{{{},\n\"{}\": [", head, list)) {
    write();
}

void JsonRows::add(const std::string& row) {
    text_ += (empty_ ? "\n" : ",\n") + row;
    empty_ = false;
    write();
}

void JsonRows::write() const {
    if (path_.empty()) return;
    const std::string next = path_ + ".part";
    std::FILE* file = std::fopen(next.c_str(), "w");
    const bool written = file != nullptr && std::fputs((text_ + "\n]}\n").c_str(), file) >= 0;
    if ((file != nullptr && std::fclose(file) != 0) || !written ||
        std::rename(next.c_str(), path_.c_str()) != 0)
        throw Error(ExitCode::io, path_ + ": cannot be written");
}

}  // namespace plumb::testing
