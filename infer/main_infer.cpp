// plumb-infer: text from a checkpoint.
// Path: cold.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstring>
#include <filesystem>

#include "infer/generate_loop.h"
#include "infer/prompt.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/engine/closing_report.h"
#include "runtime/engine/state_io.h"
#include "runtime/exec/seal.h"
#include "runtime/exec/wait_policy.h"
#include "runtime/plan/report.h"

namespace plumb {
namespace {

constexpr const char* kDescription =
    "Continues a prompt with the model of a checkpoint. Prompt and new text go to standard\n"
    "output as they come, everything else to standard error.";
constexpr const char* kExample =
    "Any setting of the run can follow as --section.key=value (plumb-train --help lists them);\n"
    "--generate.context=TOKENS makes the key/value cache smaller.\n"
    "Examples:\n"
    "  plumb-infer generate --checkpoint run --prompt \"namespace \" --temperature 0.8 --seed 7\n"
    "  plumb-infer generate --checkpoint run/step-000000000200-1a2b3c4d --prompt-file notes.txt";

struct Options {
    std::string checkpoint;
    std::string prompt, prompt_file, prompt_tokens;
    int64_t max_new_tokens = 256;
    double temperature = 0;
    int64_t seed = 1;
    std::string prompt_option;           // which of the three was given
    std::vector<std::string> overrides;  // of the checkpoint's settings
};

[[noreturn]] void refuse(const std::string& message) {
    throw Error(ExitCode::bad_input, message + " (see plumb-infer generate --help)");
}

void check(const Options& options) {
    std::error_code none;
    if (std::filesystem::is_regular_file(options.checkpoint, none))
        refuse(
            fmt::format("--checkpoint: {} is a file; it must be a run's folder or one step-* in it",
                        options.checkpoint));
    if (options.max_new_tokens < 1)
        refuse(fmt::format("--max-new-tokens: {} is below 1", options.max_new_tokens));
    // Below the range, logits over temperature leave what doubles hold.
    const double temperature = options.temperature;
    if (temperature != 0 && !(temperature >= 1e-3 && temperature <= 1e3))
        refuse(fmt::format("--temperature: {} is neither 0 nor from 0.001 to 1000", temperature));
    if (options.seed < 0) refuse(fmt::format("--seed: {} is below 0", options.seed));
}

// False when only help was asked for (and printed).
bool parse(int argc, char** argv, Options& options) {
    CLI::App app("Runs language models trained by plumb-train", "plumb-infer");
    app.require_subcommand(1);
    CLI::App& generate = *app.add_subcommand("generate", kDescription);
    generate.footer(kExample);
    generate.allow_extras();
    std::string threads, memory;
    generate.add_option("--checkpoint", options.checkpoint, "A run's folder, or one step-* in it")
        ->required()
        ->type_name("DIR");
    CLI::Option* prompts[] = {
        generate.add_option("--prompt", options.prompt, "Text to continue"),
        generate.add_option("--prompt-file", options.prompt_file,
                            "File with the text; - is standard input"),
        generate.add_option("--prompt-tokens", options.prompt_tokens,
                            "Token ids, as in 1,2,3; new tokens are printed as ids too")};
    generate
        .add_option("--max-new-tokens", options.max_new_tokens,
                    "Tokens to make; the context's end may come before")
        ->capture_default_str();
    generate
        .add_option("--temperature", options.temperature,
                    "0: always the likeliest token; 1: as the model says")
        ->capture_default_str();
    generate.add_option("--seed", options.seed, "Of the choice when temperature > 0")
        ->capture_default_str();
    generate.add_option("--threads", threads, "The same as --run.threads=N")->type_name("N");
    generate.add_option("--memory", memory, "The same as --run.memory=SIZE")->type_name("SIZE");
    try {
        app.parse(argc, argv);
    } catch (const CLI::Success& success) {
        app.exit(success);
        return false;
    } catch (const CLI::ParseError& error) {
        refuse(error.what());
    }
    for (const CLI::Option* prompt : prompts) {
        if (prompt->count() == 0) continue;
        if (!options.prompt_option.empty())
            refuse(options.prompt_option + " and " + prompt->get_name() + " exclude each other");
        options.prompt_option = prompt->get_name();
    }
    if (options.prompt_option.empty())
        refuse("one of --prompt, --prompt-file and --prompt-tokens is required");
    // The checkpoint remembers the machine it was trained on; this is another one.
    // And what only trains must not stand in the way of other settings.
    options.overrides = {"--run.device=cpu",       "--run.threads=0",
                         "--run.memory=0",         "--batch.sequence_length=1",
                         "--batch.micro_batch=1",  "--batch.global_batch=1",
                         "--train.warmup_steps=0", "--train.loss_chunk=0"};
    for (const std::string& extra : generate.remaining()) {
        if (extra.find('.') == std::string::npos || extra.find('=') == std::string::npos)
            refuse("unknown argument: " + extra);
        options.overrides.push_back(extra);
    }
    if (!threads.empty()) options.overrides.push_back("--run.threads=" + threads);
    if (!memory.empty()) options.overrides.push_back("--run.memory=" + memory);
    check(options);
    return true;
}

std::vector<int32_t> read_prompt(const Options& options, const RunConfig& config) {
    const std::string& option = options.prompt_option;
    const ModelSpec& model = config.model;
    const int64_t context = config.run.generate.context;
    if (option == "--prompt-tokens")
        return listed_prompt(options.prompt_tokens, model, context, option);
    const std::string text =
        option == "--prompt" ? options.prompt : read_prompt_file(options.prompt_file);
    return text_prompt(text, model, context, option);
}

TokenFormat format_of(const Options& options) {
    if (options.prompt_option == "--prompt-tokens") return TokenFormat::ids;
    return ::isatty(STDOUT_FILENO) != 0 ? TokenFormat::terminal : TokenFormat::raw_bytes;
}

void print_footprint(const Session& session) {
    const ModelSpec& model = session.config().model;
    const Plan& plan = session.plan();
    print_line(STDERR_FILENO,
               "model: {}, {} parameters, layers {}, vocabulary {}, context {} tokens",
               model_type_name(model.model_type), grouped_digits(parameter_count(model)),
               model.num_hidden_layers, model.vocab_size, session.config().run.generate.context);
    print_line(STDERR_FILENO, "memory: {} in arenas + {} outside, fixed from here on",
               human_bytes(plan.total_bytes), human_bytes(plan.outside_bytes));
    print_line(STDERR_FILENO, "plan: {}, threads {}", to_hex(plan.digest),
               session.device().threads);
}

void load(Session& session, const std::string& checkpoint) {
    StateIo state(session);
    const LoadReport report = state.load(checkpoint);
    for (const std::string& note : report.notes) print_line(STDERR_FILENO, "note: {}", note);
    if (!report.found) throw Error(ExitCode::bad_input, "no checkpoint in " + checkpoint);
    print_line(STDERR_FILENO, "checkpoint: {}, step {}", report.path, report.record.step);
}

// The first signal ends the text politely, a second one at once.
void stop_on_signals() {
    struct sigaction action = {};
    action.sa_handler = [](int) { request_stop(); };
    action.sa_flags = static_cast<int>(SA_RESETHAND | SA_RESTART);
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, nullptr);
    sigaction(SIGTERM, &action, nullptr);
}

std::string end_text(const GenerateSummary& summary, const GenerateRequest& request,
                     int64_t context) {
    switch (summary.end) {
        case GenerateEnd::token_count:
            return "";
        case GenerateEnd::context:
            return fmt::format(
                "stopped: the context of {} tokens is full; {} of {} new tokens "
                "are made",
                context, summary.new_tokens, request.max_new_tokens);
        case GenerateEnd::eos:
            return fmt::format("stopped: the model ended the text (token {})", request.eos_token);
        case GenerateEnd::interrupted:
            return "stopped: interrupted";
        case GenerateEnd::write_failed:
            throw Error(ExitCode::io, fmt::format("cannot write to standard output: {}",
                                                  std::strerror(summary.write_errno)));
    }
    return "";
}

std::string rate_text(int64_t tokens, double seconds) {
    return tokens > 0 && seconds > 0
               ? fmt::format("{:.1f} tok/s", static_cast<double>(tokens) / seconds)
               : "-";
}

void print_summary(const Session& session, const GenerateRequest& request,
                   const GenerateSummary& summary, const TokenStream& stream,
                   const PeakMemory& peak) {
    const std::string end = end_text(summary, request, session.config().run.generate.context);
    // Where both outputs are one file or terminal, the report begins a line of its own.
    if (stream.line_open()) write_all(STDERR_FILENO, "\n", 1);
    if (!end.empty()) print_line(STDERR_FILENO, "{}", end);
    const int64_t decoded = summary.new_tokens - 1;
    print_line(STDERR_FILENO,
               "tokens: {} new after {} of the prompt; prefill {}, decode {} ({:.2f} ms per token)",
               summary.new_tokens, summary.prompt_tokens,
               rate_text(summary.prompt_tokens, summary.prefill_seconds),
               rate_text(decoded, summary.decode_seconds),
               decoded > 0 ? 1e3 * summary.decode_seconds / static_cast<double>(decoded) : 0.0);
    print_closing_report(STDERR_FILENO, session.plan(), peak, allocation_counts());
}

int run(int argc, char** argv) {
    Options options;
    if (!parse(argc, argv, options)) return 0;
    const RunConfig config = config_of_checkpoint(options.checkpoint, options.overrides);
    const std::vector<int32_t> prompt = read_prompt(options, config);
    const GenerateRequest request = {prompt.data(),
                                     static_cast<int64_t>(prompt.size()),
                                     options.max_new_tokens,
                                     static_cast<int32_t>(config.model.eos_token_id),
                                     {options.temperature, static_cast<uint64_t>(options.seed)}};
    Session session(config, Purpose::generate);
    print_footprint(session);
    load(session, options.checkpoint);
    PeakMemory peak;
    peak.sample();
    TokenStream stream(STDOUT_FILENO, format_of(options));
    stop_on_signals();
    session.seal();
    const GenerateSummary summary = generate(session, request, stream);
    peak.sample();
    unseal();
    print_summary(session, request, summary, stream, peak);
    return 0;
}

}  // namespace
}  // namespace plumb

int main(int argc, char** argv) {
    plumb::spin_briefly(argv);
    return plumb::run_main([&] { return plumb::run(argc, argv); });
}
