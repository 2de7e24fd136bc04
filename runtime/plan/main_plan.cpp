// plumb-plan: what a run would need, byte by byte, before anything is reserved.
// Path: cold.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>

#include "runtime/base/error.h"
#include "runtime/config/run_config.h"
#include "runtime/engine/resume_config.h"
#include "runtime/engine/session.h"
#include "runtime/models/model_program.h"
#include "runtime/plan/plan.h"
#include "runtime/plan/report.h"

namespace plumb {
namespace {

constexpr const char* kDescription =
    "Plans every byte of a run and says whether it fits; reserves nothing.\n"
    "Exits 0 when the plan fits (or no memory size is stated), 3 when it does not, 2 on bad input.";

struct Arguments {
    std::string name;
    std::string program = "train";
    bool json = false;
    bool listing = false;
    std::vector<std::string> overrides;
};

// False: help was printed.
bool parse(int argc, char** argv, Arguments& arguments) {
    CLI::App app(kDescription, "plumb-plan");
    std::string memory;
    app.add_option("NAME|FILE", arguments.name, "A preset, a run file or a config.json")
        ->required();
    app.add_option("--memory", memory, "What the run may use; the same as --run.memory=SIZE")
        ->type_name("SIZE");
    app.add_option("--program", arguments.program, "The program to plan")
        ->check(CLI::IsMember({"train", "generate", "perplexity"}))
        ->capture_default_str();
    auto* json = app.add_flag("--json", arguments.json, "One JSON object in place of the report");
    app.add_flag("--listing", arguments.listing, "Every op with its tensors' addresses, after it")
        ->excludes(json);
    app.allow_extras();
    app.footer([] { return settings_help(); });
    try {
        app.parse(argc, argv);
    } catch (const CLI::Success& success) {
        app.exit(success);
        return false;
    } catch (const CLI::ParseError& error) {
        throw Error(ExitCode::bad_input, std::string(error.what()) + " (see plumb-plan --help)");
    }
    arguments.overrides = app.remaining();
    if (app.count("--memory") > 0) arguments.overrides.push_back("--run.memory=" + memory);
    return true;
}

std::string workload_text(const RunConfig& config, Purpose purpose) {
    const char* dtype = value_dtype_name(program_dtype(config, purpose));
    if (purpose == Purpose::generate)
        return fmt::format("generate in {}, {} context{} of {} tokens", dtype,
                           config.run.generate.batch, config.run.generate.batch == 1 ? "" : "s",
                           config.run.generate.context);
    const BatchSpec& batch = config.run.batch;
    if (purpose == Purpose::score)
        return fmt::format("perplexity in {}, {} window{} of {} tokens at once", dtype,
                           batch.micro_batch, batch.micro_batch == 1 ? "" : "s",
                           batch.sequence_length);
    return fmt::format("train in {}, {} micro-batch{} of {} x {} tokens", dtype,
                       batch.micro_batch_count(), batch.micro_batch_count() == 1 ? "" : "es",
                       batch.micro_batch, batch.sequence_length);
}

void print(const std::string& text) {
    if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0)
        throw Error(ExitCode::io, "cannot write to standard output");
}

int run(int argc, char** argv) {
    Arguments arguments;
    if (!parse(argc, argv, arguments)) return 0;
    const Purpose purpose = arguments.program == "train"      ? Purpose::train
                            : arguments.program == "generate" ? Purpose::generate
                                                              : Purpose::score;
    const RunConfig config =
        resolved(purpose == Purpose::train ? load_training(arguments.name, &arguments.overrides)
                                           : load_run(arguments.name, arguments.overrides));
    for (const std::string& note : config.notes) fmt::print(stderr, "note: {}\n", note);
    const ProgramInputs inputs = program_inputs(config);
    const Program program = build_program(config, inputs, purpose);
    const Plan plan = make_plan(program, inputs.device);

    const int64_t ranks = config.layout.rank_count();
    ReportSubject subject = {arguments.name, workload_text(config, purpose),
                             fmt::format("{} rank{}", ranks, ranks == 1 ? "" : "s"), inputs.device,
                             config.run.run.memory};
    const PlanWith plan_with = plans_with(arguments.name, arguments.overrides, purpose);
    if (purpose == Purpose::train) subject.recompute = recompute_choices(config, plan, plan_with);
    if (!fits(plan, subject)) {
        subject.changes = budget_changes(config, plan, subject.memory_bytes, plan_with);
        subject.pair = budget_pair(subject.changes, plan, subject.memory_bytes, plan_with);
    }
    if (arguments.json) {
        print(report_json(program, plan, subject));
    } else {
        print(report_text(program, plan, subject));
        const auto place = [](const void* context, TensorId id) {
            return placement_text(*static_cast<const Plan*>(context), id);
        };
        if (arguments.listing) print("\n" + list_program(program, place, &plan));
    }
    return static_cast<int>(fits(plan, subject) ? ExitCode::ok : ExitCode::does_not_fit);
}

}  // namespace
}  // namespace plumb

int main(int argc, char** argv) {
    return plumb::run_main([&] { return plumb::run(argc, argv); });
}
