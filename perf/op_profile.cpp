#include "perf/op_profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <vector>

#include "perf/bench_case.h"
#include "perf/json_rows.h"

namespace plumb::testing {
namespace {

constexpr int kSamples = 5;
constexpr size_t kWorstOps = 20;
// Ops this small are repeated in one graph, so that what a graph itself costs is shared by many.
constexpr int64_t kGraphCalls = 64;

struct Call {
    const Entry* entry;
    int32_t op;
};

// Equal ops, or after by_kind() all of a kind: sums over the calls of one run of the entries.
struct Cost {
    std::string name;
    std::vector<Call> calls;
    double flops = 0, bytes = 0, seconds = 0;
    double least_s = 0, compute_least_s = 0;  // the second: of ops whose limit is that of products

    double lost_s() const { return seconds - least_s; }
    const char* limit() const { return 2 * compute_least_s > least_s ? "flops" : "bytes"; }
};

double seconds_of(const auto& body) {
    const auto start = std::chrono::steady_clock::now();
    body();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// "matmul_dx 4x256x128+ 4x256x384 384x128": operands in their order, "-" absent, "+" updated.
std::string name_of(const KernelCase& c) {
    std::string name = op_row(c.kind).name;
    for (int i = 0; i < c.operands(); ++i) {
        name += c.shape[i].rank == 0 ? " -" : " ";
        for (int d = 0; d < c.shape[i].rank; ++d)
            name += fmt::format("{}{}", d == 0 ? "" : "x", c.shape[i].dim[d]);
        if (c.shape[i].rank > 0 && c.updates(i)) name += "+";
    }
    return name;
}

KernelCase case_of(const Program& program, const Op& op, int64_t cached_positions) {
    KernelCase c;
    c.kind = op.kind;
    c.attrs = op.attrs;
    c.value_dtype = op.dtype;
    operand_shapes(program, op, c.shape);
    if (op.kind == OpKind::attention_cached && cached_positions > 0)
        for (const int cache : {AttentionCachedOperands::k_cache, AttentionCachedOperands::v_cache})
            c.shape[cache].dim[1] = std::min(c.shape[cache].dim[1], cached_positions);
    return c;
}

// Of equal ops, in the order of their first calls.
std::vector<Cost> costs_of(const Program& program, const ProfileRequest& request) {
    std::vector<Cost> costs;
    std::map<std::string, size_t> at;
    for (const Entry& entry : request.entries) {
        const Section& section = program.sections[static_cast<size_t>(entry.section)];
        for (int32_t i = section.first_op; i < section.first_op + section.op_count; ++i) {
            const Op& op = program.ops[static_cast<size_t>(i)];
            if (op.lane == Lane::host) continue;
            const KernelCase c = case_of(program, op, request.cached_positions);
            const std::string name = name_of(c);
            const auto [found, added] = at.emplace(name, costs.size());
            if (added) costs.push_back({name, {}});
            Cost& cost = costs[found->second];
            const double flops = flops_of(c), bytes = bytes_of(c);
            const double compute_s = flops / request.limits.flops;
            const double memory_s = bytes / request.limits.bandwidth;
            cost.calls.push_back({&entry, i});
            cost.flops += flops;
            cost.bytes += bytes;
            cost.least_s += std::max(compute_s, memory_s);
            if (compute_s > memory_s) cost.compute_least_s += compute_s;
        }
    }
    return costs;
}

// Seconds of one run of a body that puts work on the lane, a median; the host waits at the end
// only.
double median_seconds(Session& session, double least_s, const auto& body) {
    int64_t runs = 1;
    const auto sample = [&] {
        return seconds_of([&] {
                   for (int64_t n = 0; n < runs; ++n) body();
                   session.executor().finish();
               }) /
               static_cast<double>(runs);
    };
    std::vector<double> times = {sample()};
    if (least_s == 0) return times[0];
    while (sample() * static_cast<double>(runs) < least_s) runs *= 2;
    for (double& time : times = std::vector<double>(kSamples)) time = sample();
    std::sort(times.begin(), times.end());
    return times[kSamples / 2];
}

// Seconds of all calls of a cost.
double time_calls(Session& session, const ProfileRequest& request, const Cost& cost) {
    Executor& executor = session.executor();
    const auto run_calls = [&](int64_t repeats) {
        for (int64_t n = 0; n < repeats; ++n)
            for (const Call& call : cost.calls) executor.run_op(*call.entry, call.op);
    };
    // Ops that work in place (gradients of GELU, AdamW) change what they find in every call: they
    // begin with what a whole run leaves.
    executor.run(request.entries);
    executor.finish();
    Gpu* const gpu = session.gpu();
    if (gpu == nullptr) return median_seconds(session, request.least_s, [&] { run_calls(1); });
    const auto graph_of = [&](int64_t repeats) {
        gpu->begin_capture(GpuLane::compute);
        run_calls(repeats);
        return gpu->end_capture(GpuLane::compute);
    };
    Gpu::Graph graph = graph_of(1);
    const auto launch = [&] { gpu->launch(graph, GpuLane::compute); };
    const double once = median_seconds(session, request.least_s, launch);
    const auto most = ceil_div(kGraphCalls, static_cast<int64_t>(cost.calls.size()));
    const auto repeats = std::clamp(static_cast<int64_t>(request.least_s / once), int64_t{1}, most);
    if (repeats == 1) return once;
    graph = graph_of(repeats);
    return median_seconds(session, request.least_s, launch) / static_cast<double>(repeats);
}

std::vector<Cost> by_kind(const std::vector<Cost>& costs) {
    std::vector<Cost> kinds;
    for (const Cost& cost : costs) {
        const std::string kind = cost.name.substr(0, cost.name.find(' '));
        auto sum = std::find_if(kinds.begin(), kinds.end(),
                                [&](const Cost& other) { return other.name == kind; });
        if (sum == kinds.end()) sum = kinds.insert(sum, {kind, {}});
        sum->calls.insert(sum->calls.end(), cost.calls.begin(), cost.calls.end());
        sum->flops += cost.flops;
        sum->bytes += cost.bytes;
        sum->seconds += cost.seconds;
        sum->least_s += cost.least_s;
        sum->compute_least_s += cost.compute_least_s;
    }
    return kinds;
}

std::string json_of(const Cost& cost) {
    return json_format(R"({{"op": "{}", "calls": {}, "us": {:.2f}, "flops": {:.6g}, )"
                       R"("bytes": {:.6g}, "limit": "{}", "least_us": {:.2f}, "share": {:.4f}}})",
                       cost.name, cost.calls.size(), cost.seconds * 1e6, cost.flops, cost.bytes,
                       cost.limit(), cost.least_s * 1e6, cost.least_s / cost.seconds);
}

std::string json_of(const std::vector<Cost>& costs) {
    std::string list;
    for (const Cost& cost : costs) list += (list.empty() ? "\n" : ",\n") + json_of(cost);
    return "[" + list + "]";
}

void print_rows(const char* title, const std::vector<Cost>& costs, double total_s, size_t most) {
    fmt::print("  {:<22} {:>5} {:>9} {:>6} {:>8} {:>8}  {:>14}\n", title, "calls", "ms", "time",
               "Tflop/s", "GB/s", "of its limit");
    for (size_t i = 0; i < std::min(most, costs.size()); ++i) {
        const Cost& cost = costs[i];
        const size_t space = std::min(cost.name.find(' '), cost.name.size());
        fmt::print("  {:<22} {:>5} {:>9.3f} {:>5.1f}% {:>8.2f} {:>8.1f}  {:>6.1f}% {} {}\n",
                   cost.name.substr(0, space), cost.calls.size(), cost.seconds * 1e3,
                   100 * cost.seconds / total_s, cost.flops / cost.seconds * 1e-12,
                   cost.bytes / cost.seconds * 1e-9, 100 * cost.least_s / cost.seconds,
                   cost.limit(), cost.name.substr(space));
    }
}

}  // namespace

std::string profile_entries(Session& session, const ProfileRequest& request) {
    std::vector<Cost> costs = costs_of(session.program(), request);
    const double whole_s =
        median_seconds(session, request.least_s, [&] { session.executor().run(request.entries); });
    double ops_s = 0;
    for (Cost& cost : costs) {
        cost.seconds = time_calls(session, request, cost);
        ops_s += cost.seconds;
    }
    std::vector<Cost> kinds = by_kind(costs);
    std::sort(kinds.begin(), kinds.end(),
              [](const Cost& a, const Cost& b) { return a.seconds > b.seconds; });
    std::sort(costs.begin(), costs.end(),
              [](const Cost& a, const Cost& b) { return a.lost_s() > b.lost_s(); });
    fmt::print(
        "profile of {}: {:.3f} ms measured; {:.3f} ms without the host; {:.3f} ms in ops measured "
        "apart, {:+.3f} ms between them\n",
        request.what, request.measured_s * 1e3, whole_s * 1e3, ops_s * 1e3,
        (whole_s - ops_s) * 1e3);
    print_rows("kind", kinds, ops_s, kinds.size());
    print_rows("op, by time lost", costs, ops_s, kWorstOps);
    std::fflush(stdout);
    return json_format(R"({{"profile": "{}", "measured_ms": {:.4f}, "entries_ms": {:.4f}, )"
                       R"("ops_ms": {:.4f}, "between_ms": {:.4f},)"
                       "\n\"kinds\": {},\n\"ops\": {}}}",
                       request.what, request.measured_s * 1e3, whole_s * 1e3, ops_s * 1e3,
                       (whole_s - ops_s) * 1e3, json_of(kinds), json_of(costs));
}

}  // namespace plumb::testing
