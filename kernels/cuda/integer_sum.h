// Sums of integers over a whole tensor, in two launches and in any order: every thread adds up its
// elements, every block its threads, and one block the blocks. 128-bit numbers travel as four limbs
// of 32 bits in 64, whose sums need no carries: 2^32 limbs fit, and a grid has fewer threads.
// Path: hot.
#pragma once

#include "kernels/cuda/device.h"
#include "kernels/cuda/scratch.h"

namespace plumb::cuda {

using Uint128 = unsigned __int128;
constexpr size_t kLimbs = 4;

template <size_t n>
struct SumParts {
    uint64_t part[n];
};

// Shared memory of block_sums<n>: partial sums of the warps, then room for n results.
template <size_t n>
constexpr int64_t kSumSharedBytes = static_cast<int64_t>(n) * (kSumThreads / kWarp + 1) * 8;

// to[i * stride] = the block's sum of part i, written by thread i.
template <size_t n>
__device__ __forceinline__ void block_sums(const SumParts<n>& v, uint64_t* to, int64_t stride) {
    constexpr size_t kWarps = kSumThreads / kWarp;
    uint64_t* shared = reinterpret_cast<uint64_t*>(block_shared());
    const size_t thread = threadIdx.x;
    for (size_t i = 0; i < n; ++i) {
        const uint64_t sum = warp_sum(v.part[i]);
        if (thread % kWarp == 0) shared[i * kWarps + thread / kWarp] = sum;
    }
    __syncthreads();
    if (thread >= n) return;
    uint64_t sum = 0;
    for (size_t w = 0; w < kWarps; ++w) sum += shared[thread * kWarps + w];
    to[static_cast<int64_t>(thread) * stride] = sum;
}

__device__ __forceinline__ void split_limbs(Uint128 value, uint64_t* limbs) {
    for (size_t i = 0; i < kLimbs; ++i) limbs[i] = static_cast<uint32_t>(value >> (32 * i));
}
// The number of limbs that have not been carried, and what is above 128 bits.
__device__ __forceinline__ Uint128 join_limbs(const uint64_t* limbs, uint64_t* above) {
    Uint128 value = 0;
    uint64_t carry = 0;
    for (size_t i = 0; i < kLimbs; ++i) {
        const uint64_t limb = limbs[i] + carry;  // carries are below 2^32
        value |= static_cast<Uint128>(static_cast<uint32_t>(limb)) << (32 * i);
        carry = limb >> 32;
    }
    *above = carry;
    return value;
}

// body(i, n, load(i, n)) on the elements [i, i + n) of `count`, by all threads of a grid: n is 4
// but for the last. Loads of four are under way at once: nothing is stored that would hide the
// latency.
template <typename Load, typename Body>
__device__ __forceinline__ void for_each_four(int64_t count, const Load& load, const Body& body) {
    constexpr int kEach = 4, kAhead = 4;
    const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x * kEach;
    int64_t i = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * kEach;
    for (; i + (kAhead - 1) * stride + kEach <= count; i += kAhead * stride) {
        decltype(load(i, kEach)) values[kAhead];
        for (int a = 0; a < kAhead; ++a) values[a] = load(i + a * stride, kEach);
        for (int a = 0; a < kAhead; ++a) body(i + a * stride, kEach, values[a]);
    }
    for (; i < count; i += stride) {
        const int n = count - i < kEach ? static_cast<int>(count - i) : kEach;
        body(i, n, load(i, n));
    }
}

// A block's last step: its sums to its place among the partial sums.
template <size_t n>
__device__ __forceinline__ void store_partial(const SumParts<n>& v, uint64_t* partial) {
    static_assert(n <= kSumParts);
    block_sums(v, partial + blockIdx.x, gridDim.x);
}
// The sums of all blocks, by one block of kSumThreads; visible to all its threads.
template <size_t n>
__device__ __forceinline__ const uint64_t* sum_partials(const uint64_t* partial, int64_t blocks) {
    SumParts<n> v{};
    for (int64_t b = threadIdx.x; b < blocks; b += kSumThreads)
        for (size_t i = 0; i < n; ++i) v.part[i] += partial[static_cast<int64_t>(i) * blocks + b];
    uint64_t* sums = reinterpret_cast<uint64_t*>(block_shared()) + n * (kSumThreads / kWarp);
    block_sums(v, sums, 1);
    __syncthreads();
    return sums;
}

}  // namespace plumb::cuda
