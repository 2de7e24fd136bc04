#include "kernels/cuda/product_key.h"

#include <initializer_list>

#include "runtime/base/check.h"

namespace plumb::cuda {

namespace {

uint16_t alignment_of(const void* data) {
    const auto address = reinterpret_cast<uintptr_t>(data) | kAlignMax;
    return static_cast<uint16_t>(address & (~address + 1));
}

uint64_t hash_of(const ProductKey& key) {
    const auto word = [](int64_t v) { return static_cast<uint64_t>(v); };
    const uint64_t aligns = word(key.a_align) | word(key.b_align) << 16 | word(key.c_align) << 32 |
                            word(key.add_align) << 48;
    const uint64_t kinds = word(key.bias_align) | word(static_cast<int>(key.in)) << 16 |
                           word(static_cast<int>(key.out)) << 24 | word(key.a_transposed) << 32 |
                           word(key.b_transposed) << 33 | word(key.tf32) << 34;
    uint64_t hash = 0;
    for (const uint64_t v : {word(key.m), word(key.n), word(key.k), word(key.a_stride),
                             word(key.b_stride), word(key.c_stride), aligns, kinds}) {
        hash = (hash ^ v) * 0x9E3779B97F4A7C15;  // an odd number: 2^64 over the golden ratio
        hash ^= hash >> 32;
    }
    return hash;
}

}  // namespace

ProductKey key_of(const Gemm& g) noexcept {
    ProductKey key = {};
    key.m = g.m;
    key.n = g.n;
    key.k = g.k;
    key.a_stride = g.a.stride;
    key.b_stride = g.b.stride;
    key.c_stride = g.c_stride;
    key.a_align = alignment_of(g.a.data);
    key.b_align = alignment_of(g.b.data);
    key.c_align = alignment_of(g.c);
    if (g.add != nullptr) key.add_align = alignment_of(g.add);
    if (g.bias != nullptr) key.bias_align = alignment_of(g.bias);
    key.in = g.in;
    key.out = g.out;
    key.a_transposed = g.a.transposed;
    key.b_transposed = g.b.transposed;
    key.tf32 = g.tf32 && g.in == Dtype::f32;
    return key;
}

// Where the key is, or the empty slot where it would go.
int ProductIndex::slot_of(const ProductKey& key) const noexcept {
    auto slot = static_cast<int>(hash_of(key) % kSlots);
    while (slot_[slot] != 0 && key_[slot_[slot] - 1] != key) slot = (slot + 1) % kSlots;
    return slot;
}

int ProductIndex::find(const ProductKey& key) const noexcept {
    return slot_[slot_of(key)] - 1;
}

int ProductIndex::add(const ProductKey& key) noexcept {
    CHECK_NOTE(count_ < kProductsMax, "more kinds of products than there is room for");
    const int slot = slot_of(key);
    CHECK(slot_[slot] == 0);
    key_[count_] = key;
    slot_[slot] = static_cast<int16_t>(++count_);
    return count_ - 1;
}

}  // namespace plumb::cuda
