// Counter-based randomness: a value is a pure function of (key, counter), so no random state exists
// anywhere and any rank can make any element. Philox-4x32-10 (Salmon et al., SC'11) underneath.
// The key of a parameter is random_key(seed, name); its counter is the global element index.
// Integers and uniform numbers are the same bits on every device; a normal one depends on the
// device's log and cos in its last bits.
// Path: hot.
#pragma once

#include <cmath>
#include <numbers>
#include <string_view>

#include "runtime/base/host_device.h"
#include "runtime/base/types.h"

namespace plumb {

struct Philox4 {
    uint32_t word[4];
};

// One block of Philox-4x32-10.
HOST_DEVICE Philox4 philox(uint64_t key, uint64_t counter_low, uint64_t counter_high) noexcept {
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

// Key of a named stream under a seed.
uint64_t random_key(uint64_t seed, std::string_view name) noexcept;

// The upper 53 of 64 bits as a number in [0, 1).
HOST_DEVICE double random_unit(uint32_t high, uint32_t low) noexcept {
    const uint64_t bits = (uint64_t{high} << 32 | low) >> 11;
    return static_cast<double>(bits) * 0x1p-53;
}

// Uniform in [0, 1) with 53 bits.
HOST_DEVICE double random_uniform(uint64_t key, uint64_t counter) noexcept {
    const Philox4 r = philox(key, counter, 0);
    return random_unit(r.word[0], r.word[1]);
}

// Standard normal (Box-Muller in fp64, one value per counter). Nothing in it can fuse inexactly.
HOST_DEVICE double random_normal(uint64_t key, uint64_t counter) noexcept {
    const Philox4 r = philox(key, counter, 0);
    const double u = 1.0 - random_unit(r.word[0], r.word[1]);  // (0, 1]: log is finite
    const double v = random_unit(r.word[2], r.word[3]);
    return std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v);
}

// Keyed permutation of [0, count): a bijection for every key, by a 4-round Feistel network over the
// next even power of two and cycle walking. index < count.
int64_t random_permute(uint64_t key, int64_t index, int64_t count) noexcept;

}  // namespace plumb
