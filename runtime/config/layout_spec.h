// How a run is spread over ranks and what is recomputed instead of stored. Names follow Megatron,
// shortened; --help gives the long words. Every field changes where and in which order the same
// training happens, never what is trained, so none of them is in the model or training hash.
// The axes exist from the start; load_run accepts the values this version implements.
// Path: cold.
#pragma once

#include <string>

#include "runtime/base/types.h"

namespace plumb {

// How gradients are summed over micro-batches and ranks (design: fast adds as it goes, exact adds
// whole micro-batch gradients in their order, so that the layout cannot change a bit).
enum class Reduction : int32_t { fast, exact };

// What the backward computes again instead of the forward saving it. None changes a bit.
//   selective  outputs of the blocks' norms and of their activation function
//   attention  the core attention (Megatron's "selective"): q, k, v are saved, its output is not
//   block      everything but one boundary every `blocks` blocks
enum class RecomputeKind : int32_t { none, selective, attention, block };
struct Recompute {
    RecomputeKind kind = RecomputeKind::none;
    int64_t blocks = 0;  // K of block:K; 0 for the other kinds

    bool operator==(const Recompute&) const = default;
};

struct LayoutSpec {
    int64_t data = 1;
    int64_t pipeline = 1;
    int64_t tensor = 1;
    int64_t context = 1;
    int64_t expert = 1;
    int64_t zero = 0;
    Reduction reduction = Reduction::fast;
    std::string schedule = "1f1b";
    Recompute recompute;

    bool operator==(const LayoutSpec&) const = default;
    int64_t rank_count() const { return data * pipeline * tensor * context * expert; }
};

}  // namespace plumb
