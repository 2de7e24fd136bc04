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

double spin(Isa isa, Dtype dtype, int64_t rounds) noexcept {
    if (isa == Isa::avx512_bf16) return cpu::avx512_bf16::spin_flops(dtype, rounds);
    if (isa == Isa::avx512) return cpu::avx512::spin_flops(dtype, rounds);
    if (isa == Isa::avx2) return cpu::avx2::spin_flops(dtype, rounds);
    return cpu::portable::spin_flops(dtype, rounds);
}

}  // namespace

namespace {

// One run of every thread of the team, in flop/s.
double peak_of_run(Isa isa, int32_t threads, Dtype dtype) noexcept {
    // Some 5 ms at 12 multiply-adds a round: long enough for the clock, short enough that one of
    // the runs is not interrupted.
    constexpr int64_t kRounds = 1'000'000;
    double flops = 0;
    const auto start = Clock::now();
    if (threads == 1) {
        flops = spin(isa, dtype, kRounds);  // OpenMP allocates a team of one anew each time
    } else {
#pragma omp parallel num_threads(threads) reduction(+ : flops)
        flops += spin(isa, dtype, kRounds);
    }
    return flops / seconds_since(start);
}

}  // namespace

// A new team may share one core until the scheduler has moved its threads apart, which takes longer
// than a run: so it runs on, up to half a second, while the team is below its threads alone.
double measure_peak_flops(Isa isa, int32_t threads, Dtype dtype) noexcept {
    constexpr int kRuns = 12;
    constexpr double kPatienceS = 0.5;
    double alone = 0, best = 0;
    for (int run = 0; run < 3; ++run) alone = std::max(alone, peak_of_run(isa, 1, dtype));
    const auto start = Clock::now();
    for (int run = 0;
         run < kRuns || (best < 0.97 * threads * alone && seconds_since(start) < kPatienceS); ++run)
        best = std::max(best, peak_of_run(isa, threads, dtype));
    return best;
}

// Timed piece by piece, each too large for the private caches and not seen again before all others
// have passed: the best piece is what memory gives when nobody disturbs. One word per cache line,
// since lines are what moves.
double measure_read_bandwidth(int32_t threads, void* buffer, int64_t size_bytes) noexcept {
    constexpr int kRuns = 5;
    constexpr int64_t kPieceBytes = 16 * kMiB;
    const auto* bytes = static_cast<const unsigned char*>(buffer);
    double best = 0;
    uint64_t sink = 0;
    for (int run = 0; run < kRuns; ++run) {
        for (int64_t at = 0; at < size_bytes; at += kPieceBytes) {
            const int64_t piece = std::min(kPieceBytes, size_bytes - at);
            const unsigned char* first = bytes + at;
            uint64_t sum = 0;
            const auto start = Clock::now();
#pragma omp parallel for num_threads(threads) schedule(static) reduction(+ : sum)
            for (int64_t line = 0; line < piece / kAlignBytes; ++line)
                sum += first[line * kAlignBytes];
            best = std::max(best, static_cast<double>(piece) / seconds_since(start));
            sink += sum;
        }
    }
    asm volatile("" : : "r"(sink));
    return best;
}

}  // namespace plumb
