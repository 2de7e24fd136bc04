// Counter-based randomness: a value is a pure function of (key, counter), so no random state exists
// anywhere and any rank can make any element. Philox-4x32-10 (Salmon et al., SC'11) underneath.
// The key of a parameter is random_key(seed, name); its counter is the global element index.
// Path: hot.
#pragma once

#include <string_view>

#include "runtime/base/types.h"

namespace plumb {

struct Philox4 {
    uint32_t word[4];
};

// One block of Philox-4x32-10.
Philox4 philox(uint64_t key, uint64_t counter_low, uint64_t counter_high) noexcept;

// Key of a named stream under a seed.
uint64_t random_key(uint64_t seed, std::string_view name) noexcept;

// Uniform in [0, 1) with 53 bits.
double random_uniform(uint64_t key, uint64_t counter) noexcept;

// Standard normal (Box-Muller in fp64, one value per counter).
double random_normal(uint64_t key, uint64_t counter) noexcept;

// Keyed permutation of [0, count): a bijection for every key, by a 4-round Feistel network over the
// next even power of two and cycle walking. index < count.
int64_t random_permute(uint64_t key, int64_t index, int64_t count) noexcept;

}  // namespace plumb
