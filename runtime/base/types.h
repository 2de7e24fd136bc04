// Names for the few number kinds used everywhere. Sizes, counts and offsets are int64_t; token ids
// are int32_t; ids of tensors and params are indices into the arrays of one Program. Nothing here
// owns memory or does anything.
// Path: hot.
#pragma once

#include <cstddef>
#include <cstdint>

namespace plumb {

inline constexpr int64_t kKiB = int64_t{1} << 10;
inline constexpr int64_t kMiB = int64_t{1} << 20;
inline constexpr int64_t kGiB = int64_t{1} << 30;

// Every tensor's offset and every arena's size is a multiple of this (one cache line, one zmm).
inline constexpr int64_t kAlignBytes = 64;

constexpr int64_t align_up(int64_t value, int64_t alignment) {
    return (value + alignment - 1) / alignment * alignment;
}

constexpr int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

}  // namespace plumb
