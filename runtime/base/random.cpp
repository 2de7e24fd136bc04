#include "runtime/base/random.h"

#include <bit>

#include "runtime/base/check.h"
#include "runtime/base/hash.h"

namespace plumb {

uint64_t random_key(uint64_t seed, std::string_view name) noexcept {
    return hash64(name, seed);
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
