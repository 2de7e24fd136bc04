// The state digest: the sum modulo 2^128, over all elements of all tensors of the training state,
// of a mixing function of (tensor, global element index, 32-bit pattern). Addition commutes, so the
// digest depends on no layout, order, thread count or codec: equal digests mean equal state. The
// byte-exact definition and a test vector stand in formats/CHECKPOINT.md.
// Path: hot.
#pragma once

#include <string_view>

#include "runtime/base/hash.h"
#include "runtime/base/host_device.h"
#include "runtime/base/types.h"

namespace plumb {

// What an element adds: digest_term(digest_place(key, global index), bits).
inline constexpr uint64_t kDigestStep = 0x9E3779B97F4A7C15u;
HOST_DEVICE uint64_t digest_place(uint64_t key, int64_t index) noexcept {
    return key + static_cast<uint64_t>(index) * kDigestStep;
}
// Finaliser of splitmix64 (Steele, Lea, Flood 2014): a bijection of 64 bits.
HOST_DEVICE uint64_t digest_mix(uint64_t x) noexcept {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}
HOST_DEVICE Hash128 digest_term(uint64_t place, uint32_t bits) noexcept {
    Hash128 term;
    term.low = digest_mix(place ^ digest_mix(bits + 0x632BE59BD9B4E019u));
    term.high = digest_mix(term.low + place);
    return term;
}

// Sum modulo 2^128 of two digests.
Hash128 digest_add(Hash128 a, Hash128 b) noexcept;

// Key of a stream ("param", "master_lo", "master", "moment1", "moment2", "state") of a named
// tensor.
uint64_t digest_key(std::string_view stream, std::string_view tensor) noexcept;

// Digest of `count` consecutive elements whose first has global index `first`. Patterns of 16 and
// of 8 bits count as 32-bit ones, widened with zeros.
Hash128 digest_elements(uint64_t key, int64_t first, const uint32_t* bits, int64_t count) noexcept;
Hash128 digest_elements(uint64_t key, int64_t first, const uint16_t* bits, int64_t count) noexcept;
Hash128 digest_elements(uint64_t key, int64_t first, const uint8_t* bits, int64_t count) noexcept;

// The same of the fp32 masters that join_master makes of `high` and `low`.
Hash128 digest_masters(uint64_t key, int64_t first, const uint16_t* high, const uint16_t* low,
                       int64_t count) noexcept;

}  // namespace plumb
