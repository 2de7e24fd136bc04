// Attention of one block of queries of one head over a range of keys, with the streaming softmax of
// FlashAttention (Dao et al. 2022). Vectors run over queries: scores, maxima and sums of a block
// need no sum across lanes, keys and values are read in place, and any head size will do.
// Path: hot.
#pragma once

#include "kernels/kernels.h"

namespace plumb::cpu::PLUMB_ISA {

struct AttentionBlock {
    const float* q;  // first query; rows q_row apart
    int64_t q_row;
    int64_t queries;  // <= kAttentionQueryBlock
    const float* k;   // key 0; rows kv_row apart
    const float* v;
    int64_t kv_row;
    int64_t head_size;
    float scale;
    int64_t key_begin;  // union of the queries' ranges
    int64_t key_end;
    float* o;  // first query; rows o_row apart
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

// scratch: attention_scratch_floats.
void attend_block(const AttentionBlock& x, const KeyRanges& ranges, float* scratch) noexcept;

}  // namespace plumb::cpu::PLUMB_ISA
