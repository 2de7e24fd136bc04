#include "kernels/cuda/integer_sum.h"
#include "kernels/cuda/kernel_list.h"
#include "kernels/cuda/values.h"

namespace plumb::cuda {

namespace {

__device__ __forceinline__ int64_t integer_of(double value) {
#ifdef __CUDACC__
    return __double_as_longlong(value);
#else
    return __builtin_bit_cast(int64_t, value);
#endif
}

// The sum modulo 2^127 in units of 2^-80, and whether it, or any of its terms, left that range.
// Both are independent of the order of additions: terms are not negative, so a partial sum passes
// 2^127 only if the whole does.
struct FixedSum {
    Uint128 value;
    uint64_t flag;
};

constexpr Uint128 kTop = static_cast<Uint128>(1) << 127;

__device__ __forceinline__ void add_fixed(FixedSum* sum, Uint128 term) {
    sum->value += term;
    if ((sum->value & kTop) != 0) {
        sum->flag = 1;
        sum->value &= ~kTop;
    }
}

// The largest number whose square is below 2^47.
constexpr float kLargest = 11863283.0F;
static_assert(int64_t{11863283} * 11863283 < int64_t{1} << 47 &&
              int64_t{11863284} * 11863284 >= int64_t{1} << 47);

// Any square: that of the mantissa, a number of 48 bits, moved to its place. g = mantissa *
// 2^(exponent - 150), so the place is 2 * (exponent - 150) + 80.
__device__ __forceinline__ void add_square(FixedSum* sum, float g) {
    const uint32_t bits = bits_of(g) & 0x7FFFFFFFU;
    if (bits > bits_of(kLargest)) {  // also inf and NaN
        sum->flag = 1;
        return;
    }
    const int exponent = bits >> 23 == 0 ? 1 : static_cast<int>(bits >> 23);
    const uint64_t mantissa = (bits & 0x7FFFFFU) | (bits >> 23 == 0 ? 0U : 0x800000U);
    const uint64_t square = mantissa * mantissa;
    const int place = 2 * exponent - 220;  // at most 80
    if (place <= -48) return;
    add_fixed(sum, place >= 0 ? static_cast<Uint128>(square) << place : square >> -place);
}

// Squares of numbers below 2^4 as two integers, high * 2^44 + low in units of 2^-80: adding 1.5 *
// 2^16 in fp64 rounds a square to a multiple of 2^-36 (nearest, so that what is left has at most 43
// bits and a sign), adding 1.5 * 2^-28 the rest to one of 2^-80, and the integers stand in the
// bits of the sums. Everything but these two roundings is exact, fused or not. high is at most
// 2^44: as many as a thread adds (kSumThreadMax) fit in 63 bits.
constexpr uint32_t kSmallBits = 0x41800000U;  // of 2^4
constexpr double kHighMagic = 0x1.8p16;
constexpr double kLowMagic = 0x1.8p-28;

struct SmallSum {
    int64_t high;
    int64_t low;
};

__device__ __forceinline__ void add_small(SmallSum* sum, float g) {
    const double x = static_cast<double>(g);
    const double near = x * x + kHighMagic;
    const double rest = x * x - (near - kHighMagic);
    const double near_rest = rest + kLowMagic;
    sum->high += integer_of(near) - integer_of(kHighMagic);
    // Truncated: the floor.
    sum->low +=
        integer_of(near_rest) - integer_of(kLowMagic) - (near_rest - kLowMagic > rest ? 1 : 0);
}

__global__ void __launch_bounds__(kSumThreads)
    sum_squares(uint64_t* partial, const float* g, int64_t count) {
    SmallSum small{};
    FixedSum sum{};
    const auto load = [&](int64_t i, int n) { return load_some(g + i, n); };
    for_each_four(count, load, [&](int64_t, int, const Pack<float>& pack) {
        uint32_t largest = 0;
        for (const float x : pack.value) {
            const uint32_t bits = bits_of(x) & 0x7FFFFFFFU;
            largest = bits > largest ? bits : largest;
        }
        if (largest < kSmallBits) {
            for (const float x : pack.value) add_small(&small, x);
        } else {
            for (const float x : pack.value) add_square(&sum, x);
        }
    });
    add_fixed(&sum, (static_cast<Uint128>(small.high) << 44) +
                        static_cast<Uint128>(static_cast<__int128>(small.low)));
    SumParts<kLimbs + 1> parts;
    split_limbs(sum.value, parts.part);
    parts.part[kLimbs] = sum.flag;
    store_partial(parts, partial);
}

// Settles carries and the flag, and adds what the sum was.
__global__ void __launch_bounds__(kSumThreads)
    settle_squares(uint64_t* out, const uint64_t* partial, int64_t blocks, bool begin) {
    const uint64_t* parts = sum_partials<kLimbs + 1>(partial, blocks);
    if (threadIdx.x != 0) return;
    uint64_t above = 0;
    FixedSum sum{0, 0};
    add_fixed(&sum, join_limbs(parts, &above));
    if (above != 0 || parts[kLimbs] != 0) sum.flag = 1;
    if (!begin) {
        add_fixed(&sum, (static_cast<Uint128>(out[1]) << 64) | out[0]);
        sum.flag |= out[2];
    }
    out[0] = static_cast<uint64_t>(sum.value);
    out[1] = static_cast<uint64_t>(sum.value >> 64);
    out[2] = sum.flag;
    out[3] = 0;
}

void grad_norm(const KernelArgs& args) noexcept {
    using O = GradNormOperands;
    const int64_t count = args.shape[O::g].elements();
    const int64_t blocks = sum_blocks(count);
    ASSERT(args.shape[O::sum].elements() == 4 && args.scratch_bytes >= sum_scratch_bytes(count));
    constexpr int64_t kShared = kSumSharedBytes<kLimbs + 1>;
    uint64_t* partial = static_cast<uint64_t*>(args.scratch);
    launch<sum_squares>({blocks, kSumThreads, args.stream, kShared}, partial,
                        static_cast<const float*>(args.at<float>(O::g)), count);
    launch<settle_squares>({1, kSumThreads, args.stream, kShared}, args.at<uint64_t>(O::sum),
                           static_cast<const uint64_t*>(partial), blocks,
                           args.attrs->state.begin != 0);
}

}  // namespace

void add_grad_norm(KernelTable& table) noexcept {
    set_kernels(table, OpKind::grad_norm, grad_norm);
}

}  // namespace plumb::cuda
