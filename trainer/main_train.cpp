// plumb-train: trains the model of a run file, and reports what a run did.
// Path: cold.
#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>

#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/engine/resume_config.h"
#include "runtime/exec/wait_policy.h"
#include "trainer/fit_advice.h"
#include "trainer/run_report.h"
#include "trainer/train_run.h"

namespace plumb {
namespace {

constexpr const char* kDescription =
    "Trains a model. FILE is a run file (.toml), a preset's name or a Hugging Face config.json;\n"
    "every setting below can be overridden as --section.key=value.\n"
    "SIGUSR1, SIGTERM, SIGHUP, Ctrl-C or a file `stop` in checkpoint.dir: finish the step, save,\n"
    "exit 0.";
constexpr const char* kExample =
    "Example:\n  plumb-train run.toml --train.steps=1000 --checkpoint.dir=run\n"
    "  plumb-train report run\n\n";
constexpr const char* kReportDescription =
    "Writes a run's curves, memory, saves and settings as one HTML page, for any browser, offline.";

int run(int argc, char** argv) {
    CLI::App app(kDescription, "plumb-train");
    app.footer([] { return kExample + settings_help(); });
    std::string file, folder, output;
    // Not `required`: a subcommand does without.
    app.add_option("FILE", file, "Run file, preset or config.json");
    CLI::App* report = app.add_subcommand("report", kReportDescription);
    report->footer("");
    report->add_option("DIR", folder, "The run's checkpoint.dir, with its log.jsonl")->required();
    report->add_option("--output", output, "The page to write (default: DIR/report.html)")
        ->type_name("FILE");
    app.allow_extras();  // the overrides, which load_run checks
    try {
        app.parse(argc, argv);
    } catch (const CLI::Success& success) {
        return app.exit(success);
    } catch (const CLI::ParseError& error) {
        throw Error(ExitCode::bad_input, std::string(error.what()) + " (see plumb-train --help)");
    }
    if (*report) {
        if (output.empty()) output = folder + "/report.html";
        print_line(STDOUT_FILENO, "{}", write_run_report(folder, output));
        return static_cast<int>(ExitCode::ok);
    }
    if (file.empty()) throw Error(ExitCode::bad_input, "FILE is required (see plumb-train --help)");
    // Who reads the output may stop reading (`| head`); that must not cost the training.
    std::signal(SIGPIPE, SIG_IGN);
    std::vector<std::string> overrides = app.remaining();
    const RunConfig config = load_training(file, &overrides);
    try {
        return train_run(config, file);
    } catch (const Error& error) {
        if (error.code() != ExitCode::does_not_fit) throw;
        print_error(error.what());
        std::fputs(fit_advice(config, file, overrides).c_str(), stderr);
        return static_cast<int>(error.code());
    }
}

}  // namespace
}  // namespace plumb

int main(int argc, char** argv) {
    plumb::spin_briefly(argv);
    return plumb::run_main([&] { return plumb::run(argc, argv); });
}
