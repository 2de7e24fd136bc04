// Every CPU kernel on the shapes of GPT-2 124M beside its limit, both measured in this run: the
// peak of multiply-adds on registers for ops that compute, the bandwidth of a copy for those that
// move memory. An op's least time is the larger of flops / peak and bytes / bandwidth; `share` is
// that over the measured time (the best of several runs). Bytes count every operand once per
// access, so small operands that stay in cache can pass 100%.
//   kernels_bench [--smoke] [--threads N] [--isa portable|avx2|avx512|avx512_bf16] [--filter TEXT]
//   [--dtype f32|bf16|f16] [--cpu-clock]
// Path: cold.
#include <fmt/format.h>
#include <time.h>

#include <algorithm>
#include <cstdlib>

#include "perf/bench_case.h"

namespace plumb::testing {
namespace {

// Seconds of the wall clock, or with --cpu-clock of this thread (one thread on a busy machine).
clockid_t bench_clock = CLOCK_MONOTONIC;

double now() {
    timespec t{};
    clock_gettime(bench_clock, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}
double seconds_since(double start) {
    return now() - start;
}

struct Options {
    bool smoke = false;
    int32_t threads = 2;
    Isa isa = host_isa();
    Dtype dtype = Dtype::f32;
    std::string filter;
};

struct Limits {
    double peak_flops;
    double read_bandwidth;
    double copy_bandwidth;
};

double measure_copy_bandwidth(int32_t threads, char* buffer, int64_t size_bytes) {
    double best = 0;
    const int64_t half = size_bytes / 2;
    for (int run = 0; run < 5; ++run) {
        const auto start = now();
#pragma omp parallel for num_threads(threads) schedule(static)
        for (int64_t i = 0; i < half / 4096; ++i)
            std::memcpy(buffer + i * 4096, buffer + half + i * 4096, 4096);
        best = std::max(best, static_cast<double>(2 * half) / seconds_since(start));
    }
    return best;
}

Limits measure_limits(const Options& options) {
    std::vector<char> buffer(static_cast<size_t>(options.smoke ? 8 * kMiB : 256 * kMiB), 1);
    const auto size = static_cast<int64_t>(buffer.size());
    return {measure_peak_flops(options.isa, options.threads, options.dtype),
            measure_read_bandwidth(options.threads, buffer.data(), size),
            measure_copy_bandwidth(options.threads, buffer.data(), size)};
}

Values values_for(const KernelCase& c) {
    Values values = fill_case(c, 3);
    set_bench_values(c, &values);
    return values;
}

double best_seconds(BoundCase& bound, double budget_s) {
    bound.run();
    double best = 1e9;
    const auto start = now();
    for (int run = 0; run < 3 || (run < 50 && seconds_since(start) < budget_s); ++run) {
        const auto begin = now();
        bound.run();
        best = std::min(best, seconds_since(begin));
    }
    return best;
}

void print_case(const KernelCase& c, const Options& options, const Limits& limits) {
    BoundCase bound(c, values_for(c), options.isa, options.threads);
    const double seconds = best_seconds(bound, options.smoke ? 0.0 : 0.4);
    const double flops = flops_of(c), bytes = bytes_of(c);
    const double compute_s = flops / limits.peak_flops, memory_s = bytes / limits.copy_bandwidth;
    const char* limit = compute_s > memory_s ? "flops" : "bytes";
    fmt::print("{:44} {:10.3f} {:10.1f} {:9.1f}  {} {:6.1f}%\n", c.name, seconds * 1e3,
               flops / seconds * 1e-9, bytes / seconds * 1e-9, limit,
               100 * std::max(compute_s, memory_s) / seconds);
}

Dtype dtype_of(const std::string& name) {
    for (const Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::f16})
        if (dtype_name(dtype) == name) return dtype;
    fmt::print(stderr, "error: --dtype {}: not a value dtype (f32, bf16, f16)\n", name);
    std::exit(2);
}

Options parse(int argc, char** argv) {
    Options options;
    for (int i = 1; i < argc; ++i) {
        const std::string flag = argv[i];
        const char* value = i + 1 < argc ? argv[i + 1] : nullptr;
        if (flag == "--smoke") {
            options.smoke = true;
        } else if (flag == "--cpu-clock") {
            bench_clock = CLOCK_THREAD_CPUTIME_ID;
            options.threads = 1;
        } else if (flag == "--threads" && value != nullptr && std::atoi(value) > 0) {
            options.threads = std::atoi(argv[++i]);
        } else if (flag == "--filter" && value != nullptr) {
            options.filter = argv[++i];
        } else if (flag == "--dtype" && value != nullptr) {
            options.dtype = dtype_of(argv[++i]);
        } else if (flag == "--isa" && value != nullptr) {
            ++i;
            bool known = false;
            for (const Isa isa : tested_isas()) {
                if (isa_name(isa) != std::string(value)) continue;
                options.isa = isa;
                known = true;
            }
            if (!known) {
                fmt::print(stderr,
                           "error: --isa {}: not an instruction set of this machine "
                           "(portable .. {})\n",
                           value, isa_name(host_isa()));
                std::exit(2);
            }
        } else {
            fmt::print(stderr,
                       "error: {}: known are --smoke, --threads N, --isa NAME, --dtype "
                       "NAME, --filter TEXT, --cpu-clock\n",
                       flag);
            std::exit(2);
        }
    }
    return options;
}

}  // namespace
}  // namespace plumb::testing

int main(int argc, char** argv) {
    using namespace plumb;
    using namespace plumb::testing;
    const Options options = parse(argc, argv);
    const Limits limits = measure_limits(options);
    fmt::print("{} {} threads {}: peak {:.1f} Gflop/s, read {:.1f} GB/s, copy {:.1f} GB/s\n",
               isa_name(options.isa), dtype_name(options.dtype), options.threads,
               limits.peak_flops * 1e-9, limits.read_bandwidth * 1e-9,
               limits.copy_bandwidth * 1e-9);
    fmt::print("{:44} {:>10} {:>10} {:>9}  {:>5} {:>7}\n", "kernel", "ms", "Gflop/s", "GB/s",
               "limit", "share");
    const auto cases =
        options.smoke ? model_cases(1, 16, 256, 500) : model_cases(2, 512, 768, 50257);
    for (const KernelCase& of_f32 : cases) {
        const KernelCase c = in_dtype(of_f32, options.dtype);
        const Kernel* row = kernel_table(options.isa).kernel[static_cast<int>(c.kind)];
        if (row[value_index(c.value_dtype)] == nullptr) continue;
        if (c.name.find(options.filter) != std::string::npos) print_case(c, options, limits);
    }
    return 0;
}
