// What of a matrix product decides how it is computed: all but its addresses, of which only the
// alignments count. Products that are equal in it share a descriptor and an algorithm; it is also
// what a table of algorithms is keyed by (gemm_table.h). Plain C++, so that it is tested without a
// GPU.
// Path: hot.
#pragma once

#include <compare>

#include "kernels/cuda/gemm.h"

namespace plumb::cuda {

inline constexpr int kProductsMax = 1024;
// No algorithm reads more than 16 bytes at once or wants more of an address (cuBLAS's own advice
// for tensor cores). Were more told apart, equal products of a model's layers, or of plans that
// place tensors differently, would have different algorithms and so different bits.
inline constexpr int kAlignMax = 16;

struct ProductKey {
    int64_t m, n, k, a_stride, b_stride, c_stride;
    // The largest power of two up to kAlignMax on which each starts: what an algorithm may rely on.
    uint16_t a_align, b_align, c_align;
    uint16_t add_align, bias_align;  // 0: there is none
    Dtype in, out;
    bool a_transposed, b_transposed;
    bool tf32;  // factors are f32 and rounded to tf32

    auto operator<=>(const ProductKey&) const = default;
};

ProductKey key_of(const Gemm& g) noexcept;

// Products numbered in the order in which they were added, found by their key in constant time: it
// happens at every launch that is not in a graph.
class ProductIndex {
  public:
    int count() const noexcept { return count_; }
    const ProductKey& key(int number) const noexcept { return key_[number]; }
    int find(const ProductKey& key) const noexcept;  // -1 when it is not there
    // Returns its number. It must not be there yet, and count() be below kProductsMax.
    int add(const ProductKey& key) noexcept;

  private:
    // Open addressing, at most half full: the number + 1, or 0 where nothing is.
    static constexpr int kSlots = 2 * kProductsMax;
    int slot_of(const ProductKey& key) const noexcept;

    ProductKey key_[kProductsMax] = {};
    int16_t slot_[kSlots] = {};
    int count_ = 0;
};

}  // namespace plumb::cuda
