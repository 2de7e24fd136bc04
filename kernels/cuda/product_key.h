// What makes two matrix products the same to whoever prepared one: all but their addresses, of
// which only the alignments count. No two prepared products are equal in it; the search is by its
// bytes. Shared by cuBLASLt's products and those of the emulated GPU, so that tests see what would
// not have been prepared. Path: hot.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/cuda/gemm.h"

namespace plumb::cuda {

struct ProductKey {
    int64_t m, n, k, a_stride, b_stride, c_stride;
    uint32_t a_align, b_align, c_align, add_align, bias_align;
    Dtype in, out;
    bool a_transposed, b_transposed, adds, biased;
};

// The largest power of two up to 256 on which an address starts: what an algorithm may rely on.
inline uint32_t alignment_of(const void* data) noexcept {
    const auto address = reinterpret_cast<uintptr_t>(data) | 256;
    return static_cast<uint32_t>(address & (~address + 1));
}

inline ProductKey key_of(const Gemm& g) noexcept {
    ProductKey key;
    std::memset(&key, 0, sizeof key);  // compared with its padding
    key.m = g.m;
    key.n = g.n;
    key.k = g.k;
    key.a_stride = g.a.stride;
    key.b_stride = g.b.stride;
    key.c_stride = g.c_stride;
    key.a_align = alignment_of(g.a.data);
    key.b_align = alignment_of(g.b.data);
    key.c_align = alignment_of(g.c);
    key.add_align = alignment_of(g.add != nullptr ? g.add : g.c);
    key.bias_align = alignment_of(g.bias);
    key.in = g.in;
    key.out = g.out;
    key.a_transposed = g.a.transposed;
    key.b_transposed = g.b.transposed;
    key.adds = g.add != nullptr;
    key.biased = g.bias != nullptr;
    return key;
}

inline bool is_same(const ProductKey& a, const ProductKey& b) noexcept {
    return std::memcmp(&a, &b, sizeof a) == 0;
}

}  // namespace plumb::cuda
