#include "trainer/run_history.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>

#include "runtime/base/error.h"

namespace plumb {

namespace {

using Json = nlohmann::ordered_json;

// Of one line: null is a number that was not finite; false when the key holds no number at all.
bool read_number(const Json& line, const char* key, int64_t step, std::vector<CurveValue>* curve) {
    const auto found = line.find(key);
    if (found == line.end()) return true;
    if (!found->is_number() && !found->is_null()) return false;
    const double value =
        found->is_null() ? std::numeric_limits<double>::quiet_NaN() : found->get<double>();
    curve->push_back({step, value});
    return true;
}

bool is_count(const Json& line, const char* key) {
    const auto found = line.find(key);
    return found != line.end() && found->is_number_unsigned() &&
           found->get<uint64_t>() <= uint64_t{1} << 62;
}

// Judged as a whole before anything is taken from it.
bool read_step(const Json& line, int64_t step, int64_t* skipped, RunHistory* history) {
    if (!is_count(line, "tokens") || !is_count(line, "skipped")) return false;
    for (const char* key : {"loss", "grad_norm", "lr", "tokens_per_s", "mfu", "loss_scale"})
        if (line.contains(key) && !line[key].is_number() && !line[key].is_null()) return false;
    read_number(line, "loss", step, &history->loss);
    read_number(line, "grad_norm", step, &history->grad_norm);
    read_number(line, "lr", step, &history->lr);
    read_number(line, "tokens_per_s", step, &history->tokens_per_s);
    read_number(line, "mfu", step, &history->mfu);
    read_number(line, "loss_scale", step, &history->loss_scale);
    const auto now_skipped = line["skipped"].get<int64_t>();
    if (now_skipped > *skipped) history->skipped_steps.push_back(step);
    *skipped = now_skipped;
    history->last_step = std::max(history->last_step, step);
    history->last_tokens = std::max(history->last_tokens, line["tokens"].get<int64_t>());
    return true;
}

bool read_line(const std::string& text, int64_t* skipped, RunHistory* history) {
    const Json line = Json::parse(text, nullptr, false);
    if (!line.is_object() || !is_count(line, "step")) return false;
    const auto step = line["step"].get<int64_t>();
    if (line.contains("loss")) return read_step(line, step, skipped, history);
    if (line.contains("valid_loss"))
        return read_number(line, "valid_loss", step, &history->valid_loss);
    if (line.contains("state_digest")) {
        history->saves.push_back(line);
    } else if (line.contains("plan")) {
        history->starts.push_back(line);
        history->end = nullptr;
    } else if (line.contains("peak_bytes")) {
        history->end = line;
    }
    return true;
}

}  // namespace

std::vector<CurvePoint> thinned(const std::vector<CurveValue>& values, int64_t points_most) {
    const auto count = static_cast<int64_t>(values.size());
    const int64_t group = std::max<int64_t>((count + points_most - 1) / points_most, 1);
    std::vector<CurvePoint> points;
    for (int64_t begin = 0; begin < count; begin += group) {
        const auto end = static_cast<size_t>(std::min(begin + group, count));
        CurvePoint point;
        point.first_step = values[static_cast<size_t>(begin)].step;
        point.last_step = values[end - 1].step;
        for (auto i = static_cast<size_t>(begin); i < end; ++i) {
            const double value = values[i].value;
            if (!std::isfinite(value)) continue;
            point.low = point.count == 0 ? value : std::min(point.low, value);
            point.high = point.count == 0 ? value : std::max(point.high, value);
            ++point.count;
            point.mean += (value - point.mean) / static_cast<double>(point.count);
        }
        points.push_back(point);
    }
    return points;
}

RunHistory read_run_history(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw Error(ExitCode::io, path + ": " + std::strerror(errno));
    RunHistory history;
    int64_t skipped = 0;
    for (std::string text; std::getline(file, text);) {
        ++history.line_count;
        if (!read_line(text, &skipped, &history)) ++history.broken_line_count;
    }
    if (file.bad()) throw Error(ExitCode::io, path + ": cannot be read to its end");
    return history;
}

}  // namespace plumb
