// Attention of one block of queries of one head over a range of keys, with the streaming softmax of
// FlashAttention (Dao et al. 2022). Vectors run over queries: scores, maxima and sums of a block
// need no sum across lanes, and any head size will do. Float keys and values are read in place,
// those of fewer bits are widened block by block: scores, probabilities and sums are always fp32.
// Path: hot.
#pragma once

#include "kernels/kernels.h"

namespace plumb::cpu::PLUMB_ISA {

template <typename T>
struct AttentionBlock {
    const T* q;  // first query; rows q_row apart
    int64_t q_row;
    int64_t queries;  // <= kAttentionQueryBlock
    const T* k;       // key 0; rows kv_row apart
    const T* v;
    int64_t kv_row;
    int64_t head_size;
    float scale;
    int64_t key_begin;  // union of the queries' ranges
    int64_t key_end;
    T* o;  // first query; rows o_row apart
    int64_t o_row;
    float* lse;  // of the queries; optional
};

// Which keys each query sees: those in [low, high]. Lanes past the last query repeat it, and the
// extremes tell which blocks of keys need no mask.
struct KeyRanges {
    alignas(64) int32_t low[64];
    alignas(64) int32_t high[64];
    int32_t low_max;
    int32_t high_min;
};

// scratch: attention_scratch_floats. Of float, Bf16 and F16.
template <typename T>
void attend_block(const AttentionBlock<T>& x, const KeyRanges& ranges, float* scratch) noexcept;

}  // namespace plumb::cpu::PLUMB_ISA
