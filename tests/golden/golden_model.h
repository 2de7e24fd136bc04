// The golden generator: weights and tokens of the tiny models, bit for bit as
// scripts/make_goldens.py makes them (the definition stands there). Every value is exact in fp32.
// Path: cold.
#pragma once

#include <string_view>

#include "runtime/base/types.h"

namespace plumb {

enum class GoldenKind { matrix, gain, bias };

// Kind of a parameter by its canonical name.
inline GoldenKind golden_kind(std::string_view name) {
    if (name.ends_with(".gain")) return GoldenKind::gain;
    return name.ends_with(".bias") ? GoldenKind::bias : GoldenKind::matrix;
}

// Value `index` of the stream of a name: FNV-1a of the name, then SplitMix64.
inline uint64_t golden_bits(std::string_view name, int64_t index) {
    uint64_t key = 0xCBF29CE484222325u;
    for (const char c : name) key = (key ^ static_cast<unsigned char>(c)) * 0x100000001B3u;
    uint64_t z = key + (static_cast<uint64_t>(index) + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

// Element `index` (row-major in the canonical shape) of the parameter `name`.
inline float golden_value(std::string_view name, int64_t index, GoldenKind kind) {
    const auto high = static_cast<int32_t>(golden_bits(name, index) >> 48);
    const float u = static_cast<float>(high - 32768) / 32768.0f;
    if (kind == GoldenKind::gain) return 1.0f + u / 8;
    return kind == GoldenKind::bias ? u / 32 : u * 5 / 32;
}
inline float golden_value(std::string_view name, int64_t index) {
    return golden_value(name, index, golden_kind(name));
}

// Token `index` of a step, below vocab. Sequence q of T inputs and T targets starts at index
// q * (T + 1); micro-batch m of B sequences holds q = m * B .. m * B + B - 1.
inline int32_t golden_token(int64_t step, int64_t index, int64_t vocab) {
    const uint64_t bits = golden_bits("tokens", step * kMiB + index);
    const auto size = static_cast<uint64_t>(vocab);
    const uint64_t a = (bits & 0xFFFFFFFFu) % size;
    const uint64_t b = (bits >> 32) % size;
    return static_cast<int32_t>(a * b / size);
}

}  // namespace plumb
