#include "runtime/plan/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "runtime/base/check.h"
#include "runtime/base/checked.h"
#include "runtime/program/op_table.h"

namespace plumb {

namespace {

constexpr int kColumns = 88;

int64_t parameters_of(const Program& program) {
    int64_t count = 0;
    for (const Param& param : program.params)
        count = checked_add(count, param.elements(), "parameters");
    return count;
}

std::string gap_text(int64_t plan_bytes, int64_t bound_bytes) {
    if (bound_bytes == 0) return "";
    const double gap =
        100.0 * static_cast<double>(plan_bytes - bound_bytes) / static_cast<double>(bound_bytes);
    return plan_bytes == bound_bytes ? "0%" : fmt::format("{:.2f}%", gap);
}

std::string rule() {
    return std::string(kColumns, '-') + "\n";
}

std::string byte_row(const std::string& name, int64_t bytes, const std::string& note) {
    std::string line = fmt::format("  {:<26}{:>10}{:>22}  {}", name, human_bytes(bytes),
                                   grouped_digits(bytes), note);
    line.erase(line.find_last_not_of(' ') + 1);
    return line + "\n";
}

std::string heading(const std::string& name, const std::string& note) {
    return fmt::format("  {:<26}{:>10}{:>22}  {}\n", name, "size", "bytes", note);
}

// " 54% #####": a bar of ten marks is the whole.
std::string share_text(int64_t bytes, int64_t total) {
    const double share = static_cast<double>(bytes) / static_cast<double>(total);
    const std::string percent =
        share < 0.005 ? "<1%" : fmt::format("{:.0f}%", std::min(share, 1.0) * 100.0);
    return fmt::format("{:>4} {:<10}", percent,
                       std::string(static_cast<size_t>(std::lround(share * 10.0)), '#'));
}

std::string count_text(int64_t count, const char* noun) {
    return fmt::format("{} {}{}", grouped_digits(count), noun, count == 1 ? "" : "s");
}

// What an arena holds several of.
std::string contents_text(const Program& program, const Plan& plan, Arena arena) {
    if (arena == Arena::stash) {
        int64_t slots = 0;
        for (const SlotPool& pool : plan.pool)
            if (pool.slot_bytes > 0) slots += pool.slot_count;
        return slots == 0 ? "" : count_text(slots, "slot");
    }
    if (arena == Arena::io && plan.io_row_bytes > 0)
        return count_text(program.micro_batch_count, "row");
    if (arena == Arena::staging && plan.main == MemorySpace::gpu) return "host memory";
    return "";
}

struct PeakNames {
    std::string phase, section, op;
};

PeakNames peak_names(const Program& program, const PhasePlan& phase) {
    PeakNames names;
    names.phase = phase_name(phase.kind);
    if (phase.peak_op < 0) return names;
    names.section = program.sections[static_cast<size_t>(phase.peak_section)].name;
    names.op = op_row(program.ops[static_cast<size_t>(phase.peak_op)].kind).name;
    return names;
}

std::string title(const Program& program, const Plan& plan, const ReportSubject& subject) {
    const DeviceRecord& device = subject.device;
    const std::string threads =
        is_cuda(device.isa) ? "" : ", " + count_text(device.threads, "thread");
    return fmt::format("{}: {} parameters\n{}\n{}, {} ({}){}\nplan {}\n", subject.model,
                       grouped_digits(parameters_of(program)), subject.workload, subject.layout,
                       device.name, isa_name(device.isa), threads, to_hex(plan.digest));
}

std::string arena_table(const Program& program, const Plan& plan) {
    std::string text = heading("arena", "share");
    for (int a = 0; a < kArenaCount; ++a) {
        const int64_t bytes = plan.arena_bytes[a];
        const auto arena = static_cast<Arena>(a);
        if (bytes > 0)
            text += byte_row(
                arena_name(arena), bytes,
                share_text(bytes, plan.total_bytes) + " " + contents_text(program, plan, arena));
    }
    return text + byte_row("total", plan.total_bytes, "");
}

std::string outside_table(const Plan& plan) {
    std::string text = heading("outside the arenas", "source");
    for (const OutsideRow& row : plan.outside) text += byte_row(row.name, row.bytes, row.source);
    if (plan.main == MemorySpace::host)
        return text + byte_row("total with outside", needed_bytes(plan), "");
    const int64_t host_bytes = plan.space_bytes[static_cast<int>(MemorySpace::host)];
    return text + byte_row("on the GPU, with outside", needed_bytes(plan), "") +
           byte_row("on the host, with outside", host_bytes, "");
}

std::string phase_table(const Program& program, const Plan& plan) {
    std::string text = fmt::format("  {:<16}{:>10}{:>12}  {}\n", "phase", "needs", "live peak",
                                   "where the peak is (* the highest)");
    for (size_t p = 0; p < plan.phases.size(); ++p) {
        const PhasePlan& phase = plan.phases[p];
        const PeakNames names = peak_names(program, phase);
        std::string line = fmt::format(
            "{} {:<16}{:>10}{:>12}", static_cast<int>(p) == plan.peak_phase ? "*" : " ",
            names.phase, human_bytes(phase.total_bytes), human_bytes(phase.peak_live_bytes));
        if (!names.op.empty())
            line += fmt::format("  {}: {} (op {})", names.section, names.op, phase.peak_op);
        text += line + "\n";
    }
    return text;
}

std::string recompute_table(const std::vector<RecomputeChoice>& choices) {
    if (choices.empty()) return "";
    const auto chosen = std::find_if(choices.begin(), choices.end(),
                                     [](const RecomputeChoice& c) { return c.chosen; });
    CHECK(chosen != choices.end());
    std::string text = fmt::format("  {:<16}{:>10}{:>12}  {}\n", "recompute", "stash", "total",
                                   "instead of the plan's (*)");
    for (const RecomputeChoice& choice : choices) {
        const int64_t saved = chosen->total_bytes - choice.total_bytes;
        text += fmt::format("{} {:<16}{:>10}{:>12}", choice.chosen ? "*" : " ", choice.recompute,
                            human_bytes(choice.stash_bytes), human_bytes(choice.total_bytes));
        if (!choice.chosen)
            text +=
                fmt::format("  {} {}", human_bytes(std::abs(saved)), saved < 0 ? "more" : "less");
        text += "\n";
    }
    return text + rule();
}

// " weights 2.00, master 2.00, ...": bytes per parameter of what is kept of each.
std::string state_text(const Plan& plan, int64_t parameters) {
    std::string text;
    for (const Arena arena : {Arena::weights, Arena::master, Arena::grads, Arena::moments}) {
        const int64_t bytes = plan.arena_bytes[static_cast<int>(arena)];
        if (bytes > 0)
            text += fmt::format("{} {} {:.2f}", text.empty() ? "" : ",", arena_name(arena),
                                static_cast<double>(bytes) / static_cast<double>(parameters));
    }
    return text;
}

std::string verdict(const Program& program, const Plan& plan, const ReportSubject& subject) {
    const int64_t needed = needed_bytes(plan);
    std::string text;
    if (const int64_t parameters = parameters_of(program); parameters > 0)
        text += fmt::format("  {:.2f} bytes per parameter; kept:{}\n",
                            static_cast<double>(needed) / static_cast<double>(parameters),
                            state_text(plan, parameters));
    const int64_t memory = subject.memory_bytes;
    if (memory == 0)
        text += "  no memory size stated: --memory SIZE says whether it fits\n";
    else if (needed <= memory)
        text += fmt::format("  fits in {}: yes, {} to spare\n", human_bytes(memory),
                            human_bytes(memory - needed));
    else
        text += fmt::format("  does not fit: needs {}, has {}, short by {}\n", human_bytes(needed),
                            human_bytes(memory), human_bytes(needed - memory));
    if (fits(plan, subject)) return text;
    text += changes_text(subject.changes, memory);
    if (subject.pair)
        text += fmt::format("  fits with {} {}: needs {}\n", subject.pair->settings[0],
                            subject.pair->settings[1], human_bytes(subject.pair->needed_bytes));
    return text;
}

}  // namespace

std::string human_bytes(int64_t bytes) {
    if (bytes < 0) return fmt::format("-{}", human_bytes(-bytes));
    if (bytes < kKiB) return fmt::format("{} B", bytes);
    static constexpr const char* kUnits[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = static_cast<double>(bytes) / 1024.0;
    size_t unit = 0;
    // 1023.5 would print as 1024: go up before that.
    while (value >= 1023.5 && unit + 1 < std::size(kUnits)) {
        value /= 1024.0;
        ++unit;
    }
    // Three or four digits; 9.995 and 99.95 would print with one more.
    const int decimals = value < 9.995 ? 2 : value < 999.95 ? 1 : 0;
    return fmt::format("{:.{}f} {}", value, decimals, kUnits[unit]);
}

std::string grouped_digits(int64_t number) {
    std::string digits = fmt::format("{}", number);
    const size_t sign = number < 0 ? 1 : 0;
    for (size_t at = digits.size(); at > sign + 3;) digits.insert(at -= 3, 1, ',');
    return digits;
}

bool fits(const Plan& plan, const ReportSubject& subject) {
    return subject.memory_bytes == 0 || needed_bytes(plan) <= subject.memory_bytes;
}

std::string changes_text(const std::vector<BudgetChange>& changes, int64_t memory_bytes,
                         size_t most) {
    if (changes.empty()) return "  no single change saves a hundredth of that\n";
    std::string text = fmt::format("  {:<34}{:>10}{:>10}  {:<5}{}\n", "change, planned", "saves",
                                   "needs", "fits", "price");
    for (size_t i = 0; i < std::min(most, changes.size()); ++i) {
        const BudgetChange& change = changes[i];
        text += fmt::format("  {:<34}{:>10}{:>10}  {:<5}{}\n", change.setting,
                            human_bytes(change.saved_bytes), human_bytes(change.needed_bytes),
                            change.fits ? "yes" : "no", change.price);
    }
    const BudgetChange& best = changes.front();
    if (!best.fits)
        text += fmt::format("  no single change fits; the best, {}, is short by {}\n", best.setting,
                            human_bytes(best.needed_bytes - memory_bytes));
    return text;
}

std::string report_text(const Program& program, const Plan& plan, const ReportSubject& subject) {
    std::string text = title(program, plan, subject) + rule() + arena_table(program, plan) + rule();
    text += outside_table(plan) + rule();
    text += heading("no plan can need less than", "gap");
    text += byte_row("  with slots and sections", plan.lower_bound_slots_bytes,
                     gap_text(plan.total_bytes, plan.lower_bound_slots_bytes));
    text += byte_row("  with the step unrolled", plan.lower_bound_unrolled_bytes,
                     gap_text(plan.total_bytes, plan.lower_bound_unrolled_bytes));
    text += rule() + phase_table(program, plan) + rule() + recompute_table(subject.recompute);
    return text + verdict(program, plan, subject);
}

std::string report_json(const Program& program, const Plan& plan, const ReportSubject& subject) {
    using Json = nlohmann::ordered_json;
    const auto arenas = [](const int64_t(&bytes)[kArenaCount]) {
        Json object = Json::object();
        for (int a = 0; a < kArenaCount; ++a) object[arena_name(static_cast<Arena>(a))] = bytes[a];
        return object;
    };
    const auto peak = [&](const PhasePlan& phase) {
        const PeakNames names = peak_names(program, phase);
        return Json{{"phase", names.phase},
                    {"section", names.section},
                    {"op", names.op},
                    {"op_index", phase.peak_op},
                    {"live_bytes", phase.peak_live_bytes}};
    };
    Json phases = Json::array();
    for (const PhasePlan& phase : plan.phases)
        phases.push_back({{"phase", phase_name(phase.kind)},
                          {"arenas", arenas(phase.arena_bytes)},
                          {"total_bytes", phase.total_bytes},
                          {"peak", peak(phase)}});
    Json outside = Json::array();
    for (const OutsideRow& row : plan.outside)
        outside.push_back({{"name", row.name},
                           {"bytes", row.bytes},
                           {"source", row.source},
                           {"space", space_name(row.space)}});
    Json spaces = Json::object();
    for (int s = 0; s < kMemorySpaceCount; ++s)
        if (plan.space_bytes[s] > 0)
            spaces[space_name(static_cast<MemorySpace>(s))] = plan.space_bytes[s];
    Json rank = {
        {"ranks", "0"},
        {"arenas", arenas(plan.arena_bytes)},
        {"total_bytes", plan.total_bytes},
        {"lower_bound_bytes", plan.lower_bound_slots_bytes},
        {"lower_bound_unrolled_bytes", plan.lower_bound_unrolled_bytes},
        {"outside_bytes", plan.outside_bytes},
        {"outside", outside},
        {"space_bytes", spaces},
        {"peak", plan.peak_phase < 0 ? Json(nullptr)
                                     : peak(plan.phases[static_cast<size_t>(plan.peak_phase)])},
        {"phases", phases},
    };
    Json recompute = Json::array();
    for (const RecomputeChoice& choice : subject.recompute)
        recompute.push_back({{"recompute", choice.recompute},
                             {"chosen", choice.chosen},
                             {"stash_bytes", choice.stash_bytes},
                             {"total_bytes", choice.total_bytes}});
    Json changes = Json::array();
    for (const BudgetChange& change : subject.changes)
        changes.push_back({{"setting", change.setting},
                           {"saved_bytes", change.saved_bytes},
                           {"needed_bytes", change.needed_bytes},
                           {"fits", change.fits},
                           {"price", change.price}});
    Json pair = nullptr;
    if (subject.pair)
        pair = {{"settings", {subject.pair->settings[0], subject.pair->settings[1]}},
                {"needed_bytes", subject.pair->needed_bytes}};
    const DeviceRecord& device = subject.device;
    Json json = {
        {"schema", 1},
        {"digest", to_hex(plan.digest)},
        {"fits", fits(plan, subject)},
        {"memory", subject.memory_bytes == 0 ? Json(nullptr) : Json(subject.memory_bytes)},
        {"model", subject.model},
        {"parameters", parameters_of(program)},
        {"device",
         {{"name", device.name}, {"isa", isa_name(device.isa)}, {"threads", device.threads}}},
        {"ranks", Json::array({rank})},
        {"recompute", recompute},
        {"changes", changes},
        {"pair", pair},
    };
    return json.dump(2) + "\n";
}

}  // namespace plumb
