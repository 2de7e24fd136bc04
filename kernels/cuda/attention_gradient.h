// What the kernels of attention's gradients are given, and the tiles that their blocks take. dq is
// made by blocks of queries, dk and dv by blocks of keys: each sums in its own order, nothing is
// added by two blocks. The scores are made again by both.
// Path: hot.
#pragma once

#include "kernels/cuda/attention_view.h"

namespace plumb::cuda {

template <typename T>
struct AttentionGradient {
    AttentionView<T> x;  // its o is not read
    const T* d_o;
    const float* lse;
    const float* delta;  // o . do, laid like lse
    T* dq;               // rows of q_row, heads as in q
    T* dk;               // rows of kv_row
    T* dv;
};

// The tile of keys of a block, of one key/value head. Early keys are seen by more queries: their
// blocks start first.
struct KeyTask {
    int64_t b;
    int32_t g;
    int64_t key;
};
template <typename T>
__device__ __forceinline__ KeyTask key_task(const AttentionView<T>& x, int64_t tile) {
    const int64_t rows = x.batch * x.kv_heads;
    const int64_t row = static_cast<int64_t>(blockIdx.x) % rows;
    return {row / x.kv_heads, static_cast<int32_t>(row % x.kv_heads),
            static_cast<int64_t>(blockIdx.x) / rows * tile};
}
template <typename T>
int64_t key_blocks(const AttentionView<T>& x, int64_t tile) {
    return x.batch * x.kv_heads * ceil_div(x.kv_tokens, tile);
}

// A query as the gradient of its scores needs it: p = exp2(s * scale - lse), ds = p (dp - delta).
struct QueryStats {
    KeyRange keys;
    float lse;  // in units of log2
    float delta;
};
template <typename T>
__device__ __forceinline__ QueryStats stats_of(const AttentionGradient<T>& g, int64_t b, int32_t h,
                                               int64_t t) {
    QueryStats q{keys_of(g.x, b, t), 0.0F, 0.0F};
    if (q.keys.high < q.keys.low) return q;
    const int64_t at = (b * g.x.heads + h) * g.x.tokens + t;
    q.lse = g.lse[at] * kLog2E;
    q.delta = g.delta[at];
    return q;
}
// The probability of key `index` of score s, and the score's gradient of the probability's, dp.
__device__ __forceinline__ float probability(const QueryStats& q, int32_t index, float scale,
                                             float s) {
    return index >= q.keys.low && index <= q.keys.high ? exp2f(s * scale - q.lse) : 0.0F;
}
__device__ __forceinline__ float score_gradient(const QueryStats& q, float p, float dp) {
    return p * (dp - q.delta);
}

}  // namespace plumb::cuda
