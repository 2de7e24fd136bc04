// Times recording and planning of every preset on a fixed device record, best of several runs, and
// says how far each plan is above its lower bound. `advice` is what plumb-plan does at most on top:
// every kind of recomputation, and every single change of settings where nothing fits. The limit is
// the promise of plumb-plan: a preset plans in under a second. `--smoke`: two presets, once, to see
// that it works.
// Path: cold.
#include <algorithm>
#include <chrono>
#include <cstring>

#include "kernels/kernels.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/config/presets.h"
#include "runtime/engine/session.h"
#include "runtime/models/model_program.h"
#include "runtime/plan/plan.h"
#include "runtime/plan/report.h"

namespace plumb {
namespace {

constexpr double kLimitMs = 1000.0;

template <typename Work>
double best_ms(int runs, Work work) {
    double best = 1e300;
    for (int i = 0; i < runs; ++i) {
        const auto start = std::chrono::steady_clock::now();
        work();
        const std::chrono::duration<double, std::milli> time =
            std::chrono::steady_clock::now() - start;
        best = std::min(best, time.count());
    }
    return best;
}

void measure(const char* name, int runs) {
    const std::vector<std::string> overrides = {"--run.device=cpu-avx512", "--run.threads=2"};
    const RunConfig config = resolved(load_run(name, overrides));
    const ProgramInputs inputs = program_inputs(config);
    Program program;
    const double record_ms =
        best_ms(runs, [&] { program = build_program(config, inputs, Purpose::train); });
    Plan plan;
    const double plan_ms = best_ms(runs, [&] { plan = make_plan(program, inputs.device); });
    const double advice_ms = best_ms(runs, [&] {
        const PlanWith plan_with = plans_with(name, overrides, Purpose::train);
        recompute_choices(config, plan, plan_with);
        budget_pair(budget_changes(config, plan, 0, plan_with), plan, 0, plan_with);
    });
    const double total_ms = record_ms + plan_ms + advice_ms;
    const double gap = static_cast<double>(plan.total_bytes - plan.lower_bound_slots_bytes) /
                       static_cast<double>(plan.lower_bound_slots_bytes);
    print_line(1, "{:<12}{:>8}{:>10}{:>12.2f}{:>10.2f}{:>11.2f}{:>9.1f}%{:>12}{:>9.3f}%", name,
               program.ops.size(), program.tensors.size(), record_ms, plan_ms, advice_ms,
               100.0 * total_ms / kLimitMs, human_bytes(plan.total_bytes), 100.0 * gap);
}

int run(int argc, char** argv) {
    const bool smoke = argc == 2 && std::strcmp(argv[1], "--smoke") == 0;
    if (argc > 1 && !smoke) throw Error(ExitCode::bad_input, "usage: plan_bench [--smoke]");
    print_line(1, "{:<12}{:>8}{:>10}{:>12}{:>10}{:>11}{:>10}{:>12}{:>10}", "preset", "ops",
               "tensors", "record ms", "plan ms", "advice ms", "of 1 s", "total", "gap");
    for (const Preset& preset : presets())
        if (!smoke || preset.model.num_hidden_layers <= 12) measure(preset.name, smoke ? 1 : 5);
    return 0;
}

}  // namespace
}  // namespace plumb

int main(int argc, char** argv) {
    return plumb::run_main([&] { return plumb::run(argc, argv); });
}
