// The layout of the CUDA kernels' scratch, shared by the kernels and the traits. It depends on
// shapes only, never on the GPU, so that the bits of a result do not either.
// Path: hot.
#pragma once

#include "runtime/base/types.h"

namespace plumb::cuda {

// o . do of every query of every head.
constexpr int64_t attention_backward_scratch_bytes(int64_t rows) {
    return align_up(rows * 4, kAlignBytes);
}

// A decode, of at most so many tokens of a row, is split over parts of so many positions. Neither
// depends on anything: a row has the same bits in any batch and in a cache of any size. Of each
// query and part: its weighted sum of values, its largest score and its sum of exponentials.
constexpr int64_t kDecodeTokens = 4;
constexpr int64_t kDecodePart = 64;
constexpr int64_t attention_cached_scratch_bytes(int64_t tokens, int64_t rows, int64_t positions,
                                                 int64_t head_size) {
    if (tokens > kDecodeTokens) return 0;
    return align_up(rows * ceil_div(positions, kDecodePart) * (head_size + 2) * 4, kAlignBytes);
}

}  // namespace plumb::cuda
