// Attention of the few tokens of a decode: reading the cache is all its time, so each block reads
// one part of kDecodePart positions of one key/value head, once from memory, for all queries that
// see it. Of each query it leaves a part's sums in scratch, and a second kernel adds the parts in
// order. The block of a new token's position also writes that token into the cache.
// Path: hot.
#pragma once

#include "kernels/cuda/attention_view.h"
#include "kernels/cuda/scratch.h"

namespace plumb::cuda {

constexpr int kDecodeThreads = 128;
constexpr int kDecodeRows = 4;  // queries at once: a part is read again from L1 for the next
constexpr int kPart = static_cast<int>(kDecodePart);
static_assert(kDecodeThreads == 2 * kPart && kDecodeRows == kDecodeThreads / kWarp);

// New keys and values, and where they go; laid as in AttentionView.
template <typename T>
struct NewTokens {
    const T* k;
    const T* v;
    int64_t row;
    T* k_cache;
    T* v_cache;
};

// Scratch: of each query (row (b * tokens + t) * heads + h) and part: `size` sums, top, total.
struct DecodeParts {
    float* sums;
    float* tops;
    float* totals;
    int64_t parts;
};
inline DecodeParts decode_parts(void* scratch, int64_t rows, int64_t positions, int64_t size) {
    const int64_t parts = ceil_div(positions, kDecodePart);
    auto* sums = static_cast<float*>(scratch);
    float* tops = sums + rows * parts * size;
    return {sums, tops, tops + rows * parts, parts};
}

// A query that sees some of a block's part.
struct DecodeRow {
    int64_t at;  // of o and of the parts, in rows; -1: none
    int64_t q;
    int32_t high;
    int32_t reserved;
};

// Shared memory: rows; floats of queries, probabilities, sums of threads.
inline int64_t decode_shared_bytes(int64_t size, int64_t pack) {
    return kDecodeRows * (size + kPart + kDecodeThreads * pack) * int64_t{sizeof(float)} +
           kDecodeRows * int64_t{sizeof(DecodeRow)};
}

template <typename T>
__device__ __forceinline__ void copy_head(T* to, const T* from, int size) {
    const bool packed = size % kPack<T> == 0;
    const int step = packed ? kPack<T> : 1;
    for (int d = static_cast<int>(threadIdx.x) * step; d < size; d += kDecodeThreads * step) {
        const Pack<T> pack = load_step(from + d, packed);
        store_step(to + d, pack, packed);
    }
}

// What a block works on: key/value head g of row b, positions begin .. end.
struct DecodeTask {
    int64_t b;
    int32_t g;
    int64_t part;
    int32_t begin;
    int32_t count;
    int64_t key_0;  // of position 0
};

// Scores of kDecodeRows queries, in units of log2: two threads a position.
template <typename T>
__device__ __forceinline__ void decode_scores(const AttentionView<T>& x, const DecodeTask& task,
                                              const float* q, const DecodeRow* rows, float* p) {
    const bool packed = x.size % kPack<T> == 0;
    const int step = packed ? kPack<T> : 1;
    const int j = static_cast<int>(threadIdx.x) / 2;
    float dots[kDecodeRows] = {};
    const T* k = x.k + task.key_0 + (task.begin + j) * x.kv_row;
    for (int d = static_cast<int>(threadIdx.x) % 2 * step; j < task.count && d < x.size;
         d += 2 * step) {
        const Pack<T> pack = load_step(k + d, packed);
        for (int n = 0; n < kPack<T>; ++n) {
            const float value = widen(pack.value[n]);
            for (int r = 0; r < kDecodeRows && (packed || n == 0); ++r)
                dots[r] += value * q[r * x.size + d + n];
        }
    }
    for (int r = 0; r < kDecodeRows; ++r) {
        const float dot = dots[r] + __shfl_xor_sync(kAllLanes, dots[r], 1);
        const bool seen = task.begin + j <= rows[r].high;
        if (threadIdx.x % 2 == 0)
            p[r * kPart + j] = seen ? dot * (x.scale * kLog2E) : kMinusInfinity;
    }
}

// Warp r turns the scores of row r into exponentials and leaves their maximum and sum.
__device__ __forceinline__ void decode_softmax(float* p, float* top, float* total) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    float* row = p + static_cast<int>(threadIdx.x) / kWarp * kPart;
    const float a = row[lane], b = row[lane + kWarp];
    const float peak = warp_max(a > b ? a : b);
    const float base = peak == kMinusInfinity ? 0.0F : peak;
    row[lane] = exp2f(a - base);
    row[lane + kWarp] = exp2f(b - base);
    const float sum = warp_sum(row[lane] + row[lane + kWarp]);
    if (lane != 0 || top == nullptr) return;
    *top = peak;
    *total = sum;
}

// sums(r, d, value) for the columns of all rows: a thread takes a pack of columns of every n-th
// position, then the threads' sums are added in order.
template <typename T, typename Sums>
__device__ __forceinline__ void decode_values(const AttentionView<T>& x, const DecodeTask& task,
                                              const float* p, float* shared, const Sums& sums) {
    const bool packed = x.size % kPack<T> == 0;
    const int step = packed ? kPack<T> : 1;
    int across = 1;
    while (across < kDecodeThreads && across * step < x.size) across *= 2;
    const int turns = kDecodeThreads / across;
    const int column = static_cast<int>(threadIdx.x) % across * step;
    const int turn = static_cast<int>(threadIdx.x) / across;
    for (int d0 = 0; d0 < x.size; d0 += across * step) {
        float mine[kDecodeRows][kPack<T>] = {};
        const T* v = x.v + task.key_0 + task.begin * x.kv_row + d0 + column;
        for (int j = turn; j < task.count && d0 + column < x.size; j += turns) {
            const Pack<T> pack = load_step(v + j * x.kv_row, packed);
            for (int n = 0; n < kPack<T>; ++n)
                for (int r = 0; r < kDecodeRows; ++r)
                    mine[r][n] += p[r * kPart + j] * widen(pack.value[n]);
        }
        __syncthreads();
        for (int n = 0; n < kPack<T>; ++n)
            for (int r = 0; r < kDecodeRows && (packed || n == 0); ++r)
                shared[(turn * kDecodeRows + r) * across * step + column + n] = mine[r][n];
        __syncthreads();
        for (int i = static_cast<int>(threadIdx.x); i < kDecodeRows * across * step;
             i += kDecodeThreads) {
            float sum = 0.0F;
            for (int s = 0; s < turns; ++s) sum += shared[s * kDecodeRows * across * step + i];
            const int d = d0 + i % (across * step);
            if (d < x.size) sums(i / (across * step), d, sum);
        }
    }
}

template <typename T>
__global__ void __launch_bounds__(kDecodeThreads, 4)
    decode_part(AttentionView<T> x, NewTokens<T> added, DecodeParts out) {
    DecodeTask task;
    const int64_t row = static_cast<int64_t>(blockIdx.x) / out.parts;
    task.part = static_cast<int64_t>(blockIdx.x) % out.parts;
    task.b = row / x.kv_heads;
    task.g = static_cast<int32_t>(row % x.kv_heads);
    task.begin = static_cast<int32_t>(task.part) * kPart;
    const int32_t end = keys_of_tile(x, task.b, 0, static_cast<int>(x.tokens)).high + 1;
    if (end <= task.begin) return;
    task.count = end - task.begin < kPart ? end - task.begin : kPart;
    const int64_t head = static_cast<int64_t>(task.g) * x.size;
    task.key_0 = sequence_of(x, task.b) * x.kv_tokens * x.kv_row + head;
    for (int64_t t = 0; t < x.tokens; ++t) {
        const int64_t n = task.b * x.tokens + t;
        const int32_t position = x.positions[n];
        if (position < task.begin || position >= task.begin + task.count) continue;
        const int64_t to = task.key_0 + position * x.kv_row, from = n * added.row + head;
        copy_head(added.k_cache + to, added.k + from, x.size);
        copy_head(added.v_cache + to, added.v + from, x.size);
    }
    auto* row_at = reinterpret_cast<DecodeRow*>(block_shared());
    auto* q = reinterpret_cast<float*>(row_at + kDecodeRows);
    float* p = q + kDecodeRows * x.size;
    float* shared = p + kDecodeRows * kPart;
    const int32_t group = x.heads / x.kv_heads;
    const int32_t rows = group * static_cast<int32_t>(x.tokens);
    for (int32_t r0 = 0; r0 < rows; r0 += kDecodeRows) {
        __syncthreads();
        if (threadIdx.x < kDecodeRows) {
            const int32_t r = r0 + static_cast<int32_t>(threadIdx.x);
            const int32_t t = r / group, h = task.g * group + r % group;
            const int32_t high = r < rows ? keys_of(x, task.b, t).high : -1;
            const int64_t n = task.b * x.tokens + t;
            row_at[threadIdx.x] = {high >= task.begin ? n * x.heads + h : -1,
                                   n * x.q_row + static_cast<int64_t>(h) * x.size, high, 0};
        }
        __syncthreads();
        for (int i = static_cast<int>(threadIdx.x); i < kDecodeRows * x.size; i += kDecodeThreads) {
            const DecodeRow& r = row_at[i / x.size];
            q[i] = r.at < 0 ? 0.0F : widen(x.q[r.q + i % x.size]);
        }
        __syncthreads();
        decode_scores(x, task, q, row_at, p);
        __syncthreads();
        const int64_t mine = row_at[threadIdx.x / kWarp].at * out.parts + task.part;
        decode_softmax(p, mine < 0 ? nullptr : out.tops + mine, out.totals + mine);
        __syncthreads();
        decode_values(x, task, p, shared, [&](int r, int d, float sum) {
            const int64_t to = row_at[r].at * out.parts + task.part;
            if (to >= 0) out.sums[to * x.size + d] = sum;
        });
    }
}

// o of one query: its parts in order, every fourth by a warp.
template <typename T>
__global__ void __launch_bounds__(kDecodeThreads) decode_sum(AttentionView<T> x, DecodeParts from) {
    constexpr int kWarps = kDecodeThreads / kWarp;
    auto* shared = reinterpret_cast<float*>(block_shared());
    const int64_t row = blockIdx.x;
    const int64_t b = row / x.heads / x.tokens, t = row / x.heads % x.tokens;
    const int64_t parts = (keys_of(x, b, t).high + kDecodePart) / kDecodePart;
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    const float* tops = from.tops + row * from.parts;
    const float* totals = from.totals + row * from.parts;
    const float* sums = from.sums + row * from.parts * x.size;
    float top = kMinusInfinity, total = 0.0F;
    for (int64_t i = lane; i < parts; i += kWarp) top = tops[i] > top ? tops[i] : top;
    top = warp_max(top);
    for (int64_t i = lane; i < parts; i += kWarp) total += totals[i] * exp2f(tops[i] - top);
    total = warp_sum(total);
    const float inverse = total > 0.0F ? 1.0F / total : total;
    for (int d0 = 0; d0 < x.size; d0 += kWarp) {
        float sum = 0.0F;
        if (d0 + lane < x.size)
            for (int64_t i = warp; i < parts; i += kWarps)
                sum += exp2f(tops[i] - top) * sums[i * x.size + d0 + lane];
        shared[threadIdx.x] = sum;
        __syncthreads();
        for (int w = 1; w < kWarps; ++w) sum += shared[w * kWarp + lane];
        if (warp == 0 && d0 + lane < x.size)
            x.o[row * x.size + d0 + lane] = narrow<T>(sum * inverse);
        __syncthreads();
    }
}

}  // namespace plumb::cuda
