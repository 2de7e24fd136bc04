// Every kernel of a GPU on the shapes of models beside its limit, both measured in this run: the
// rate of a large matrix product by the same path for ops that compute, the bandwidth of a copy
// within the GPU's memory for those that move it. An op's least time is the larger of flops / rate
// and bytes / bandwidth (bench_case.h); `share` is that over the measured time, a median. How calls
// are timed and kept out of the cache stands in gpu_case.h.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>
#include <vector>

#include "perf/gpu_case.h"
#include "perf/json_rows.h"
#include "runtime/base/error.h"
#include "runtime/config/run_config.h"

namespace plumb::testing {
namespace {

// What a memory-bound kernel should reach of the bandwidth of a copy.
constexpr double kTarget = 0.85;

struct Options {
    bool smoke = false;
    std::string dtype = "bf16";
    std::string filter;
    std::string json;
};

struct Row {
    const char* model;
    KernelCase c;
};

struct Result {
    double seconds, flops, bytes, share;
    bool computes;  // its limit is the rate of products
};

// A block's matrices, forward and backward; products add a bias where the model has one.
struct Matrix {
    int64_t in, out;
    Epilogue epilogue;
};
void add_products(const char* model, int64_t n, std::initializer_list<Matrix> matrices, bool bias,
                  std::vector<Row>* rows) {
    for (const Matrix& m : matrices) {
        rows->push_back({model, matmul_case(n, m.in, m.out, m.epilogue)});
        rows->push_back({model, matmul_dx_case(n, m.in, m.out, false)});
        rows->push_back({model, matmul_dw_case(n, m.in, m.out, true, bias)});
    }
}

void add_attention(const char* model, int64_t b, int64_t t, Heads heads, std::vector<Row>* rows) {
    rows->push_back({model, attention_case(OpKind::attention, b, t, heads)});
    rows->push_back({model, attention_case(OpKind::attention_backward, b, t, heads)});
}

// Chunks as training makes them by itself on a CPU and on a GPU.
void add_losses(const char* model, int64_t n, int64_t d, int64_t v, std::vector<Row>* rows) {
    for (const int64_t chunk :
         {automatic_loss_chunk(v, n, false), automatic_loss_chunk(v, n, true)})
        rows->push_back({model, head_loss_case(true, n, d, v, chunk)});
    rows->push_back({model, head_loss_case(false, n, d, v, automatic_loss_chunk(v, n, true))});
}

// GPT-2 124M, 16 sequences of 1024 tokens, and its optimizer step.
void add_gpt2(bool smoke, std::vector<Row>* rows) {
    const char* const model = "gpt2-124m";
    const int64_t b = smoke ? 1 : 16, t = smoke ? 16 : 1024, heads = smoke ? 2 : 12;
    const int64_t v = smoke ? 500 : 50257, d = heads * 64, f = 4 * d, n = b * t;
    rows->push_back({model, embed_case(false, b, t, d, v, t)});
    rows->push_back({model, embed_case(true, b, t, d, v, t)});
    rows->push_back({model, norm_case(n, d, NormKind::layer, true, true)});
    rows->push_back({model, norm_backward_case(n, d, NormKind::layer, true, true)});
    add_products(model, n,
                 {{d, 3 * d, {true, false, false, false}},
                  {d, d, {true, false, false, true}},
                  {d, f, {true, true, true, false}},
                  {f, d, {true, false, false, true}}},
                 true, rows);
    add_attention(model, b, t, {heads, heads, 64}, rows);
    rows->push_back({model, flat_case(OpKind::gelu, n * f)});
    rows->push_back({model, flat_case(OpKind::gelu_backward, n * f)});
    rows->push_back({model, flat_case(OpKind::add, n * d)});
    add_losses(model, n, d, v, rows);
    for (const OpKind kind : {OpKind::fold, OpKind::grad_norm, OpKind::adamw, OpKind::digest,
                              OpKind::init, OpKind::zero})
        rows->push_back({model, flat_case(kind, smoke ? 5000 : 124'439'808)});
    rows->push_back({model, flat_case(OpKind::clip, 4)});
}

// A block of Llama 7B on one sequence of 4096 tokens, and the grouped queries of Llama 3 8B.
void add_llama(bool smoke, std::vector<Row>* rows) {
    const char* const model = "llama-7b";
    const int64_t t = smoke ? 16 : 4096, heads = smoke ? 2 : 32, d = heads * 128;
    const int64_t f = smoke ? 384 : 11008, v = smoke ? 300 : 32000;
    const Heads all{heads, heads, 128}, grouped{heads, smoke ? 1 : 8, 128};
    rows->push_back({model, embed_case(false, 1, t, d, v, 0)});
    rows->push_back({model, embed_case(true, 1, t, d, v, 0)});
    rows->push_back({model, norm_case(t, d, NormKind::rms, false, true)});
    rows->push_back({model, norm_backward_case(t, d, NormKind::rms, true, true)});
    rows->push_back({model, attention_case(OpKind::rope, 1, t, all)});
    add_products(model, t,
                 {{d, 3 * d, {false, false, false, false}},
                  {d, d, {false, false, false, true}},
                  {d, 2 * f, {false, false, false, false}},
                  {f, d, {false, false, false, true}}},
                 false, rows);
    add_attention(model, 1, t, all, rows);
    add_attention(model, 1, t, grouped, rows);
    rows->push_back({model, swiglu_case(false, t, f)});
    rows->push_back({model, swiglu_case(true, t, f)});
    add_losses(model, t, d, v, rows);
}

// One token of one sequence: every matrix read once, row by row, and a long cache.
void add_decode(bool smoke, std::vector<Row>* rows) {
    const char* const model = "decode-7b";
    const int64_t heads = smoke ? 2 : 32, d = heads * 128, f = smoke ? 384 : 11008;
    const int64_t cache = smoke ? 200 : 4096, v = smoke ? 1000 : 128256;
    for (const auto& [in, out] : {std::pair{d, 3 * d}, {d, d}, {d, 2 * f}, {f, d}, {d, v}}) {
        KernelCase c = matmul_case(1, in, out, {false, false, false, false});
        c.attrs.matmul.by_row = 1;
        c.attrs.matmul.wide = out == v ? 1 : 0;
        rows->push_back({model, c});
    }
    rows->push_back({model, norm_case(1, d, NormKind::rms, false, false)});
    for (const int64_t kv_heads : {heads, heads / (smoke ? 2 : 4)})
        for (const int64_t positions : {cache, 8 * cache})
            rows->push_back({model, attention_case(OpKind::attention_cached, 1, 1,
                                                   {heads, kv_heads, 128}, positions)});
    rows->push_back({model, sample_case(1, v)});
}

Result measure(GpuBench& bench, const KernelCase& c, const GpuLimits& limits) {
    const double flops = flops_of(c), bytes = bytes_of(c);
    const double compute_s = flops / limits.matrix_flops;
    const double memory_s = bytes / limits.copy_bandwidth();
    const double seconds = GpuCase(bench, c).measure().median_s;
    return {seconds, flops, bytes, std::max(compute_s, memory_s) / seconds, compute_s > memory_s};
}

void print_row(const Row& row, const Result& r) {
    fmt::print("{:10} {:44} {:10.1f} {:9.1f} {:9.1f}  {} {:6.1f}%{}\n", row.model, row.c.name,
               r.seconds * 1e6, r.flops / r.seconds * 1e-12, r.bytes / r.seconds * 1e-9,
               r.computes ? "flops" : "bytes", 100 * r.share,
               !r.computes && r.share < kTarget ? "  below target" : "");
    std::fflush(stdout);
}

std::string json_of(const Row& row, const Result& r) {
    return json_format(R"({{"model": "{}", "kernel": "{}", "us": {:.2f}, "flops": {:.6g}, )"
                       R"("bytes": {:.6g}, "limit": "{}", "share": {:.4f}}})",
                       row.model, row.c.name, r.seconds * 1e6, r.flops, r.bytes,
                       r.computes ? "flops" : "bytes", r.share);
}

std::string json_of(const Gpu& gpu, const Options& options, const GpuLimits& limits) {
    return json_format(R"("gpu": "{}", "dtype": "{}", "fold_gb_s": {:.1f}, "memcpy_gb_s": {:.1f}, )"
                       R"("matrix_tflop_s": {:.2f})",
                       gpu.name(), options.dtype, limits.fold_bandwidth * 1e-9,
                       limits.memcpy_bandwidth * 1e-9, limits.matrix_flops * 1e-12);
}

Dtype dtype_of(const std::string& name) {
    for (const Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::f16})
        if (dtype_name(dtype) == name) return dtype;
    throw Error(ExitCode::bad_input, "--dtype " + name + ": not a value dtype (f32, bf16, f16)");
}

Options parse(int argc, char** argv) {
    Options options;
    CLI::App app("Every kernel of a GPU beside its limit");
    app.add_flag("--smoke", options.smoke, "Tiny shapes: every kernel runs, times mean nothing");
    app.add_option("--dtype", options.dtype, "Of the values: f32, bf16, f16");
    app.add_option("--filter", options.filter, "Only kernels whose name holds this");
    app.add_option("--json", options.json, "Write the results to this file");
    try {
        app.parse(argc, argv);
    } catch (const CLI::CallForHelp& help) {
        std::exit(app.exit(help));
    } catch (const CLI::ParseError& error) {
        throw Error(ExitCode::bad_input, error.what());
    }
    return options;
}

int run(int argc, char** argv) {
    const Options options = parse(argc, argv);
    const Dtype dtype = dtype_of(options.dtype);
    const std::unique_ptr<Gpu> gpu = open_tuned_gpu();
    GpuBench bench(*gpu, dtype, options.smoke);
    const GpuLimits limits = measure_gpu_limits(bench, dtype, options.smoke);
    fmt::print("{} {}: products {:.1f} Tflop/s; fold {:.1f} GB/s, memcpy {:.1f} GB/s\n",
               gpu->name(), options.dtype, limits.matrix_flops * 1e-12,
               limits.fold_bandwidth * 1e-9, limits.memcpy_bandwidth * 1e-9);
    fmt::print("{:10} {:44} {:>10} {:>9} {:>9}  {:>5} {:>7}\n", "model", "kernel", "us", "Tflop/s",
               "GB/s", "limit", "share");
    std::vector<Row> rows;
    add_gpt2(options.smoke, &rows);
    add_llama(options.smoke, &rows);
    add_decode(options.smoke, &rows);
    JsonRows kernels(options.json, json_of(*gpu, options, limits), "kernels");
    int memory_bound = 0, reached = 0;
    for (Row& row : rows) {
        if (row.c.name.find(options.filter) == std::string::npos) continue;
        // Some ops have no values: gradients and state are f32.
        if (kernel_of(row.c.kind, dtype, gpu->isa()) != nullptr) row.c = in_dtype(row.c, dtype);
        const Result result = measure(bench, row.c, limits);
        print_row(row, result);
        kernels.add(json_of(row, result));
        if (result.computes) continue;
        ++memory_bound;
        if (result.share >= kTarget) ++reached;
    }
    fmt::print("{} of {} memory-bound kernels reach {:.0f} % of the copy\n", reached, memory_bound,
               100 * kTarget);
    return 0;
}

}  // namespace
}  // namespace plumb::testing

int main(int argc, char** argv) {
    return plumb::run_main([&] { return plumb::testing::run(argc, argv); });
}
