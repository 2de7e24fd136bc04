// XXH3 (xxHash 0.8), the hash of plans, settings and stored bytes. Values are those of the
// reference implementation with the given seed; canonical text form is 32 hex digits, high first.
// Path: hot.
#pragma once

#include <string>
#include <string_view>

#include "runtime/base/types.h"

namespace plumb {

struct Hash128 {
    uint64_t low = 0;
    uint64_t high = 0;
    bool operator==(const Hash128&) const = default;
};

uint64_t hash64(const void* data, int64_t size_bytes, uint64_t seed = 0) noexcept;
Hash128 hash128(const void* data, int64_t size_bytes, uint64_t seed = 0) noexcept;
inline uint64_t hash64(std::string_view text, uint64_t seed = 0) noexcept {
    return hash64(text.data(), static_cast<int64_t>(text.size()), seed);
}

// Writes 32 hex digits and a terminating zero.
void format_hash(const Hash128& hash, char (&text)[33]) noexcept;
std::string to_hex(const Hash128& hash);

// Incremental XXH3-128 over plain values, without padding bytes. Not for the hot path.
class Hasher {
  public:
    Hasher();
    ~Hasher();
    Hasher(const Hasher&) = delete;
    Hasher& operator=(const Hasher&) = delete;
    void bytes(const void* data, int64_t size_bytes);
    void number(int64_t value) { bytes(&value, sizeof value); }
    void real(double value) { bytes(&value, sizeof value); }
    // Length first, so that ("ab","c") and ("a","bc") differ.
    void text(std::string_view value);
    Hash128 finish() const;

  private:
    void* state_;
};

}  // namespace plumb
