#include "runtime/plan/budget.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "runtime/base/checked.h"
#include "runtime/base/error.h"
#include "runtime/config/settings.h"

namespace plumb {

namespace {

constexpr const char* kRecompute = "layout.recompute";

using Values = std::vector<std::string>;

// value / 2, value / 4 ... down to `least`.
Values halves(int64_t value, int64_t least) {
    Values values;
    while ((value /= 2) >= least) values.push_back(std::to_string(value));
    return values;
}

Values block_spacings(const RunConfig& config) {
    Values values;
    for (int64_t blocks = 1; blocks <= config.model.num_hidden_layers; blocks *= 2)
        values.push_back(fmt::format("block:{}", blocks));
    return values;
}

// Shorter than these, halving on saves next to nothing.
constexpr int64_t kLeastTokens = 64;
constexpr int64_t kLeastLossChunk = 16;
constexpr int64_t kLeastChunkBytes = 64 * kKiB;
// Plans that a pair may take to find.
constexpr int kMostPairs = 6;

// What a change touches (budget.h), the cheapest first.
enum class Kind : uint8_t { same_bits, rounding, precision, training };

// One setting that can make a plan smaller. Values that the run has already save nothing, values
// that it cannot have are refused by the settings: neither is advice.
struct Row {
    const char* setting;
    Values (*values)(const RunConfig&);  // from mild to strong
    Kind kind;
    const char* price;
};

// The cheapest first (see budget.h).
constexpr Row kRows[] = {
    {"checkpoint.chunk_bytes",
     [](const RunConfig& c) { return halves(c.run.checkpoint.chunk_bytes, kLeastChunkBytes); },
     Kind::same_bits, "same bits; larger checkpoints"},
    {"train.sample_tokens", [](const RunConfig&) { return Values{"0"}; }, Kind::same_bits,
     "same bits; no samples"},
    {"generate.prefill_chunk",
     [](const RunConfig& c) { return halves(c.run.generate.prefill_chunk, 1); }, Kind::same_bits,
     "same text; prompts read more slowly"},
    {kRecompute, [](const RunConfig&) { return Values{"selective"}; }, Kind::same_bits,
     "same bits; norms, activations twice"},
    {kRecompute, [](const RunConfig&) { return Values{"attention"}; }, Kind::same_bits,
     "same bits; attention twice"},
    {kRecompute, block_spacings, Kind::same_bits, "same bits; the forward twice"},
    {"run.threads", [](const RunConfig&) { return Values{"1"}; }, Kind::same_bits,
     "same bits; one core"},
    {"train.loss_chunk",
     [](const RunConfig& c) { return halves(c.run.train.loss_chunk, kLeastLossChunk); },
     Kind::rounding, "other rounding; head in more pieces"},
    {"batch.micro_batch", [](const RunConfig& c) { return halves(c.run.batch.micro_batch, 1); },
     Kind::rounding, "other rounding; smaller products"},
    {"layout.reduction", [](const RunConfig&) { return Values{"fast"}; }, Kind::rounding,
     "other rounding; layout changes bits"},
    {"train.dtype", [](const RunConfig&) { return Values{"bf16"}; }, Kind::precision,
     "other precision"},
    {"generate.dtype", [](const RunConfig&) { return Values{"bf16"}; }, Kind::precision,
     "other precision"},
    {"generate.context",
     [](const RunConfig& c) { return halves(c.run.generate.context, kLeastTokens); },
     Kind::training, "shorter texts"},
    {"batch.sequence_length",
     [](const RunConfig& c) { return halves(c.run.batch.sequence_length, kLeastTokens); },
     Kind::training, "another training: shorter contexts"},
};

std::string override_of(const char* setting, const std::string& value) {
    return fmt::format("--{}={}", setting, value);
}

// Nothing when the run cannot have the settings.
std::optional<int64_t> needed_with(const std::vector<std::string>& settings,
                                   const PlanWith& plan_with) {
    try {
        return needed_bytes(plan_with(settings));
    } catch (const Error& error) {
        if (error.code() != ExitCode::bad_input) throw;
        return std::nullopt;
    }
}

// The row's mildest value that fits, or the one that saves most; saved_bytes 0: none helps.
BudgetChange best_of(const Row& row, const RunConfig& config, int64_t now_bytes,
                     int64_t memory_bytes, const PlanWith& plan_with) {
    BudgetChange best;
    for (const std::string& value : row.values(config)) {
        BudgetChange change{override_of(row.setting, value), row.price};
        change.row = static_cast<int>(&row - kRows);
        const std::optional<int64_t> needed = needed_with({change.setting}, plan_with);
        if (!needed) continue;
        change.needed_bytes = *needed;
        change.saved_bytes = now_bytes - change.needed_bytes;
        change.fits = change.needed_bytes <= memory_bytes;
        if (change.saved_bytes > best.saved_bytes) best = change;
        if (change.fits) break;
    }
    return best;
}

}  // namespace

int64_t needed_bytes(const Plan& plan) {
    return plan.space_bytes[static_cast<int>(plan.main)];
}

std::vector<BudgetChange> budget_changes(const RunConfig& config, const Plan& plan,
                                         int64_t memory_bytes, const PlanWith& plan_with) {
    const int64_t now_bytes = needed_bytes(plan);
    const int64_t least_bytes = (now_bytes - memory_bytes + 99) / 100;
    std::vector<BudgetChange> changes;
    for (const Row& row : kRows) {
        BudgetChange best = best_of(row, config, now_bytes, memory_bytes, plan_with);
        if (best.saved_bytes >= least_bytes) changes.push_back(std::move(best));
    }
    const auto rest = std::stable_partition(changes.begin(), changes.end(),
                                            [](const BudgetChange& c) { return c.fits; });
    std::stable_sort(rest, changes.end(), [](const BudgetChange& a, const BudgetChange& b) {
        return a.saved_bytes > b.saved_bytes;
    });
    return changes;
}

std::optional<BudgetPair> budget_pair(const std::vector<BudgetChange>& changes, const Plan& plan,
                                      int64_t memory_bytes, const PlanWith& plan_with) {
    const auto kind = [](const BudgetChange& change) { return kRows[change.row].kind; };
    std::vector<BudgetChange> parts;
    for (const BudgetChange& change : changes)
        if (!change.fits && (!changes[0].fits || kind(change) < kind(changes[0])))
            parts.push_back(change);
    std::sort(parts.begin(), parts.end(),
              [](const BudgetChange& a, const BudgetChange& b) { return a.row < b.row; });
    const int64_t missing = needed_bytes(plan) - memory_bytes;
    int tries = kMostPairs;
    for (size_t last = 1; last < parts.size(); ++last) {
        for (size_t first = 0; first < last; ++first) {
            const BudgetChange &a = parts[first], &b = parts[last];
            const bool one_setting = std::strcmp(kRows[a.row].setting, kRows[b.row].setting) == 0;
            if (one_setting || a.saved_bytes + b.saved_bytes < missing) continue;
            if (tries-- == 0) return std::nullopt;
            const std::optional<int64_t> needed = needed_with({a.setting, b.setting}, plan_with);
            if (needed && *needed <= memory_bytes)
                return BudgetPair{{a.setting, b.setting}, *needed};
        }
    }
    return std::nullopt;
}

std::vector<RecomputeChoice> recompute_choices(const RunConfig& config, const Plan& plan,
                                               const PlanWith& plan_with) {
    std::string chosen = print_value(*find_setting(kRecompute), config);
    std::erase(chosen, '"');
    Values kinds = {"none", "selective", "attention"};
    for (std::string& spacing : block_spacings(config)) kinds.push_back(std::move(spacing));
    if (std::find(kinds.begin(), kinds.end(), chosen) == kinds.end()) kinds.push_back(chosen);
    std::vector<RecomputeChoice> choices;
    const auto add = [&](const std::string& kind, const Plan& planned) {
        choices.push_back({kind, planned.arena_bytes[static_cast<int>(Arena::stash)],
                           planned.total_bytes, kind == chosen});
    };
    for (const std::string& kind : kinds) {
        if (kind == chosen)
            add(kind, plan);
        else
            add(kind, plan_with({override_of(kRecompute, kind)}));
    }
    return choices;
}

}  // namespace plumb
