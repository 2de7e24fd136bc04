#include "trainer/fit_advice.h"

#include <fmt/format.h>

#include <algorithm>

#include "runtime/engine/session.h"
#include "runtime/exec/machine_limits.h"
#include "runtime/plan/report.h"

namespace plumb {

namespace {

constexpr size_t kMostLines = 3;

// A word as a shell takes it.
std::string quoted(const std::string& word) {
    constexpr const char* kPlain =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./=:,+@%";
    if (!word.empty() && word.find_first_not_of(kPlain) == std::string::npos) return word;
    std::string text = "'";
    for (const char c : word) text += c == '\'' ? std::string("'\\''") : std::string(1, c);
    return text + "'";
}

}  // namespace

std::string fit_advice(const RunConfig& config, const std::string& file,
                       const std::vector<std::string>& overrides) {
    const char* source = nullptr;
    int64_t memory = available_memory_bytes(&source);
    if (config.run.run.memory > 0) memory = std::min(memory, config.run.run.memory);
    const Plan plan = plan_of(config, Purpose::train);
    if (needed_bytes(plan) <= memory) return "";
    const std::vector<BudgetChange> changes =
        budget_changes(config, plan, memory, plans_with(file, overrides, Purpose::train));
    std::string command = "plumb-plan " + quoted(file);
    for (const std::string& word : overrides) {
        const size_t at = word.find("run.memory=");  // what --memory says
        if (at != 0 && at != 2) command += " " + quoted(word);
    }
    return fmt::format("{}  all of them: {} --memory {}\n",
                       changes_text(changes, memory, kMostLines), command, memory);
}

}  // namespace plumb
