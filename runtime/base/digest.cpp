#include "runtime/base/digest.h"

#include "runtime/base/dtype.h"

namespace plumb {

namespace {

// The low words are summed in halves, which cannot overflow below 2^32 elements: without carries
// the loop is one that compilers turn into vectors (-O3, see CMakeLists.txt).
template <typename Bits>
[[gnu::always_inline]] inline Hash128 sum_elements(uint64_t key, int64_t first, const Bits* bits,
                                                   int64_t count) noexcept {
    uint64_t lower = 0;
    uint64_t upper = 0;
    Hash128 sum;
    for (int64_t i = 0; i < count; ++i) {
        const Hash128 term = digest_term(digest_place(key, first + i), bits[i]);
        lower += term.low & 0xFFFFFFFFu;
        upper += term.low >> 32;
        sum.high += term.high;
    }
    sum.low = lower;
    return digest_add(sum, {upper << 32, upper >> 32});
}

// The loop is bound by its six 64-bit multiplications; AVX-512 DQ has them for eight lanes.
template <typename Bits>
[[gnu::target("avx512f,avx512vl,avx512dq")]] Hash128 sum_avx512(uint64_t key, int64_t first,
                                                                const Bits* bits,
                                                                int64_t count) noexcept {
    return sum_elements(key, first, bits, count);
}

template <typename Bits>
Hash128 digest_of(uint64_t key, int64_t first, const Bits* bits, int64_t count) noexcept {
    const bool wide = __builtin_cpu_supports("avx512dq") != 0;
    constexpr int64_t kPartMax = int64_t{1} << 31;
    Hash128 sum;
    for (int64_t at = 0; at < count; at += kPartMax) {
        const int64_t part = count - at < kPartMax ? count - at : kPartMax;
        sum = digest_add(sum, wide ? sum_avx512(key, first + at, bits + at, part)
                                   : sum_elements(key, first + at, bits + at, part));
    }
    return sum;
}

}  // namespace

Hash128 digest_add(Hash128 a, Hash128 b) noexcept {
    Hash128 r;
    r.low = a.low + b.low;
    r.high = a.high + b.high + (r.low < a.low ? 1 : 0);
    return r;
}

uint64_t digest_key(std::string_view stream, std::string_view tensor) noexcept {
    return hash64(tensor, hash64(stream));
}

Hash128 digest_elements(uint64_t key, int64_t first, const uint32_t* bits, int64_t count) noexcept {
    return digest_of(key, first, bits, count);
}

Hash128 digest_elements(uint64_t key, int64_t first, const uint16_t* bits, int64_t count) noexcept {
    return digest_of(key, first, bits, count);
}

Hash128 digest_elements(uint64_t key, int64_t first, const uint8_t* bits, int64_t count) noexcept {
    return digest_of(key, first, bits, count);
}

Hash128 digest_masters(uint64_t key, int64_t first, const uint16_t* high, const uint16_t* low,
                       int64_t count) noexcept {
    constexpr int64_t kBlock = 256;
    uint32_t bits[kBlock];
    Hash128 sum;
    for (int64_t begin = 0; begin < count; begin += kBlock) {
        const int64_t block = count - begin < kBlock ? count - begin : kBlock;
        for (int64_t i = 0; i < block; ++i)
            bits[i] = join_master({high[begin + i], low[begin + i]});
        sum = digest_add(sum, digest_elements(key, first + begin, bits, block));
    }
    return sum;
}

}  // namespace plumb
