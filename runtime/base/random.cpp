#include "runtime/base/random.h"

#include <bit>
#include <cmath>
#include <numbers>

#include "runtime/base/check.h"
#include "runtime/base/hash.h"

namespace plumb {

Philox4 philox(uint64_t key, uint64_t counter_low, uint64_t counter_high) noexcept {
    uint32_t c0 = static_cast<uint32_t>(counter_low);
    uint32_t c1 = static_cast<uint32_t>(counter_low >> 32);
    uint32_t c2 = static_cast<uint32_t>(counter_high);
    uint32_t c3 = static_cast<uint32_t>(counter_high >> 32);
    uint32_t k0 = static_cast<uint32_t>(key);
    uint32_t k1 = static_cast<uint32_t>(key >> 32);
    for (int round = 0; round < 10; ++round) {
        const uint64_t p0 = uint64_t{0xD2511F53} * c0;
        const uint64_t p1 = uint64_t{0xCD9E8D57} * c2;
        c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
        c1 = static_cast<uint32_t>(p1);
        c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
        c3 = static_cast<uint32_t>(p0);
        k0 += 0x9E3779B9;
        k1 += 0xBB67AE85;
    }
    return {{c0, c1, c2, c3}};
}

uint64_t random_key(uint64_t seed, std::string_view name) noexcept {
    return hash64(name, seed);
}

namespace {

double to_unit(uint32_t high, uint32_t low) {
    const uint64_t bits = (uint64_t{high} << 32 | low) >> 11;
    return static_cast<double>(bits) * 0x1p-53;
}

}  // namespace

double random_uniform(uint64_t key, uint64_t counter) noexcept {
    const Philox4 r = philox(key, counter, 0);
    return to_unit(r.word[0], r.word[1]);
}

double random_normal(uint64_t key, uint64_t counter) noexcept {
    const Philox4 r = philox(key, counter, 0);
    const double u = 1.0 - to_unit(r.word[0], r.word[1]);  // (0, 1]: log is finite
    const double v = to_unit(r.word[2], r.word[3]);
    return std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v);
}

int64_t random_permute(uint64_t key, int64_t index, int64_t count) noexcept {
    CHECK(index >= 0 && index < count);
    const int bits = static_cast<int>(std::bit_width(static_cast<uint64_t>(count - 1)));
    const int half = (bits + 1) / 2 > 0 ? (bits + 1) / 2 : 1;
    const uint64_t mask = (uint64_t{1} << half) - 1;
    uint64_t x = static_cast<uint64_t>(index);
    do {  // at most 4 walks on average: the domain is < 4 * count
        uint64_t left = x >> half;
        uint64_t right = x & mask;
        for (uint64_t round = 0; round < 4; ++round) {
            const Philox4 f = philox(key, right, round + 1);
            const uint64_t mixed = left ^ ((uint64_t{f.word[1]} << 32 | f.word[0]) & mask);
            left = right;
            right = mixed;
        }
        x = left << half | right;
    } while (x >= static_cast<uint64_t>(count));
    return static_cast<int64_t>(x);
}

}  // namespace plumb
