#include "kernels/cpu/kernel_list.h"
#include "kernels/cpu/vec.h"

namespace plumb::cpu::PLUMB_ISA {
namespace {

typedef double VecD __attribute__((vector_size(PLUMB_VEC_BYTES)));
typedef float VecHalf __attribute__((vector_size(PLUMB_VEC_BYTES / 2)));
constexpr int64_t kLanesD = kLanes / 2;

// The sum modulo 2^127 and whether it, or any of its terms, left that range. Both are independent
// of the order of additions: terms are not negative, so a partial sum passes 2^127 only if the
// whole does.
struct FixedSum {
    unsigned __int128 value;
    int64_t flag;
};

PLUMB_INLINE void add_fixed(FixedSum* sum, unsigned __int128 term) {
    const unsigned __int128 top = static_cast<unsigned __int128>(1) << 127;
    sum->value += term;
    if ((sum->value & top) != 0) {
        sum->flag = 1;
        sum->value &= ~top;
    }
}

// Truncates to an integer by parts: the quotient by 2^64, then the rest, each exact.
PLUMB_INLINE void add_square(FixedSum* sum, float g) {
    const double x = static_cast<double>(g);
    const double square = x * x;  // 48 bits: exact
    if (!(square < 0x1p47)) {     // also inf and NaN
        sum->flag = 1;
        return;
    }
    const double scaled = square * 0x1p80;
    const uint64_t high = static_cast<uint64_t>(scaled * 0x1p-64);
    const uint64_t low = static_cast<uint64_t>(scaled - static_cast<double>(high) * 0x1p64);
    add_fixed(sum, (static_cast<unsigned __int128>(high) << 64) | low);
}

// The nearest integer for |x| < 2^51: adding 1.5 * 2^52 leaves no fraction bits.
PLUMB_INLINE VecD nearest_of(VecD x) {
    const VecD magic = 0x1.8p52 - VecD{};
    return (x + magic) - magic;
}

// Squares below 2^8 as two limbs in units of 2^-80: high * 2^44 + low, high the nearest multiple,
// so that |low| <= 2^43. Sums of up to 512 terms of either stay within 2^53 and so exact in fp64.
// Larger squares take the scalar way.
constexpr int64_t kRun = 256 * kLanesD;

PLUMB_INLINE bool add_run(const float* g, FixedSum* sum) {
    VecD high_sum{}, low_sum{};
    VecD peak{};
    for (int64_t i = 0; i < kRun; i += kLanesD) {
        VecHalf part;
        __builtin_memcpy(&part, g + i, sizeof part);
        const VecD x = __builtin_convertvector(part, VecD);
        const VecD square = x * x;
        peak = square > peak ? square : peak;
        const VecD high = nearest_of(square * 0x1p36);
        // square * 2^80 - high * 2^44 is exact: it is what is left of square's 48 bits.
        const VecD rest = square * 0x1p80 - high * 0x1p44;
        const VecD low = nearest_of(rest);
        low_sum += low > rest ? low - 1.0 : low;  // truncated: the floor
        high_sum += high;
    }
    // The maximum passes over NaN, but a sum that met one is NaN.
    for (int64_t lane = 0; lane < kLanesD; ++lane)
        if (!(peak[lane] < 0x1p8) || !(high_sum[lane] >= 0.0)) return false;
    __int128 high = 0, low = 0;
    for (int64_t lane = 0; lane < kLanesD; ++lane) {
        high += static_cast<int64_t>(high_sum[lane]);
        low += static_cast<int64_t>(low_sum[lane]);
    }
    add_fixed(sum, static_cast<unsigned __int128>((high << 44) + low));
    return true;
}

}  // namespace

void grad_norm(const KernelArgs& args) noexcept {
    using O = GradNormOperands;
    const int64_t count = elements_of(args.shape[O::g]);
    const float* g = floats(args, O::g);
    uint64_t* out = static_cast<uint64_t*>(args.data[O::sum]);
    if (args.attrs->state.begin != 0) out[0] = out[1] = out[2] = 0;
    out[3] = 0;
    FixedSum total{(static_cast<unsigned __int128>(out[1]) << 64) | out[0],
                   static_cast<int64_t>(out[2])};
    run_team(args.threads, [&](int64_t rank, int64_t team) {
        const Range range = split(count, kLanesMax, team, rank);
        FixedSum part{0, 0};
        int64_t i = range.begin;
        for (; i + kRun <= range.end; i += kRun) {
            if (add_run(g + i, &part)) continue;
            for (int64_t j = i; j < i + kRun; ++j) add_square(&part, g[j]);
        }
        for (; i < range.end; ++i) add_square(&part, g[i]);
#pragma omp critical(plumb_grad_norm)
        {
            add_fixed(&total, part.value);
            total.flag |= part.flag;
        }
    });
    out[0] = static_cast<uint64_t>(total.value);
    out[1] = static_cast<uint64_t>(total.value >> 64);
    out[2] = static_cast<uint64_t>(total.flag);
}

}  // namespace plumb::cpu::PLUMB_ISA
