// What the attention kernels are given: rows of queries, rows of keys and values, and which keys
// each query sees. Training and a cache differ only here. A block works on a tile of queries (or of
// keys) of one head; tiles of keys start on multiples of their size, so that the sums of a query do
// not depend on the queries beside it.
// Path: hot.
#pragma once

#include "kernels/cuda/values.h"

#ifndef __CUDACC__
#include <cmath>
#endif

namespace plumb::cuda {

constexpr float kLog2E = 1.44269504F;
constexpr float kLn2 = 0.693147181F;
constexpr float kMinusInfinity = -__builtin_inff();
constexpr int32_t kIndexMax = 0x7FFFFFFF;

template <typename T>
struct AttentionView {
    const T* q;  // token t of row b at (b * tokens + t) * q_row, head h at h * size in it
    int64_t q_row;
    const T* k;  // token j of sequence n at (n * kv_tokens + j) * kv_row
    const T* v;
    int64_t kv_row;
    int64_t kv_tokens;
    const int32_t* starts;     // of segments; absent: 0
    const int32_t* positions;  // the last key a query sees, none when negative; absent: the query's
    const int32_t* sequences;  // whose keys row b sees; absent: b's
    T* o;                      // token t of row b at (b * tokens + t) * heads * size
    float* lse;                // optional
    int64_t batch;
    int64_t tokens;
    int32_t heads;
    int32_t kv_heads;
    int32_t size;
    float scale;
};

// Sets o and lse (attention.cu).
template <typename T>
void attend(const AttentionView<T>& x, void* stream) noexcept;

// Of training: q, k and v in one row of qkv.
template <typename T>
AttentionView<T> training_view(const KernelArgs& args, const Shape& shape, const T* qkv) {
    const AttentionAttrs& a = args.attrs->attention;
    const int64_t heads = a.heads, size = a.head_size, row = shape.last();
    ASSERT(row == (heads + 2 * a.kv_heads) * size && heads % a.kv_heads == 0);
    AttentionView<T> x = {};
    x.q = qkv;
    x.k = qkv + heads * size;
    x.v = x.k + a.kv_heads * size;
    x.q_row = x.kv_row = row;
    x.batch = shape.dim[0];
    x.tokens = x.kv_tokens = shape.dim[1];
    x.heads = a.heads;
    x.kv_heads = a.kv_heads;
    x.size = a.head_size;
    x.scale = static_cast<float>(a.scale);
    return x;
}

// The keys low .. high of a query; none when high < low.
struct KeyRange {
    int32_t low;
    int32_t high;
};
template <typename T>
__device__ __forceinline__ KeyRange keys_of(const AttentionView<T>& x, int64_t b, int64_t t) {
    if (t >= x.tokens) return {kIndexMax, -1};
    const int64_t at = b * x.tokens + t;
    const int32_t last = static_cast<int32_t>(x.kv_tokens) - 1;
    const int32_t high = x.positions != nullptr ? x.positions[at] : static_cast<int32_t>(t);
    const int32_t low = x.starts != nullptr ? x.starts[at] : 0;
    return {low > 0 ? low : 0, high < last ? high : last};
}
// From the first to the last key that any of the queries t .. t + count sees; in every warp.
template <typename T>
__device__ __forceinline__ KeyRange keys_of_tile(const AttentionView<T>& x, int64_t b, int64_t t,
                                                 int count) {
    int32_t low = kIndexMax, high = -1;
    for (int i = static_cast<int>(threadIdx.x) % kWarp; i < count; i += kWarp) {
        const KeyRange keys = keys_of(x, b, t + i);
        if (keys.high < keys.low) continue;
        low = keys.low < low ? keys.low : low;
        high = keys.high > high ? keys.high : high;
    }
    return {-warp_max(-low), warp_max(high)};
}
template <typename T>
__device__ __forceinline__ int64_t sequence_of(const AttentionView<T>& x, int64_t b) {
    return x.sequences != nullptr ? x.sequences[b] : b;
}
// Key 0 of the head that query head h of row b sees, in k; the same distance in v.
template <typename T>
__device__ __forceinline__ int64_t first_key(const AttentionView<T>& x, int64_t b, int32_t h) {
    const int32_t g = h / (x.heads / x.kv_heads);
    return sequence_of(x, b) * x.kv_tokens * x.kv_row + static_cast<int64_t>(g) * x.size;
}

// A pack, or one value where the size of heads is no multiple of it: loads whose
// packs stay in registers.
template <typename T>
__device__ __forceinline__ Pack<T> load_step(const T* from, bool packed) {
    if (packed) return load_pack(from);
    Pack<T> pack = {};
    pack.value[0] = *from;
    return pack;
}
template <typename T>
__device__ __forceinline__ void store_step(T* to, const Pack<T>& pack, bool packed) {
    if (packed)
        store_pack(to, pack);
    else
        *to = pack.value[0];
}

// The tile of queries of a block. Late queries see more keys: their blocks start first.
struct QueryTask {
    int32_t b;
    int32_t h;
    int32_t t;
};
template <typename T>
__device__ __forceinline__ QueryTask query_task(const AttentionView<T>& x, int32_t tile) {
    const auto block = static_cast<int32_t>(blockIdx.x);
    const int32_t rows = static_cast<int32_t>(x.batch) * x.heads, row = block % rows;
    const int32_t tiles = static_cast<int32_t>(ceil_div(x.tokens, int64_t{tile}));
    return {row / x.heads, row % x.heads, (tiles - 1 - block / rows) * tile};
}
template <typename T>
int64_t query_blocks(const AttentionView<T>& x, int64_t tile) {
    return x.batch * x.heads * ceil_div(x.tokens, tile);
}

}  // namespace plumb::cuda
