#include "runtime/base/hash.h"

#include <xxhash.h>

#include <cstdio>

#include "runtime/base/check.h"

namespace plumb {

uint64_t hash64(const void* data, int64_t size_bytes, uint64_t seed) noexcept {
    return XXH3_64bits_withSeed(data, static_cast<size_t>(size_bytes), seed);
}

Hash128 hash128(const void* data, int64_t size_bytes, uint64_t seed) noexcept {
    const XXH128_hash_t h = XXH3_128bits_withSeed(data, static_cast<size_t>(size_bytes), seed);
    return {h.low64, h.high64};
}

void format_hash(const Hash128& hash, char (&text)[33]) noexcept {
    std::snprintf(text, sizeof text, "%016llx%016llx", static_cast<unsigned long long>(hash.high),
                  static_cast<unsigned long long>(hash.low));
}

std::string to_hex(const Hash128& hash) {
    char text[33];
    format_hash(hash, text);
    return text;
}

Hasher::Hasher() : state_(XXH3_createState()) {
    CHECK(state_ != nullptr);
    XXH3_128bits_reset(static_cast<XXH3_state_t*>(state_));
}

Hasher::~Hasher() {
    XXH3_freeState(static_cast<XXH3_state_t*>(state_));
}

void Hasher::bytes(const void* data, int64_t size_bytes) {
    XXH3_128bits_update(static_cast<XXH3_state_t*>(state_), data, static_cast<size_t>(size_bytes));
}

void Hasher::text(std::string_view value) {
    number(static_cast<int64_t>(value.size()));
    bytes(value.data(), static_cast<int64_t>(value.size()));
}

Hash128 Hasher::finish() const {
    const XXH128_hash_t h = XXH3_128bits_digest(static_cast<const XXH3_state_t*>(state_));
    return {h.low64, h.high64};
}

}  // namespace plumb
