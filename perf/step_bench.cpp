// Times whole training steps, prefill and decode of a model with random weights and tokens, beside
// the limits that the same run measures: model flops over the peak of register-only multiply-adds,
// or on a GPU over the rate of a large product, and, for decode, the bytes of all weights and of
// the cache over the bandwidth of reading, or on a GPU of copying, memory. Medians over the steps;
// the first step is not counted.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "perf/gpu_case.h"
#include "perf/json_rows.h"
#include "perf/op_profile.h"
#include "runtime/base/error.h"
#include "runtime/base/random.h"
#include "runtime/engine/generate.h"
#include "runtime/engine/session.h"
#include "runtime/engine/state_records.h"
#include "runtime/exec/wait_policy.h"

namespace plumb {
namespace {

using testing::Limits;

// What all rows of a run share.
struct Bench {
    int steps = 3;
    bool smoke = false;
    std::string filter;        // only rows whose name, "train tiny", holds it
    std::unique_ptr<Gpu> gpu;  // nullptr: on the CPU
    std::optional<testing::JsonRows> rows;
    std::optional<testing::JsonRows> profiles;  // none: none are made

    std::string failed;  // what was wrong with rows, a line each

    // Whether a loss is one of training on random tokens; it falls from about ln V.
    bool learned(const std::string& name, double loss, int64_t vocabulary) {
        const double most = std::log(static_cast<double>(vocabulary)) + 1;
        if (loss > 0 && loss <= most) return true;
        failed +=
            fmt::format("error: train {}: the loss is {}, not a number between 0 and {:.3f}\n",
                        name, loss, most);
        return false;
    }
    // Ops that are timed apart do not stand red zones (Executor::run_op).
    int64_t red_zone_bytes() const { return profiles ? 0 : kBuildRedZoneBytes; }
};

Limits limits_of(Bench& bench, Dtype dtype, const DeviceRecord& device) {
    if (bench.gpu != nullptr) {
        testing::GpuBench measuring(*bench.gpu, dtype, bench.smoke);
        const testing::GpuLimits found = testing::measure_gpu_limits(measuring, dtype, bench.smoke);
        return {found.matrix_flops, found.copy_bandwidth(),
                gpu_peak_flops(bench.gpu->name(), dtype)};
    }
    std::vector<char> buffer(static_cast<size_t>(256 * kMiB), 1);
    return {
        measure_peak_flops(device.isa, device.threads, dtype),
        measure_read_bandwidth(device.threads, buffer.data(), static_cast<int64_t>(buffer.size()))};
}

double seconds_of(const auto& body) {
    const auto start = std::chrono::steady_clock::now();
    body();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

void fill_rows(Session& session) {
    const BatchSpec& batch = session.config().run.batch;
    const auto vocabulary = static_cast<uint64_t>(session.config().model.vocab_size);
    const IoTensors& io = session.program().io;
    const Executor& executor = session.executor();
    for (int32_t m = 0; m < session.program().micro_batch_count; ++m) {
        for (int64_t n = 0; n < batch.micro_batch_tokens(); ++n) {
            const Philox4 r = philox(7, static_cast<uint64_t>(n), static_cast<uint64_t>(m));
            executor.data<int32_t>(io.tokens, m)[n] = static_cast<int32_t>(r.word[0] % vocabulary);
            executor.data<int32_t>(io.targets, m)[n] = static_cast<int32_t>(r.word[1] % vocabulary);
            executor.data<float>(io.loss_weights, m)[n] = 1;
            executor.data<int32_t>(io.positions, m)[n] =
                static_cast<int32_t>(n % batch.sequence_length);
            executor.data<int32_t>(io.segment_start, m)[n] = 0;
        }
    }
}

void set_scalars(Session& session) {
    StepScalars& scalars = session.executor().scalars();
    scalars.lr = 1e-4;
    scalars.beta1 = 0.9;
    scalars.beta2 = 0.95;
    scalars.eps = 1e-8;
    scalars.weight_decay = 0.1;
    scalars.clip = 1.0;
    scalars.bias_correction1 = scalars.bias_correction1_skipped = 1 - scalars.beta1;
    scalars.bias_correction2 = scalars.bias_correction2_skipped = 1 - scalars.beta2;
    scalars.inverse_weight_sum =
        1.0 / static_cast<double>(session.config().run.batch.step_tokens());
}

// Seconds of each step and, added to by_section, of its sections.
std::vector<double> time_entries(Session& session, int steps, double* by_section) {
    std::vector<double> times;
    for (int step = 0; step <= steps; ++step) {
        double total = 0;
        for (const Entry& entry : session.program().phase(PhaseKind::step)->entries) {
            const double seconds = seconds_of([&] { session.executor().run(entry); });
            const Section& section = session.program().sections[static_cast<size_t>(entry.section)];
            if (step > 0) by_section[static_cast<int>(section.kind)] += seconds;
            total += seconds;
        }
        if (step > 0) times.push_back(total);
    }
    return times;
}

// As training does it on a GPU: a step's input is sent, and the step begun, before the loss of the
// one in progress is there.
std::vector<double> time_ahead(Session& session, int steps) {
    Executor& executor = session.executor();
    const IoTensors& io = session.program().io;
    const auto begin = [&] {
        executor.begin_input();
        executor.send_rows(0, session.program().micro_batch_count);
        executor.send(io.scalars);
        executor.clear(io.loss);
        executor.run(session.program().phase(PhaseKind::step)->entries);
    };
    std::vector<double> times;
    begin();
    executor.fetch(io.loss);
    for (int step = 0; step <= steps; ++step) {
        const double seconds = seconds_of([&] {
            begin();
            executor.wait();
            executor.fetch(io.loss);
        });
        if (step > 0) times.push_back(seconds);
    }
    executor.wait();
    executor.finish();
    return times;
}

// Memory of the GPU: what the plan says and what is taken of it.
std::string memory_row(const Session& session, const GpuMemory& after) {
    const int64_t arenas = arena_bytes_in(session.plan(), MemorySpace::gpu);
    const int64_t planned = session.plan().space_bytes[static_cast<int>(MemorySpace::gpu)];
    const int64_t taken = session.gpu_memory_before().free_bytes - after.free_bytes;
    const int64_t in_use = after.total_bytes - after.free_bytes;
    const auto gib = [](int64_t bytes) {
        return static_cast<double>(bytes) / static_cast<double>(kGiB);
    };
    fmt::print(
        "  memory     {:.2f} GiB planned for arenas, {:.2f} taken; {:.2f} planned with CUDA's "
        "own, {:.2f} of the GPU in use\n",
        gib(arenas), gib(taken), gib(planned), gib(in_use));
    return testing::json_format(R"("arena_bytes": {}, "taken_bytes": {}, "planned_bytes": {}, )"
                                R"("in_use_bytes": {})",
                                arenas, taken, planned, in_use);
}

// Where the time of entries goes that took measured_s.
void profile(Bench& bench, Session& session, const std::string& what,
             std::span<const Entry> entries, double measured_s, const Limits& limits,
             int64_t cached_positions) {
    if (!bench.profiles) return;
    bench.profiles->add(testing::profile_entries(
        session, {what, entries, measured_s, limits, cached_positions, bench.smoke ? 0 : 5e-3}));
}

void bench_step(Bench& bench, const RunConfig& config, const std::string& name) {
    if (("train " + name).find(bench.filter) == std::string::npos) return;
    const Dtype dtype = program_dtype(config, Purpose::train);
    const Limits limits = limits_of(bench, dtype, device_of(config));
    Session session(config, Purpose::train, bench.red_zone_bytes());
    session.run_phase(PhaseKind::initialise);
    fill_rows(session);
    set_scalars(session);
    double by_section[static_cast<int>(SectionKind::count)] = {};
    const std::vector<double> times = bench.gpu == nullptr
                                          ? time_entries(session, bench.steps, by_section)
                                          : time_ahead(session, bench.steps);
    const BatchSpec& batch = config.run.batch;
    const double tokens = static_cast<double>(batch.step_tokens());
    const double rate = tokens / median(times);
    const double loss = *session.executor().data<double>(session.program().io.loss) / tokens;
    // No row: steps that are skipped for what is not finite are faster.
    if (bench.gpu != nullptr && !bench.learned(name, loss, config.model.vocab_size)) return;
    const double token_flops = flops_per_token(config.model, batch.sequence_length);
    const double flops = token_flops * rate;
    fmt::print(
        "{:<34} {:>9.1f} tok/s {:>8.1f} of {:>6.1f} GFLOP/s {:>5.1f} %   limit {:.0f} tok/s\n",
        fmt::format("train {} B={} T={} {}", name, batch.micro_batch, batch.sequence_length,
                    value_dtype_name(dtype)),
        rate, flops / 1e9, limits.flops / 1e9, 100 * flops / limits.flops,
        limits.flops / token_flops);
    std::string row = testing::json_format(
        R"("train": "{}", "layers": {}, "batch": {}, "length": {}, "dtype": "{}", )"
        R"("tokens_per_s": {:.1f}, "model_flop_s": {:.6g}, "measured_peak_flop_s": {:.6g})",
        name, config.model.num_hidden_layers, batch.micro_batch, batch.sequence_length,
        value_dtype_name(dtype), rate, flops, limits.flops);
    if (bench.gpu == nullptr) {
        for (const SectionKind kind :
             {SectionKind::forward, SectionKind::backward, SectionKind::update})
            fmt::print("  {:<10} {:>8.1f} ms per step\n", section_kind_name(kind),
                       1e3 * by_section[static_cast<int>(kind)] / bench.steps);
    } else {
        if (limits.sheet > 0)
            fmt::print("  MFU        {:.1f} % of the data sheet's {:.0f} TFLOP/s\n",
                       100 * flops / limits.sheet, limits.sheet / 1e12);
        fmt::print("  loss       {:.4f} in step {} on the same tokens\n", loss, bench.steps + 2);
        row += testing::json_format(R"(, "mfu": {:.4f}, "loss": {:.6f}, {})",
                                    limits.sheet > 0 ? flops / limits.sheet : 0.0, loss,
                                    memory_row(session, bench.gpu->memory()));
    }
    bench.rows->add("{" + row + "}");
    std::fflush(stdout);
    profile(bench, session, "train " + name, session.program().phase(PhaseKind::step)->entries,
            median(times), limits, 0);
}

// Small random numbers of a dtype, the same 4099 again and again.
std::vector<char> small_numbers(Dtype dtype, int64_t count) {
    std::vector<uint32_t> values(4099);
    for (size_t i = 0; i < values.size(); ++i)
        values[i] = std::bit_cast<uint32_t>(static_cast<float>(random_uniform(3, i)) * 0.02f);
    std::vector<char> numbers(static_cast<size_t>(count * dtype_bytes(dtype)));
    const auto size = static_cast<int64_t>(values.size());
    for (int64_t first = 0; first < count; first += size)
        put_weights({dtype, numbers.data(), nullptr}, first, std::min(size, count - first), "param",
                    Dtype::f32, values.data());
    return numbers;
}

void fill_weights(Session& session) {
    constexpr int64_t kPiece = 1024 * 4099;
    int64_t largest = 0;
    for (const Param& param : session.program().params)
        largest = std::max(largest, param.elements());
    const int64_t piece = std::min(largest, kPiece);
    const std::vector<char> halves =
        small_numbers(program_dtype(session.config(), Purpose::generate), piece);
    const std::vector<char> floats = small_numbers(Dtype::f32, piece);
    for (const Param& param : session.program().params) {
        const Dtype dtype = session.program().tensors[static_cast<size_t>(param.weight)].dtype;
        const std::vector<char>& numbers = dtype == Dtype::f32 ? floats : halves;
        for (int64_t first = 0; first < param.elements(); first += piece)
            session.executor().write(
                param.weight, first * dtype_bytes(dtype), numbers.data(),
                std::min(piece, param.elements() - first) * dtype_bytes(dtype));
    }
}

// Bytes that a decode step reads: every matrix once, and of each sequence's cache the positions so
// far.
double decode_bytes(const ModelSpec& model, Dtype dtype, double batch, double positions) {
    const double cache = 2 * batch * positions *
                         static_cast<double>(model.num_hidden_layers * model.key_value_size());
    return static_cast<double>(dtype_bytes(dtype)) *
           (static_cast<double>(matmul_parameter_count(model)) + cache);
}

void bench_generate(Bench& bench, const RunConfig& config, const std::string& name, int64_t prompt,
                    int count) {
    if (("decode " + name).find(bench.filter) == std::string::npos) return;
    const Dtype dtype = program_dtype(config, Purpose::generate);
    const Limits limits = limits_of(bench, dtype, device_of(config));
    Session session(config, Purpose::generate, bench.red_zone_bytes());
    fill_weights(session);
    Generator generator(session);
    std::vector<int32_t> tokens(static_cast<size_t>(prompt));
    for (size_t i = 0; i < tokens.size(); ++i)
        tokens[i] = static_cast<int32_t>(static_cast<int64_t>(i) % config.model.vocab_size);
    for (int64_t n = 0; n < generator.batch(); ++n) generator.start(tokens.data(), prompt, {}, n);
    const double prefill = seconds_of([&] { generator.start(tokens.data(), prompt, {}); });
    std::vector<double> times;
    for (int i = 0; i < count; ++i) times.push_back(seconds_of([&] { generator.next(); }));
    const double matmul = static_cast<double>(matmul_parameter_count(config.model));
    const double prefill_rate = static_cast<double>(prompt) / prefill;
    const double prefill_limit = limits.flops / (2 * matmul);
    const auto batch = static_cast<double>(generator.batch());
    const double decode_rate = batch / median(times);
    const double bytes =
        decode_bytes(config.model, dtype, batch, static_cast<double>(prompt) + count / 2.0);
    const double read_limit = batch * limits.bandwidth / bytes;
    const bool reads = read_limit < prefill_limit;
    const double decode_limit = reads ? read_limit : prefill_limit;
    fmt::print("{:<34} {:>9.1f} tok/s   limit {:.1f} by {:.1f} GFLOP/s: {:.1f} %\n",
               fmt::format("prefill {} {} {}", name, prompt, value_dtype_name(dtype)), prefill_rate,
               prefill_limit, limits.flops / 1e9, 100 * prefill_rate / prefill_limit);
    fmt::print("{:<34} {:>9.1f} tok/s   limit {:.1f} by {:.1f} {}: {:.1f} %\n",
               generator.batch() == 1 ? fmt::format("decode {} {}", name, value_dtype_name(dtype))
                                      : fmt::format("decode {} x {} {}", name, generator.batch(),
                                                    value_dtype_name(dtype)),
               decode_rate, decode_limit, (reads ? limits.bandwidth : limits.flops) / 1e9,
               reads ? "GB/s" : "GFLOP/s", 100 * decode_rate / decode_limit);
    bench.rows->add(testing::json_format(
        R"({{"decode": "{}", "batch": {}, "prompt": {}, "dtype": "{}", "tokens_per_s": {:.2f}, )"
        R"("bytes_per_step": {:.6g}, "measured_bytes_s": {:.6g}, "share": {:.4f}, )"
        R"("prefill_tokens_per_s": {:.1f}}})",
        name, generator.batch(), prompt, value_dtype_name(dtype), decode_rate, bytes,
        limits.bandwidth, decode_rate / decode_limit, prefill_rate));
    std::fflush(stdout);
    const std::span<const Entry> entries = session.program().phase(PhaseKind::generate)->entries;
    profile(bench, session, "decode " + name, entries.subspan(1, 1), median(times), limits,
            generator.position());
}

// Trains or generates `micro_batch` sequences at once.
RunConfig config_of(const Bench& bench, const std::string& preset, int64_t micro_batch,
                    int64_t length, int64_t threads, const std::vector<std::string>& more = {}) {
    std::vector<std::string> overrides = {fmt::format("batch.micro_batch={}", micro_batch),
                                          fmt::format("batch.global_batch={}", micro_batch),
                                          fmt::format("batch.sequence_length={}", length),
                                          fmt::format("generate.batch={}", micro_batch),
                                          fmt::format("run.threads={}", threads),
                                          "train.sample_tokens=0"};
    if (bench.gpu != nullptr)
        overrides.push_back(std::string("run.device=cuda-") + isa_name(bench.gpu->isa()));
    overrides.insert(overrides.end(), more.begin(), more.end());
    return resolved(load_run(preset, overrides));
}

void bench_cpu(Bench& bench, int64_t threads) {
    bench_step(bench, config_of(bench, "tiny", 4, 256, threads), "tiny");
    bench_generate(bench, config_of(bench, "tiny", 1, 256, threads), "tiny", 128, 64);
    if (bench.smoke) return;
    bench_step(bench, config_of(bench, "gpt2-124m", 4, 64, threads), "gpt2-124m");
    bench_step(bench, config_of(bench, "gpt2-124m", 4, 256, threads), "gpt2-124m");
    for (const int64_t batch : {1, 4, 16})
        bench_generate(bench, config_of(bench, "gpt2-124m", batch, 256, threads), "gpt2-124m", 512,
                       16);
}

// What a GPU of 80 GB and more trains alone, and decodes of Llama's shapes. Of Llama 7B eight
// blocks: the same products and nearly the same share of head and optimizer as in all 32, whose
// state (108 GB) leaves no room for a batch that a GPU likes.
void bench_gpu(Bench& bench) {
    const std::vector<std::string> small = {"model.num_hidden_layers=1"};
    if (bench.smoke) {
        bench_step(bench, config_of(bench, "tiny", 1, 32, 1, small), "tiny");
        bench_generate(bench, config_of(bench, "tiny", 1, 32, 1, small), "tiny", 5, 2);
        return;
    }
    const auto where_it_fits = [](const char* name, const auto& row) {
        try {
            row(name);
        } catch (const Error& error) {
            if (error.code() != ExitCode::does_not_fit) throw;
            fmt::print("{} is left out: {}\n", name, error.what());
        }
    };
    const auto train = [&](const char* preset, int64_t batch, int64_t length,
                           const std::vector<std::string>& more) {
        where_it_fits(preset, [&](const char* name) {
            bench_step(bench, config_of(bench, preset, batch, length, 0, more), name);
        });
    };
    const auto decode = [&](const char* label, const std::vector<std::string>& more) {
        where_it_fits(label, [&](const char* name) {
            bench_generate(bench, config_of(bench, "llama2-7b", 1, 1024, 0, more), name, 1024, 64);
        });
    };
    train("gpt2-124m", 16, 1024, {});
    train("gpt2-1558m", 16, 1024, {});
    train("llama2-7b", 4, 4096, {"model.num_hidden_layers=8"});
    // The shape of TinyLlama 1.1B.
    decode("llama-1b", {"model.hidden_size=2048", "model.num_hidden_layers=22",
                        "model.num_attention_heads=32", "model.num_key_value_heads=4",
                        "model.intermediate_size=5632", "model.max_position_embeddings=2048"});
    decode("llama2-7b", {});
}

int run(int argc, char** argv) {
    CLI::App app("Whole steps, prefill and decode beside their limits");
    Bench bench;
    bool on_gpu = false, decode = false;
    int64_t threads = 0, micro_batch = 4, length = 256;
    std::string preset, json, profiles;
    app.add_flag("--smoke", bench.smoke, "Tiny shapes, seconds");
    app.add_flag("--gpu", on_gpu, "On the GPU instead of the CPU");
    app.add_option("--threads", threads, "0: all cores");
    app.add_option("--preset", preset, "One model instead of the list");
    app.add_flag("--decode", decode, "Generate instead of training, with --preset");
    app.add_option("--batch", micro_batch, "Sequences, with --preset");
    app.add_option("--length", length, "Tokens per sequence or of the prompt, with --preset");
    app.add_option("--steps", bench.steps, "Timed steps per row")->check(CLI::PositiveNumber);
    app.add_option("--filter", bench.filter, "Only rows whose name, \"train tiny\", holds this");
    app.add_option("--json", json, "Write the rows to this file");
    app.add_option("--profile", profiles,
                   "Time each row's ops too, print them, and write them to this file");
    app.footer("With --preset, any setting as --section.key=value.");
    app.allow_extras();
    try {
        app.parse(argc, argv);
    } catch (const CLI::Success& success) {
        return app.exit(success);
    } catch (const CLI::ParseError& error) {
        throw Error(ExitCode::bad_input, error.what());
    }
    if (preset.empty() && !app.remaining().empty())
        throw Error(ExitCode::bad_input, app.remaining().front() + ": settings need --preset");
    if (on_gpu) bench.gpu = testing::open_tuned_gpu();
    const std::string head =
        testing::json_format(R"("device": "{}")", bench.gpu == nullptr ? "cpu" : bench.gpu->name());
    bench.rows.emplace(json, head, "rows");
    if (!profiles.empty()) bench.profiles.emplace(profiles, head, "profiles");
    if (preset.empty() && on_gpu) {
        bench_gpu(bench);
    } else if (preset.empty()) {
        bench_cpu(bench, threads);
    } else {
        const RunConfig config =
            config_of(bench, preset, micro_batch, length, threads, app.remaining());
        if (decode)
            bench_generate(bench, config, preset, length, 64);
        else
            bench_step(bench, config, preset);
    }
    if (!bench.failed.empty()) {
        fmt::print(stderr, "{}", bench.failed);
        return 1;
    }
    if (bench.rows->empty())
        throw Error(ExitCode::bad_input, "--filter " + bench.filter + ": no row has such a name");
    return 0;
}

}  // namespace
}  // namespace plumb

int main(int argc, char** argv) {
    plumb::spin_briefly(argv);
    return plumb::run_main([&] { return plumb::run(argc, argv); });
}
