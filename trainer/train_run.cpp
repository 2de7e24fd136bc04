#include "trainer/train_run.h"

#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <optional>

#include "runtime/engine/numerics.h"
#include "runtime/engine/product_table.h"
#include "runtime/exec/seal.h"
#include "runtime/plan/report.h"
#include "trainer/start_line.h"
#include "trainer/train_loop.h"

namespace plumb {

namespace {

template <typename... Args>
void say(fmt::format_string<Args...> format, Args&&... args) {
    print_line(STDOUT_FILENO, format, std::forward<Args>(args)...);
}

// The token files of a run and what reads them.
class RunData {
  public:
    explicit RunData(const RunConfig& config) : train_(open(config, "train", "")) {
        const RunSpec& run = config.run;
        const int64_t length = run.batch.sequence_length;
        const auto seed = static_cast<uint64_t>(run.train.seed);
        train_loader_.emplace(*train_, length, DataOrder::shuffled, seed);
        describe("train", *train_, *train_loader_);
        if (run.train.eval_every == 0) return;
        valid_ = open(config, "valid", ", or train.eval_every to 0");
        valid_loader_.emplace(*valid_, length, DataOrder::sequential, seed);
        describe("valid", *valid_, *valid_loader_);
    }

    const DataLoader& train() const { return *train_loader_; }
    const DataLoader* valid() const { return valid_loader_ ? &*valid_loader_ : nullptr; }
    const TokenFile* valid_tokens() const { return valid_.get(); }

  private:
    static std::unique_ptr<TokenFile> open(const RunConfig& config, const std::string& key,
                                           const std::string& alternative) {
        const DataSpec& data = config.run.data;
        const std::string& path = key == "train" ? data.train : data.valid;
        if (path.empty())
            throw Error(ExitCode::bad_input,
                        fmt::format("data.{} is not set; set it to a token file, as made by "
                                    "plumb-data{}",
                                    key, alternative));
        auto tokens = std::make_unique<TokenFile>(path);
        tokens->check_vocabulary(config.model.vocab_size);
        return tokens;
    }

    static void describe(const char* key, const TokenFile& tokens, const DataLoader& loader) {
        say("{}: {}, {} tokens, {} sequences of {}", key, tokens.path(),
            grouped_digits(tokens.count()), grouped_digits(loader.sequence_count()),
            loader.sequence_length());
    }

    std::unique_ptr<TokenFile> train_;
    std::unique_ptr<TokenFile> valid_;
    std::optional<DataLoader> train_loader_;
    std::optional<DataLoader> valid_loader_;
};

void say_title(const RunConfig& config, const std::string& name) {
    const BatchSpec& batch = config.run.batch;
    say("{}: {}, {} parameters; {} steps of {} x {} tokens, {}", name,
        model_type_name(config.model.model_type), grouped_digits(parameter_count(config.model)),
        config.run.train.steps, batch.global_batch, batch.sequence_length,
        value_dtype_name(program_dtype(config, Purpose::train)));
}

void check_folders(const CheckpointSpec& checkpoint) {
    const auto refuse_file = [](const char* key, const std::string& path) {
        std::error_code none;
        if (std::filesystem::exists(path, none) && !std::filesystem::is_directory(path, none))
            throw Error(ExitCode::bad_input,
                        fmt::format("{}: {} is a file; it must be a folder", key, path));
    };
    refuse_file("checkpoint.dir", checkpoint.dir);  // before anything is reserved
    if (checkpoint.resume != "auto" && checkpoint.resume != "never")
        refuse_file("checkpoint.resume", checkpoint.resume);
}

void say_plan(const Session& session) {
    const Plan& plan = session.plan();
    std::string arenas;
    for (int a = 0; a < kArenaCount; ++a)
        if (plan.arena_bytes[a] > 0)
            arenas +=
                fmt::format("{}{} {}", arenas.empty() ? "" : ", ",
                            arena_name(static_cast<Arena>(a)), human_bytes(plan.arena_bytes[a]));
    const DeviceRecord& device = session.device();
    const std::string numerics = to_hex(numerics_hash(session));
    const int64_t host_bytes = plan.space_bytes[static_cast<int>(MemorySpace::host)];
    if (Gpu* gpu = session.gpu()) {
        say("{} ({}); plan {}, numerics {}", gpu->name(), isa_name(device.isa), to_hex(plan.digest),
            numerics);
        say("memory: {} in arenas ({}); with what lies outside them {} on the GPU and {} on the "
            "host",
            human_bytes(plan.total_bytes), arenas,
            human_bytes(plan.space_bytes[static_cast<int>(MemorySpace::gpu)]),
            human_bytes(host_bytes));
        return;
    }
    say("{} ({}), {} thread{}; plan {}, numerics {}", device.name, isa_name(device.isa),
        device.threads, device.threads == 1 ? "" : "s", to_hex(plan.digest), numerics);
    say("memory: {} in arenas ({}) and {} outside them", human_bytes(plan.total_bytes), arenas,
        human_bytes(plan.outside_bytes));
}

void say_peak(const Session& session, double peak_flops) {
    const char* dtype = value_dtype_name(program_dtype(session.config(), Purpose::train));
    if (session.gpu() == nullptr)
        say("peak of this machine, measured now: {:.1f} Gflop/s {}", peak_flops / 1e9, dtype);
    else if (peak_flops > 0)
        say("peak of {}, from its data sheet: {:.1f} Tflop/s {}", session.gpu()->name(),
            peak_flops / 1e12, dtype);
    else
        say("the peak of {} is not known: no share of it is shown", session.gpu()->name());
}

// Where a GPU's algorithms are kept: of the run itself, or of the one that it goes on with.
std::vector<std::string> products_folders(const RunConfig& config) {
    const CheckpointSpec& checkpoint = config.run.checkpoint;
    if (checkpoint.resume == "auto" || checkpoint.resume == "never") return {checkpoint.dir};
    return {checkpoint.dir, products_folder_of(checkpoint.resume)};
}

// A GPU's algorithms, for later runs in this folder.
void keep_products(const Session& session) {
    if (session.gpu() == nullptr) return;
    if (!session.products_note().empty()) say("note: {}", session.products_note());
    const std::string note = store_products(session.config().run.checkpoint.dir, *session.gpu());
    if (!note.empty()) say("note: {}", note);
    const std::string line = products_line(session.gpu()->products());
    if (!line.empty()) say("{}", line);
}

// Sequences were counted in the length of their time. When that has changed, the tokens seen say
// where to go on, in whole sequences.
void keep_place_in_data(int64_t sequence_length, RunRecord* record) {
    const int64_t tokens = record->tokens_consumed;
    const int64_t sequences = tokens / sequence_length + (tokens % sequence_length == 0 ? 0 : 1);
    if (sequences == record->sequences_consumed) return;
    say("  sequences now have {} tokens: the data goes on after {} of them, as many as {} tokens "
        "make; their order is another",
        sequence_length, sequences, tokens);
    record->sequences_consumed = sequences;
}

// Loads the checkpoint that checkpoint.resume asks for, or initialises. Returns where it lay, empty
// for a new run.
std::string resume_or_initialise(Session& session, StateIo& state, RunRecord* record) {
    const CheckpointSpec& checkpoint = session.config().run.checkpoint;
    LoadReport report;
    if (checkpoint.resume == "auto")
        report = state.load(checkpoint.dir);
    else if (checkpoint.resume != "never")
        report = state.load(checkpoint.resume);
    for (const std::string& note : report.notes) say("note: {}", note);
    if (!report.found) {
        if (checkpoint.resume != "auto" && checkpoint.resume != "never")
            throw Error(ExitCode::bad_input,
                        fmt::format("checkpoint.resume: no checkpoint in {}", checkpoint.resume));
        if (checkpoint.resume == "never") state.refuse_later_steps(0);
        session.run_phase(PhaseKind::initialise);
        say("new run, seed {}", session.config().run.train.seed);
        return "";
    }
    *record = report.record;
    if (checkpoint.resume != "auto") state.refuse_later_steps(record->step);
    say("resumed at step {} from {}, digest {}", record->step, report.path, to_hex(report.digest));
    for (const std::string& line : report.differences) say("  differs: {}", line);
    keep_place_in_data(session.config().run.batch.sequence_length, record);
    return report.path;
}

bool is_complete(const RunConfig& config, const RunRecord& record) {
    const TrainSpec& train = config.run.train;
    if (record.step >= train.steps)
        say("the run is complete: step {} of {}; train.steps makes it longer", record.step,
            train.steps);
    else if (record.step >= last_step(train))
        say("nothing to do: step {} is train.stop_at = {} or later", record.step, train.stop_at);
    else
        return false;
    return true;
}

int exit_code(const TrainResult& result, int64_t step) {
    const char* saved = *result.last_saved.text == '\0' ? "none" : result.last_saved.text;
    if (result.end == TrainEnd::not_finite) {
        print_error(fmt::format("the gradients of three steps in a row, the last of them {}, are "
                                "not finite; a smaller train.lr or train.clip may help; the last "
                                "checkpoint is {}",
                                step, saved)
                        .c_str());
        return 1;
    }
    if (result.last_save_failed) {
        print_error(
            fmt::format("step {} is not saved; the last checkpoint is {}", step, saved).c_str());
        return static_cast<int>(ExitCode::io);
    }
    return static_cast<int>(ExitCode::ok);
}

}  // namespace

int train_run(const RunConfig& unresolved, const std::string& name) {
    const RunConfig config = resolved(unresolved);
    say_title(config, name);
    for (const std::string& note : config.notes) say("note: {}", note);
    check_folders(config.run.checkpoint);
    const RunData data(config);
    Session session(config, Purpose::train, kBuildRedZoneBytes, products_folders(config));
    say_plan(session);
    StateIo state(session);
    state.prepare_folder();
    keep_products(session);
    RunRecord record;
    const std::string resumed = resume_or_initialise(session, state, &record);
    PeakMemory peak_memory;
    peak_memory.sample();
    if (is_complete(config, record)) return static_cast<int>(ExitCode::ok);
    state.remove_unfinished();
    const double peak_flops = session.peak_flops(Purpose::train);
    say_peak(session, peak_flops);
    std::optional<TextSampler> sampler;
    if (data.valid() != nullptr && TextSampler::possible(config, *data.valid_tokens()))
        sampler.emplace(session, *data.valid_tokens());
    const std::string& folder = config.run.checkpoint.dir;
    std::optional<EventFile> events;
    if (config.run.train.tensorboard) events.emplace(folder, record.step);
    StepLog log(folder, record.step, last_step(config.run.train), config.run.train.log_every,
                events ? &*events : nullptr);
    log.started(start_line(session, name, record.step));
    StopRequest stop(folder);
    std::optional<BackgroundSave> saver;
    if (config.run.checkpoint.every > 0) saver.emplace(state);
    TrainLoop loop({session, saver ? &*saver : nullptr, data.train(), data.valid(),
                    sampler ? &*sampler : nullptr, log, stop, peak_memory, peak_flops},
                   record, resumed);
    session.seal();
    const TrainResult result = loop.run();
    unseal();
    log.ended(loop.record().step, peak_memory);
    print_closing_report(STDOUT_FILENO, session, peak_memory, allocation_counts());
    return exit_code(result, loop.record().step);
}

}  // namespace plumb
