// plumb-infer: text from a checkpoint, and how well it predicts a text.
// Path: cold.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>
#include <filesystem>

#include "infer/generate_loop.h"
#include "infer/perplexity_loop.h"
#include "infer/prompt.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/engine/closing_report.h"
#include "runtime/engine/product_table.h"
#include "runtime/engine/state_io.h"
#include "runtime/exec/seal.h"
#include "runtime/exec/wait_policy.h"
#include "runtime/plan/report.h"

namespace plumb {
namespace {

constexpr const char* kGenerateText =
    "Continues prompts with the model of a checkpoint. Prompt and new text go to standard\n"
    "output, everything else to standard error: a single prompt as its text comes, several in\n"
    "rounds of --batch prompts at once, each under a line \"==> prompt N of M <==\" and with a\n"
    "newline behind it.";
constexpr const char* kGenerateExample =
    "Any setting of the run can follow as --section.key=value (plumb-train --help lists them);\n"
    "--generate.context=TOKENS makes the key/value cache smaller.\n"
    "Logits pass the repetition penalty, temperature, top-k and top-p in this order.\n"
    "Examples:\n"
    "  plumb-infer generate --checkpoint run --prompt \"namespace \" --temperature 0.8 --seed 7\n"
    "  plumb-infer generate --checkpoint run/step-000000000200-1a2b3c4d --prompt-file notes.txt\n"
    "  plumb-infer generate --checkpoint run --prompts lines.txt --batch 4 --top-p 0.9 \\\n"
    "      --temperature 1 --stop \"}\"";
constexpr const char* kPerplexityText =
    "Measures how well the model of a checkpoint predicts a text: mean loss, perplexity and, for\n"
    "models of bytes, bits per byte. The result goes to standard output, everything else to\n"
    "standard error. The text is cut into windows, as long as the training's sequences unless\n"
    "--window says otherwise; every token but the first is predicted once.";
constexpr const char* kPerplexityExample =
    "Any setting of the run can follow as --section.key=value (plumb-train --help lists them).\n"
    "Examples:\n"
    "  plumb-infer perplexity --checkpoint run --text book.txt\n"
    "  plumb-infer perplexity --checkpoint run --tokens data/valid.bin --window 256 --stride 64";
// Prompts at once when --batch is not given.
constexpr size_t kAutomaticBatch = 8;
constexpr double kProgressSeconds = 5;

struct Options {
    std::string command;
    std::string checkpoint;
    std::vector<PromptText> prompts;
    bool ids = false;  // prompts are token ids
    int64_t max_new_tokens = 256;
    double temperature = 0;
    int64_t top_k = 0;
    double top_p = 1;
    double repetition_penalty = 1;
    int64_t seed = 1;
    StopStrings stops;
    std::string text, tokens;            // one of both: what perplexity is measured on
    int64_t stride = 0;                  // 0: the window
    std::vector<std::string> overrides;  // of the checkpoint's settings
};

[[noreturn]] void refuse(const Options& options, const std::string& message) {
    const std::string command = options.command.empty() ? "" : " " + options.command;
    throw Error(ExitCode::bad_input, message + " (see plumb-infer" + command + " --help)");
}

void check(const Options& options) {
    std::error_code none;
    if (std::filesystem::is_regular_file(options.checkpoint, none))
        refuse(
            options,
            fmt::format("--checkpoint: {} is a file; it must be a run's folder or one step-* in it",
                        options.checkpoint));
    if (options.max_new_tokens < 1)
        refuse(options, fmt::format("--max-new-tokens: {} is below 1", options.max_new_tokens));
    // Beyond these, logits over temperature or penalty leave what doubles and floats hold.
    const auto reasonable = [](double x) { return x >= 1e-3 && x <= 1e3; };
    if (options.temperature != 0 && !reasonable(options.temperature))
        refuse(options, fmt::format("--temperature: {} is neither 0 nor from 0.001 to 1000",
                                    options.temperature));
    if (options.top_k < 0) refuse(options, fmt::format("--top-k: {} is below 0", options.top_k));
    if (!(options.top_p > 0 && options.top_p <= 1))
        refuse(options, fmt::format("--top-p: {} is not above 0 and at most 1", options.top_p));
    if (!reasonable(options.repetition_penalty))
        refuse(options, fmt::format("--repetition-penalty: {} is not from 0.001 to 1000",
                                    options.repetition_penalty));
    if (options.seed < 0) refuse(options, fmt::format("--seed: {} is below 0", options.seed));
    if (options.stride < 0) refuse(options, fmt::format("--stride: {} is below 0", options.stride));
}

// An option that may be given several times, each with one value.
CLI::Option* add_list(CLI::App& app, const char* name, std::vector<std::string>& values,
                      const char* help) {
    return app.add_option(name, values, help)->allow_extra_args(false)->type_name("TEXT");
}

// What stands in the settings of the checkpoint for its training and must not stand in the way
// here; the machine is another one, too.
std::vector<std::string> fresh_settings() {
    return {"--run.device=cpu",       "--run.threads=0",        "--run.memory=0",
            "--run.tf32=false",       "--run.graph=true",       "--batch.micro_batch=1",
            "--batch.global_batch=1", "--train.warmup_steps=0", "--train.loss_chunk=0"};
}

// An error for what is no integer of 64 bits, of which CLI11 would take the nearest.
std::string integer_error(const std::string& text) {
    int64_t value = 0;
    const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (code == std::errc{} && end == text.data() + text.size()) return "";
    return fmt::format("{} is not an integer of at most {}", text, INT64_MAX);
}

// Flags of both commands, and what they are short for.
struct Shared {
    std::string threads, memory, batch;

    void add(CLI::App& app, Options& options, const char* batch_help) {
        app.allow_extras();
        app.add_option("--checkpoint", options.checkpoint, "A run's folder, or one step-* in it")
            ->required()
            ->type_name("DIR");
        app.add_option("--batch", batch, batch_help)->type_name("N");
        app.add_option("--threads", threads, "The same as --run.threads=N")->type_name("N");
        app.add_option("--memory", memory, "The same as --run.memory=SIZE")->type_name("SIZE");
    }
    void take(const CLI::App& app, Options& options) const {
        for (const std::string& extra : app.remaining()) {
            if (extra.find('.') == std::string::npos || extra.find('=') == std::string::npos)
                refuse(options, "unknown argument: " + extra);
            options.overrides.push_back(extra);
        }
        if (!threads.empty()) options.overrides.push_back("--run.threads=" + threads);
        if (!memory.empty()) options.overrides.push_back("--run.memory=" + memory);
    }
};

// The flags of `generate`; an object of its own because CLI11 keeps their addresses.
class GenerateFlags {
  public:
    GenerateFlags(CLI::App& app, Options& options)
        : app_(*app.add_subcommand("generate", kGenerateText)), options_(options) {
        app_.footer(kGenerateExample);
        shared_.add(app_, options,
                    "Prompts at once, the same as --generate.batch=N; default: as many as there "
                    "are, at most 8");
        sources_[0] = add_list(app_, "--prompt", prompts_, "Text to continue; may be repeated");
        sources_[1] = app_.add_option("--prompts", prompts_file_,
                                      "File with a prompt per line (\\n in it is a newline, \\\\ a "
                                      "backslash, \\t a tab); - is standard input");
        sources_[2] = app_.add_option("--prompt-file", prompt_file_,
                                      "File with one text; - is standard input");
        sources_[3] = add_list(app_, "--prompt-tokens", prompt_tokens_,
                               "Token ids, as in 1,2,3; new tokens are printed as ids too; may be "
                               "repeated");
        const auto add = [&](const char* name, auto& value, const char* help) {
            CLI::Option* option = app_.add_option(name, value, help)->capture_default_str();
            if constexpr (std::is_same_v<decltype(value), int64_t&>) option->check(integer_error);
        };
        add("--max-new-tokens", options.max_new_tokens,
            "Tokens to make of each prompt; the context's end may come before");
        add_list(app_, "--stop", stops_,
                 "Ends the new text before this text, which is not printed; may be repeated");
        add("--temperature", options.temperature,
            "0: always the likeliest token; 1: as the model says");
        add("--top-k", options.top_k, "Choose among the K likeliest tokens; 0: all");
        add("--top-p", options.top_p,
            "Choose among the fewest likeliest tokens with this share of the probability");
        add("--repetition-penalty", options.repetition_penalty,
            "Divides logits above 0 of tokens in prompt and text, multiplies those below; 1: none");
        add("--seed", options.seed,
            "Of the choice when temperature > 0; prompt number I (from 0) uses seed + I");
    }

    bool chosen() const { return app_.parsed(); }
    // After parsing: reads the prompts' texts and completes the options.
    void take() {
        options_.command = "generate";
        std::string source;
        for (const CLI::Option* option : sources_) {
            if (option->count() == 0) continue;
            if (!source.empty() && !(source == "--prompt" && option == sources_[1]))
                refuse(options_, source + " and " + option->get_name() + " exclude each other");
            source = option->get_name();
        }
        if (source.empty())
            refuse(options_,
                   "one of --prompt, --prompts, --prompt-file and --prompt-tokens is "
                   "required");
        options_.ids = source == "--prompt-tokens";
        if (options_.ids && !stops_.empty())
            refuse(options_, "--stop: text is taken by prompts of text, not by --prompt-tokens");
        options_.stops = StopStrings(stops_);
        add_prompts("--prompt", prompts_);
        add_prompts("--prompt-tokens", prompt_tokens_);
        if (source == "--prompt-file")
            options_.prompts.push_back({read_prompt_file(prompt_file_, source), source});
        if (source == "--prompts")
            for (PromptText& prompt :
                 split_prompts(read_prompt_file(prompts_file_, source), prompts_file_))
                options_.prompts.push_back(std::move(prompt));
        options_.overrides = fresh_settings();
        options_.overrides.emplace_back("--batch.sequence_length=1");
        const size_t batch = std::min(options_.prompts.size(), kAutomaticBatch);
        options_.overrides.push_back(fmt::format("--generate.batch={}", batch));
        shared_.take(app_, options_);
        if (!shared_.batch.empty())
            options_.overrides.push_back("--generate.batch=" + shared_.batch);
    }

  private:
    void add_prompts(const char* option, const std::vector<std::string>& texts) {
        for (size_t i = 0; i < texts.size(); ++i)
            options_.prompts.push_back(
                {texts[i], texts.size() == 1 ? option : fmt::format("{} {}", option, i + 1)});
    }

    CLI::App& app_;
    Options& options_;
    Shared shared_;
    std::vector<std::string> prompts_, prompt_tokens_, stops_;
    std::string prompts_file_, prompt_file_;
    CLI::Option* sources_[4] = {};
};

class PerplexityFlags {
  public:
    PerplexityFlags(CLI::App& app, Options& options)
        : app_(*app.add_subcommand("perplexity", kPerplexityText)), options_(options) {
        app_.footer(kPerplexityExample);
        shared_.add(app_, options,
                    "Windows at once, the same as --batch.micro_batch=N; default: 1");
        text_ = app_.add_option("--text", options.text, "File whose bytes are the tokens");
        tokens_ = app_.add_option("--tokens", options.tokens,
                                  "Token file (PATH.bin) with its sidecar PATH.bin.json");
        app_.add_option("--window", window_,
                        "Tokens the model sees at once, the same as --batch.sequence_length=N; "
                        "default: that of the training; at most the model's context")
            ->type_name("TOKENS");
        app_.add_option(
                "--stride", options.stride,
                "Tokens from one window to the next; only predictions that no window before "
                "has made count; 0: the window, so that windows lie end to end")
            ->check(integer_error)
            ->capture_default_str();
    }

    bool chosen() const { return app_.parsed(); }
    void take() {
        options_.command = "perplexity";
        if ((text_->count() == 0) == (tokens_->count() == 0))
            refuse(options_, "one of --text and --tokens is required");
        options_.overrides = fresh_settings();
        shared_.take(app_, options_);
        if (!shared_.batch.empty()) {
            options_.overrides.push_back("--batch.micro_batch=" + shared_.batch);
            options_.overrides.push_back("--batch.global_batch=" + shared_.batch);
        }
        if (window_ == "0") refuse(options_, "--window: 0 is below 1");
        if (!window_.empty()) options_.overrides.push_back("--batch.sequence_length=" + window_);
    }

  private:
    CLI::App& app_;
    Options& options_;
    Shared shared_;
    std::string window_;
    CLI::Option* text_ = nullptr;
    CLI::Option* tokens_ = nullptr;
};

// False when only help was asked for (and printed).
bool parse(int argc, char** argv, Options& options) {
    CLI::App app("Runs language models trained by plumb-train", "plumb-infer");
    app.require_subcommand(1);
    GenerateFlags generate(app, options);
    PerplexityFlags perplexity(app, options);
    try {
        app.parse(argc, argv);
    } catch (const CLI::Success& success) {
        app.exit(success);
        return false;
    } catch (const CLI::ParseError& error) {
        for (const CLI::App* command : app.get_subcommands()) options.command = command->get_name();
        refuse(options, error.what());
    }
    if (generate.chosen())
        generate.take();
    else
        perplexity.take();
    check(options);
    return true;
}

std::vector<std::vector<int32_t>> read_prompts(const Options& options, const RunConfig& config) {
    std::vector<std::vector<int32_t>> prompts;
    for (const PromptText& prompt : options.prompts)
        prompts.push_back((options.ids ? listed_prompt : text_prompt)(
            prompt.text, config.model, config.run.generate.context, prompt.where));
    return prompts;
}

TokenFormat format_of(const Options& options) {
    if (options.ids) return TokenFormat::ids;
    return ::isatty(STDOUT_FILENO) != 0 ? TokenFormat::terminal : TokenFormat::raw_bytes;
}

void print_footprint(const Session& session, const std::string& work) {
    const ModelSpec& model = session.config().model;
    const Plan& plan = session.plan();
    print_line(STDERR_FILENO, "model: {}, {} parameters, layers {}, vocabulary {}, {}",
               model_type_name(model.model_type), grouped_digits(parameter_count(model)),
               model.num_hidden_layers, model.vocab_size, work);
    print_line(STDERR_FILENO,
               "memory: {} bytes ({}) in arenas + {} bytes ({}) outside, fixed from here on",
               plan.total_bytes, human_bytes(plan.total_bytes), plan.outside_bytes,
               human_bytes(plan.outside_bytes));
    if (session.gpu() == nullptr) {
        print_line(STDERR_FILENO, "plan: {}, threads {}", to_hex(plan.digest),
                   session.device().threads);
        return;
    }
    const auto in = [&](MemorySpace space) {
        return human_bytes(plan.space_bytes[static_cast<int>(space)]);
    };
    print_line(STDERR_FILENO, "of these on the GPU: {}, on the host: {}", in(MemorySpace::gpu),
               in(MemorySpace::host));
    print_line(STDERR_FILENO, "plan: {}, {}", to_hex(plan.digest), session.gpu()->name());
    if (!session.products_note().empty())
        print_line(STDERR_FILENO, "note: {}", session.products_note());
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

std::string end_text(const TextSummary& text, const GenerateRequest& request, int64_t context) {
    switch (text.end) {
        case GenerateEnd::token_count:
            return "";
        case GenerateEnd::context:
            return fmt::format(
                "stopped: the context of {} tokens is full; {} of {} new tokens are made", context,
                text.new_tokens, request.max_new_tokens);
        case GenerateEnd::eos:
            return fmt::format("stopped: the model ended the text (token {})", request.eos_token);
        case GenerateEnd::stop_string:
            return fmt::format("stopped: at a stop string, after {} new tokens", text.new_tokens);
        case GenerateEnd::interrupted:
            return "stopped: interrupted";
    }
    return "";
}

std::string rate_text(int64_t tokens, double seconds) {
    return tokens > 0 && seconds > 0
               ? fmt::format("{:.1f} tok/s", static_cast<double>(tokens) / seconds)
               : "-";
}

void print_summary(const GenerateRequest& request, const GenerateSummary& summary,
                   const std::vector<TextSummary>& texts, int64_t context) {
    for (size_t i = 0; i < texts.size(); ++i) {
        const std::string end = end_text(texts[i], request, context);
        if (end.empty()) continue;
        if (texts.size() == 1)
            print_line(STDERR_FILENO, "{}", end);
        else
            print_line(STDERR_FILENO, "prompt {}: {}", i + 1, end);
    }
    print_line(STDERR_FILENO,
               "tokens: {} new after {} of {}; prefill {}, decode {} ({:.2f} ms per token)",
               summary.new_tokens, summary.prompt_tokens,
               texts.size() == 1 ? "the prompt" : fmt::format("{} prompts", texts.size()),
               rate_text(summary.prompt_tokens, summary.prefill_seconds),
               rate_text(summary.decoded_tokens, summary.decode_seconds),
               1e3 * summary.decode_seconds /
                   static_cast<double>(std::max<int64_t>(summary.decoded_tokens, 1)));
}

void run_generate(const Options& options) {
    const RunConfig config = config_of_checkpoint(options.checkpoint, options.overrides);
    const std::vector<std::vector<int32_t>> prompts = read_prompts(options, config);
    GenerateRequest request;
    request.prompts = prompts;
    request.max_new_tokens = options.max_new_tokens;
    request.eos_token = static_cast<int32_t>(config.model.eos_token_id);
    request.sampling = {options.temperature, static_cast<uint64_t>(options.seed), options.top_k,
                        options.top_p, options.repetition_penalty};
    request.stops = options.stops;
    const GenerateSpec& spec = config.run.generate;
    Session session(config, Purpose::generate, kBuildRedZoneBytes,
                    {products_folder_of(options.checkpoint)});
    print_footprint(session,
                    fmt::format("context {} tokens{}", spec.context,
                                spec.batch == 1 ? "" : fmt::format(" x {} prompts", spec.batch)));
    load(session, options.checkpoint);
    PeakMemory peak;
    peak.sample();
    TokenStream stream(STDOUT_FILENO, format_of(options));
    GenerateLoop loop(session, request, stream);
    stop_on_signals();
    session.seal();
    const GenerateSummary summary = loop.run();
    peak.sample();
    unseal();
    if (summary.write_errno != 0)
        throw Error(ExitCode::io, fmt::format("cannot write to standard output: {}",
                                              std::strerror(summary.write_errno)));
    // Where both outputs are one file or terminal, the report begins a line of its own.
    if (stream.line_open()) write_all(STDERR_FILENO, "\n", 1);
    print_summary(request, summary, loop.texts(), spec.context);
    print_closing_report(STDERR_FILENO, session, peak, allocation_counts());
}

void run_perplexity(const Options& options) {
    const RunConfig config = config_of_checkpoint(options.checkpoint, options.overrides);
    const bool bytes = takes_text(config.model);
    if (!bytes && options.tokens.empty())
        refuse(options, fmt::format("--text: text is taken as bytes by models of at most 256 "
                                    "tokens, but this one has {}; give --tokens FILE.bin",
                                    config.model.vocab_size));
    const TokenFile tokens(bytes && options.tokens.empty() ? options.text : options.tokens,
                           options.tokens.empty() ? 1 : 0);
    tokens.check_vocabulary(config.model.vocab_size);
    if (tokens.count() < 2)
        refuse(options, fmt::format("{} has 1 token; at least 2 are needed", tokens.path()));
    const BatchSpec& batch = config.run.batch;
    const int64_t stride = options.stride == 0 ? batch.sequence_length : options.stride;
    if (stride > batch.sequence_length)
        refuse(options, fmt::format("--stride: {} is above the window of {} tokens", stride,
                                    batch.sequence_length));
    Session session(config, Purpose::score, kBuildRedZoneBytes,
                    {products_folder_of(options.checkpoint)});
    print_footprint(session, fmt::format("windows of {} tokens, {} at once", batch.sequence_length,
                                         batch.micro_batch));
    load(session, options.checkpoint);
    const int64_t windows = window_count(tokens.count(), batch.sequence_length, stride);
    print_line(STDERR_FILENO, "text: {}, {} tokens, {} window{} every {} tokens", tokens.path(),
               grouped_digits(tokens.count()), grouped_digits(windows), windows == 1 ? "" : "s",
               stride);
    PeakMemory peak;
    peak.sample();
    session.seal();
    const Score score = score_tokens(session, tokens, stride, kProgressSeconds);
    peak.sample();
    unseal();
    bool written = print_line(STDOUT_FILENO, "window: {} tokens, one every {}",
                              batch.sequence_length, stride) &&
                   print_line(STDOUT_FILENO, "tokens: {}", score.predicted_tokens) &&
                   print_line(STDOUT_FILENO, "loss: {:.7f} nats per token", score.loss()) &&
                   print_line(STDOUT_FILENO, "perplexity: {:.7g}", score.perplexity());
    if (written && bytes)
        written = print_line(STDOUT_FILENO, "bits per byte: {:.7f}", score.bits_per_token());
    if (!written)
        throw Error(ExitCode::io,
                    fmt::format("cannot write to standard output: {}", std::strerror(errno)));
    print_line(STDERR_FILENO, "time: {:.1f} s, {}", score.seconds,
               rate_text(score.predicted_tokens, score.seconds));
    print_closing_report(STDERR_FILENO, session, peak, allocation_counts());
}

int run(int argc, char** argv) {
    Options options;
    if (!parse(argc, argv, options)) return 0;
    if (options.command == "generate")
        run_generate(options);
    else
        run_perplexity(options);
    return 0;
}

}  // namespace
}  // namespace plumb

int main(int argc, char** argv) {
    plumb::spin_briefly(argv);
    return plumb::run_main([&] { return plumb::run(argc, argv); });
}
