// The fp32 masters of weights in blocks: the weights themselves when they are float, the pair of
// Bf16 weights and their low halves (split_master in runtime/base/dtype.h), or the float master
// beside F16 weights, which are its rounding. Optimizer and initialisation see floats only.
// Path: hot.
#pragma once

#include "kernels/cpu/vec.h"

namespace plumb::cpu::PLUMB_ISA {

constexpr int64_t kMasterBlock = 512;

PLUMB_INLINE VecU load_halves_part(const uint16_t* p, int64_t lanes) {
    if (lanes >= kLanes) return load_halves(p);
    uint16_t part[kLanes] = {};
    for (int64_t i = 0; i < lanes; ++i) part[i] = p[i];
    return load_halves(part);
}
PLUMB_INLINE void store_halves_part(uint16_t* p, VecU v, int64_t lanes) {
    if (lanes >= kLanes) {
        store_halves(p, v);
        return;
    }
    uint16_t part[kLanes];
    store_halves(part, v);
    for (int64_t i = 0; i < lanes; ++i) p[i] = part[i];
}

// join_master and split_master of vectors.
PLUMB_INLINE VecU join_masters(VecU high, VecU low) {
    return (high << 16) + low - ((low & 0x8000U) << 1);
}
PLUMB_INLINE VecU high_of_masters(VecU* bits) {
    const VecU sign = *bits & 0x80000000U;
    const VecU carries = (*bits ^ sign) > 0x7FFF7FFFU;
    *bits = carries ? sign | 0x7FFF7FFFU : *bits;
    return (*bits + 0x8000U) >> 16;
}

PLUMB_INLINE void load_masters(const Bf16* w, const uint16_t* low, int64_t count, float* to) {
    for (int64_t i = 0; i < count; i += kLanes) {
        const int64_t lanes = count - i;
        const VecU high = load_halves_part(&w[i].bits, lanes);
        store_part(to + i, float_of(join_masters(high, load_halves_part(low + i, lanes))), lanes);
    }
}
PLUMB_INLINE void store_masters(const float* from, int64_t count, Bf16* w, uint16_t* low) {
    for (int64_t i = 0; i < count; i += kLanes) {
        const int64_t lanes = count - i;
        VecU bits = unsigned_of(load_part(from + i, lanes));
        const VecU high = high_of_masters(&bits);
        store_halves_part(&w[i].bits, high, lanes);
        if (low != nullptr) store_halves_part(low + i, bits - (high << 16), lanes);
    }
}

PLUMB_INLINE void round_masters(const float* from, int64_t count, F16* w) {
    for (int64_t i = 0; i < count; i += kLanes)
        store_part(w + i, load_part(from + i, count - i), count - i);
}

// body(masters, first element, count) on each block of a range. kRead: the masters hold their old
// values when body is called; body leaves the new ones in place. `master` is the op's operand, or
// nullptr where only weights are wanted.
template <bool kRead = true, typename Body>
PLUMB_INLINE void each_master_block(float* w, void*, Range range, const Body& body) {
    body(w + range.begin, range.begin, range.end - range.begin);
}
template <bool kRead = true, typename Body>
PLUMB_INLINE void each_master_block(Bf16* w, void* master, Range range, const Body& body) {
    uint16_t* low = static_cast<uint16_t*>(master);
    alignas(64) float block[kMasterBlock];
    for (int64_t i = range.begin; i < range.end; i += kMasterBlock) {
        const int64_t count = lesser(kMasterBlock, range.end - i);
        if (kRead) load_masters(w + i, low + i, count, block);
        body(block, i, count);
        store_masters(block, count, w + i, low == nullptr ? nullptr : low + i);
    }
}
template <bool kRead = true, typename Body>
PLUMB_INLINE void each_master_block(F16* w, void* master, Range range, const Body& body) {
    float* whole = static_cast<float*>(master);
    alignas(64) float block[kMasterBlock];
    for (int64_t i = range.begin; i < range.end; i += kMasterBlock) {
        const int64_t count = lesser(kMasterBlock, range.end - i);
        float* part = whole == nullptr ? block : whole + i;
        body(part, i, count);
        round_masters(part, count, w + i);
    }
}

}  // namespace plumb::cpu::PLUMB_ISA
