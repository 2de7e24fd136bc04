// What log.jsonl says of a run, read back for the report. A run's log may be cut short, mixed with
// lines of a later version, or edited by hand: a line that is no object with a step, or has a
// number where none can be, is counted and passed over, never fatal. Keys that are unknown are
// ignored and those that are missing leave a gap.
//
// Curves are thinned to at most kPointsMost points, so that a page of a million steps stays small:
// each point is the mean of a group of consecutive steps, with their lowest and highest.
// Path: cold.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "runtime/base/types.h"

namespace plumb {

inline constexpr int64_t kPointsMost = 500;

struct CurvePoint {
    int64_t first_step = 0, last_step = 0;
    double mean = 0, low = 0, high = 0;
    int64_t count = 0;  // of finite values; 0: the means say nothing
};

// A number by step as log.jsonl gives it; not a number where it says null.
struct CurveValue {
    int64_t step;
    double value;
};

// Groups of equal size, the last one perhaps smaller.
std::vector<CurvePoint> thinned(const std::vector<CurveValue>& values, int64_t points_most);

struct RunHistory {
    std::vector<CurveValue> loss, grad_norm, lr, tokens_per_s, mfu, loss_scale, valid_loss;
    std::vector<int64_t> skipped_steps;
    int64_t last_step = 0, last_tokens = 0;
    // Lines as they stand in the log, keys in their order.
    std::vector<nlohmann::ordered_json> starts, saves;
    nlohmann::ordered_json end;  // of the last start; null while it runs, or when it was killed
    int64_t line_count = 0, broken_line_count = 0;
};

// Throws Error (io) when the file cannot be read.
RunHistory read_run_history(const std::string& path);

}  // namespace plumb
