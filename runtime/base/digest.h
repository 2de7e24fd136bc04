// The state digest: the sum modulo 2^128, over all elements of all tensors of the training state,
// of a mixing function of (tensor, global element index, 32-bit pattern). Addition commutes, so the
// digest depends on no layout, order, thread count or codec: equal digests mean equal state. The
// byte-exact definition and a test vector stand in formats/CHECKPOINT.md.
// Path: hot.
#pragma once

#include <string_view>

#include "runtime/base/hash.h"
#include "runtime/base/types.h"

namespace plumb {

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
