// What other settings would need, each planned for real: the program is recorded and every byte
// placed, exactly as if the setting had been given. `budget_changes` is the advice when a plan does
// not fit: one single change per row of a table, at its mildest value that fits, or else at the one
// that saves most. Changes that fit come first, the cheapest for the user before others, then the
// rest by bytes saved. The order of cost, which is the order of the table, and its four kinds:
//   1. the same bits of losses and weights: less comfort first, then more and more time;
//   2. the same training but for rounding;
//   3. another precision;
//   4. another training, or shorter texts.
// `budget_pair` combines two changes of which neither fits, where both are of a cheaper kind than
// the cheapest that does.
// Path: cold.
#pragma once

#include <array>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "runtime/config/run_config.h"
#include "runtime/plan/plan.h"

namespace plumb {

// The plan of the run with more overrides, "--section.key=value". Throws Error (bad_input) when the
// run cannot have them.
using PlanWith = std::function<const Plan&(const std::vector<std::string>& settings)>;

// Arenas and what lies outside them in the memory that has to suffice: a GPU's, where one is used.
int64_t needed_bytes(const Plan& plan);

struct BudgetChange {
    std::string setting;       // "--layout.recompute=attention"
    const char* price;         // what it costs the user
    int64_t needed_bytes = 0;  // arenas and outside, after the change
    int64_t saved_bytes = 0;   // > 0
    bool fits = false;
    int row = 0;  // of the table: a lower one is cheaper
};

// Ranked as said above, without what saves less than a hundredth of the bytes that are missing.
// `plan` is that of `config` and does not fit `memory_bytes`.
std::vector<BudgetChange> budget_changes(const RunConfig& config, const Plan& plan,
                                         int64_t memory_bytes, const PlanWith& plan_with);

// Two of these changes, together.
struct BudgetPair {
    std::array<std::string, 2> settings;
    int64_t needed_bytes = 0;  // at most the memory
};
// The cheapest pair of `changes` that fits: of two pairs, that whose costlier change is cheaper.
// Pairs that would not fit if each saved what it saves alone are not planned, nor more than a few.
std::optional<BudgetPair> budget_pair(const std::vector<BudgetChange>& changes, const Plan& plan,
                                      int64_t memory_bytes, const PlanWith& plan_with);

// What each kind of recomputation needs, whatever fits; block:K at K = 1, 2, 4 ... blocks.
struct RecomputeChoice {
    std::string recompute;  // "attention"
    int64_t stash_bytes = 0;
    int64_t total_bytes = 0;  // of the arenas
    bool chosen = false;      // by `config`
};
std::vector<RecomputeChoice> recompute_choices(const RunConfig& config, const Plan& plan,
                                               const PlanWith& plan_with);

}  // namespace plumb
