#include <omp.h>

#include <algorithm>
#include <chrono>

#include "kernels/cpu/isa_tables.h"
#include "kernels/kernels.h"

namespace plumb {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) noexcept {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

double spin(Isa isa, int64_t rounds) noexcept {
    if (isa == Isa::avx512) return cpu::avx512::spin_flops(rounds);
    if (isa == Isa::avx2) return cpu::avx2::spin_flops(rounds);
    return cpu::portable::spin_flops(rounds);
}

}  // namespace

double measure_peak_flops(Isa isa, int32_t threads) noexcept {
    // Some 5 ms a run at 12 multiply-adds a round: long enough for the clock, short enough that
    // one of the runs is not interrupted.
    constexpr int64_t kRounds = 1'000'000;
    constexpr int kRuns = 12;
    double best = 0;
    for (int run = 0; run < kRuns; ++run) {
        double flops = 0;
        const auto start = Clock::now();
#pragma omp parallel num_threads(threads) reduction(+ : flops)
        flops += spin(isa, kRounds);
        best = std::max(best, flops / seconds_since(start));
    }
    return best;
}

double measure_read_bandwidth(int32_t threads, void* buffer, int64_t size_bytes) noexcept {
    constexpr int kRuns = 5;
    const auto* words = static_cast<const uint64_t*>(buffer);
    const int64_t count = size_bytes / static_cast<int64_t>(sizeof(uint64_t));
    double best = 0;
    uint64_t sink = 0;
    for (int run = 0; run < kRuns; ++run) {
        uint64_t sum = 0;
        const auto start = Clock::now();
#pragma omp parallel for num_threads(threads) schedule(static) reduction(+ : sum)
        for (int64_t i = 0; i < count; ++i) sum += words[i];
        best = std::max(best, static_cast<double>(size_bytes) / seconds_since(start));
        sink += sum;
    }
    asm volatile("" : : "r"(sink));
    return best;
}

}  // namespace plumb
