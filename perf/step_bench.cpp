// Times whole training steps, prefill and decode of a model with random weights and tokens, beside
// the limits that the same run measures: model flops over the peak of register-only multiply-adds,
// and, for decode, the bytes of all weights over the read bandwidth. Medians over the steps; the
// first step is not counted.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <bit>
#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

#include "runtime/base/error.h"
#include "runtime/base/random.h"
#include "runtime/engine/generate.h"
#include "runtime/engine/session.h"
#include "runtime/engine/state_records.h"
#include "runtime/exec/wait_policy.h"

namespace plumb {
namespace {

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

void bench_step(const RunConfig& config, const std::string& name, int steps) {
    Session session(config, Purpose::train);
    session.run_phase(PhaseKind::initialise);
    fill_rows(session);
    Executor& executor = session.executor();
    StepScalars& scalars = executor.scalars();
    scalars.lr = 1e-4;
    scalars.beta1 = 0.9;
    scalars.beta2 = 0.95;
    scalars.eps = 1e-8;
    scalars.weight_decay = 0.1;
    scalars.clip = 1.0;
    scalars.bias_correction1 = 1 - scalars.beta1;
    scalars.bias_correction2 = 1 - scalars.beta2;
    scalars.inverse_weight_sum = 1.0 / static_cast<double>(config.run.batch.step_tokens());
    std::vector<double> times;
    double by_section[static_cast<int>(SectionKind::count)] = {};
    for (int step = 0; step <= steps; ++step) {
        double total = 0;
        for (const Entry& entry : session.program().phase(PhaseKind::step)->entries) {
            const double seconds = seconds_of([&] { executor.run(entry); });
            const Section& section = session.program().sections[static_cast<size_t>(entry.section)];
            if (step > 0) by_section[static_cast<int>(section.kind)] += seconds;
            total += seconds;
        }
        if (step > 0) times.push_back(total);
    }
    const double seconds = median(times);
    const Dtype dtype = program_dtype(config, Purpose::train);
    const double peak = measure_peak_flops(session.device().isa, session.device().threads, dtype);
    const double tokens = static_cast<double>(config.run.batch.step_tokens());
    const double rate = tokens / seconds;
    const double model_flops =
        flops_per_token(config.model, config.run.batch.sequence_length) * rate;
    fmt::print(
        "{:<34} {:>9.1f} tok/s {:>8.1f} of {:>6.1f} GFLOP/s {:>5.1f} %   limit {:.0f} tok/s\n",
        fmt::format("train {} B={} T={} {}", name, config.run.batch.micro_batch,
                    config.run.batch.sequence_length, value_dtype_name(dtype)),
        rate, model_flops / 1e9, peak / 1e9, 100 * model_flops / peak,
        peak / flops_per_token(config.model, config.run.batch.sequence_length));
    for (const SectionKind kind :
         {SectionKind::forward, SectionKind::backward, SectionKind::update})
        fmt::print("  {:<10} {:>8.1f} ms per step\n", section_kind_name(kind),
                   1e3 * by_section[static_cast<int>(kind)] / steps);
    std::fflush(stdout);
}

void bench_generate(const RunConfig& config, const std::string& name, int64_t prompt, int count) {
    Session session(config, Purpose::generate);
    std::vector<uint32_t> values(4099);
    for (size_t i = 0; i < values.size(); ++i)
        values[i] = std::bit_cast<uint32_t>(static_cast<float>(random_uniform(3, i)) * 0.02f);
    for (const Param& param : session.program().params) {
        const Dtype dtype = session.program().tensors[static_cast<size_t>(param.weight)].dtype;
        const WeightPlace place{dtype, session.executor().data<char>(param.weight), nullptr};
        const auto size = static_cast<int64_t>(values.size());
        for (int64_t first = 0; first < param.elements(); first += size)
            put_weights(place, first, std::min(size, param.elements() - first), "param", Dtype::f32,
                        values.data());
    }
    Generator generator(session);
    std::vector<int32_t> tokens(static_cast<size_t>(prompt));
    for (size_t i = 0; i < tokens.size(); ++i)
        tokens[i] = static_cast<int32_t>(static_cast<int64_t>(i) % config.model.vocab_size);
    for (int64_t n = 0; n < generator.batch(); ++n) generator.start(tokens.data(), prompt, {}, n);
    const double prefill = seconds_of([&] { generator.start(tokens.data(), prompt, {}); });
    std::vector<double> times;
    for (int i = 0; i < count; ++i) times.push_back(seconds_of([&] { generator.next(); }));
    const int32_t threads = session.device().threads;
    const Dtype dtype = program_dtype(config, Purpose::generate);
    const double peak = measure_peak_flops(session.device().isa, threads, dtype);
    std::vector<char> buffer(static_cast<size_t>(256 * kMiB), 1);
    const double bandwidth =
        measure_read_bandwidth(threads, buffer.data(), static_cast<int64_t>(buffer.size()));
    const double matmul = static_cast<double>(matmul_parameter_count(config.model));
    const double prefill_rate = static_cast<double>(prompt) / prefill;
    const double prefill_limit = peak / (2 * matmul);
    // A decode reads every weight once for all sequences.
    const auto batch = static_cast<double>(generator.batch());
    const double decode_rate = batch / median(times);
    const double read_limit =
        batch * bandwidth / (static_cast<double>(dtype_bytes(dtype)) * matmul);
    const bool reads = read_limit < prefill_limit;
    const double decode_limit = reads ? read_limit : prefill_limit;
    fmt::print("{:<34} {:>9.1f} tok/s   limit {:.1f} by {:.1f} GFLOP/s: {:.1f} %\n",
               fmt::format("prefill {} {} {}", name, prompt, value_dtype_name(dtype)), prefill_rate,
               prefill_limit, peak / 1e9, 100 * prefill_rate / prefill_limit);
    fmt::print("{:<34} {:>9.1f} tok/s   limit {:.1f} by {:.1f} {}: {:.1f} %\n",
               generator.batch() == 1 ? fmt::format("decode {} {}", name, value_dtype_name(dtype))
                                      : fmt::format("decode {} x {} {}", name, generator.batch(),
                                                    value_dtype_name(dtype)),
               decode_rate, decode_limit, (reads ? bandwidth : peak) / 1e9,
               reads ? "GB/s read" : "GFLOP/s", 100 * decode_rate / decode_limit);
    std::fflush(stdout);
}

// Trains or generates `micro_batch` sequences at once.
RunConfig config_of(const std::string& preset, int64_t micro_batch, int64_t length, int64_t threads,
                    const std::vector<std::string>& more = {}) {
    std::vector<std::string> overrides = {fmt::format("batch.micro_batch={}", micro_batch),
                                          fmt::format("batch.global_batch={}", micro_batch),
                                          fmt::format("batch.sequence_length={}", length),
                                          fmt::format("generate.batch={}", micro_batch),
                                          fmt::format("run.threads={}", threads),
                                          "train.sample_tokens=0"};
    overrides.insert(overrides.end(), more.begin(), more.end());
    return resolved(load_run(preset, overrides));
}

int run(int argc, char** argv) {
    CLI::App app("Whole steps, prefill and decode beside their limits");
    bool smoke = false;
    int64_t threads = 0;
    std::string preset;
    int64_t micro_batch = 4, length = 256;
    int steps = 3;
    app.add_flag("--smoke", smoke, "Tiny shapes, seconds");
    app.add_option("--threads", threads, "0: all cores");
    app.add_option("--preset", preset, "One model instead of the list");
    app.add_option("--batch", micro_batch, "Sequences, with --preset");
    app.add_option("--length", length, "Tokens per sequence, with --preset");
    app.add_option("--steps", steps, "Timed steps per row")->check(CLI::PositiveNumber);
    app.footer("With --preset, any setting as --section.key=value.");
    app.allow_extras();
    try {
        app.parse(argc, argv);
    } catch (const CLI::Success& success) {
        return app.exit(success);
    } catch (const CLI::ParseError& error) {
        throw Error(ExitCode::bad_input, error.what());
    }
    if (!preset.empty()) {
        bench_step(config_of(preset, micro_batch, length, threads, app.remaining()), preset, steps);
        return 0;
    }
    if (!app.remaining().empty())
        throw Error(ExitCode::bad_input, app.remaining().front() + ": settings need --preset");
    bench_step(config_of("tiny", 4, 256, threads), "tiny", steps);
    bench_generate(config_of("tiny", 1, 256, threads), "tiny", 128, 64);
    if (smoke) return 0;
    bench_step(config_of("gpt2-124m", 4, 64, threads), "gpt2-124m", steps);
    bench_step(config_of("gpt2-124m", 4, 256, threads), "gpt2-124m", steps);
    for (const int64_t batch : {1, 4, 16})
        bench_generate(config_of("gpt2-124m", batch, 256, threads), "gpt2-124m", 512, 16);
    return 0;
}

}  // namespace
}  // namespace plumb

int main(int argc, char** argv) {
    plumb::spin_briefly(argv);
    return plumb::run_main([&] { return plumb::run(argc, argv); });
}
