// A plan as people and programs read it. The text fits 88 columns, or 100 where it gives advice:
// arenas with exact bytes, what lies outside, the lower bounds and how far the plan is above them,
// each phase with its peak, what other kinds of recomputation would need, whether all of it fits,
// and if not, what would. The JSON says the same, with the keys of one row per group of ranks with
// equal plans. Neither prints anything that differs between two runs of the same plan.
// Path: cold.
#pragma once

#include <string>

#include "runtime/plan/budget.h"
#include "runtime/plan/plan.h"

namespace plumb {

// What a report says beside the plan.
struct ReportSubject {
    std::string model;     // name or file
    std::string workload;  // e.g. "train in fp32, 8 micro-batches of 4 x 1024 tokens"
    std::string layout;    // e.g. "1 rank"
    DeviceRecord device = {};
    int64_t memory_bytes = 0;  // what the run may use; 0: not stated
    std::vector<RecomputeChoice> recompute = {};
    std::vector<BudgetChange> changes = {};  // when it does not fit
    std::optional<BudgetPair> pair = {};     // of them
};

// True when arenas and outside are within the memory, or no memory was stated.
bool fits(const Plan& plan, const ReportSubject& subject);

std::string report_text(const Program& program, const Plan& plan, const ReportSubject& subject);

// The ranked changes as lines, at most `most` of them, and a word when none of them fits.
std::string changes_text(const std::vector<BudgetChange>& changes, int64_t memory_bytes,
                         size_t most = SIZE_MAX);

// Ends with a newline.
std::string report_json(const Program& program, const Plan& plan, const ReportSubject& subject);

// "474.7 MiB", "1.50 GiB", "640 B": three or four digits.
std::string human_bytes(int64_t bytes);

// "497,759,232".
std::string grouped_digits(int64_t number);

}  // namespace plumb
