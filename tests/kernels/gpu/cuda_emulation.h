// CUDA's names for plain C++, so that kernels/cuda compiles and runs on a CPU, for tests: a block's
// threads are fibers that run one at a time, from one barrier or warp collective to the next. A
// block's shared memory is NaN before it starts and has a red zone behind. What the hardware may do
// in any order is done in the order of the threads or, when reversed, backwards: results that
// differ between the two need a barrier that is missing. Collectives must have all 32 lanes, and a
// barrier all threads of the block; anything else aborts with its reason.
// Path: cold.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <type_traits>

#include "kernels/cuda/prepare.h"
#include "runtime/base/check.h"

#define __global__ static
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct EmulatedIndex {
    unsigned x = 0, y = 0, z = 0;
};
extern EmulatedIndex threadIdx, blockIdx, blockDim, gridDim;

namespace plumb::cuda {

namespace emulation {

// Which thread of a block goes first, and when lanes run (gpu_emulation.h).
void set_reversed(bool reversed);
bool is_reversed();

// As gpu_emulation.h has it.
bool take_for_kernel();

// Puts a kernel on the lane of a Gpu whose stream this is, or into the graph that is captured
// there.
void put_launch(void* stream, std::function<void()> launch);

// Runs body() as every thread of every block.
void run_grid(int64_t blocks, int64_t blocks_y, int threads, int64_t shared_bytes,
              const std::function<void()>& body);
char* shared_memory();
void barrier();

// Every lane gives `size_bytes` at `mine`; returns what lane l gave at index l, in 64 bytes each,
// until this lane's collective after the next.
constexpr int kLaneBytes = 64;
const unsigned char* exchange(const void* mine, int size_bytes);

template <typename T>
T lane_value(const unsigned char* lanes, int lane) {
    static_assert(sizeof(T) <= kLaneBytes && std::is_trivially_copyable_v<T>);
    T value;
    std::memcpy(&value, lanes + lane * kLaneBytes, sizeof value);
    return value;
}
inline int lane() {
    return static_cast<int>(threadIdx.x % 32);
}

// A deferred copy; done by wait().
void copy_later(void* to, const void* from, bool valid);
void commit_copies();
void wait_copies(int but_last);

}  // namespace emulation

struct Launch;
// launch<kernel>({blocks, threads, stream, shared_bytes, blocks_y}, arguments...). Without a stream
// the kernel has run when this returns; on a lane, it must have been prepared.
template <auto kernel, typename At = Launch, typename... A>
void launch(const At& at, A... arguments) noexcept {
    static bool prepared = false;
    if (at.blocks == 0 || at.blocks_y == 0) return;
    if (is_preparing()) {
        prepared = prepared || emulation::take_for_kernel();
        return;
    }
    const auto run = [=] {
        emulation::run_grid(at.blocks, at.blocks_y, at.threads, at.shared_bytes,
                            [&] { kernel(arguments...); });
    };
    if (at.stream == nullptr) return run();
    CHECK_NOTE(prepared, "a kernel that was not prepared when its op was bound");
    emulation::put_launch(at.stream, run);
}

inline char* block_shared() {
    return emulation::shared_memory();
}
inline void copy_async_16(void* shared, const void* global, bool valid) {
    emulation::copy_later(shared, global, valid);
}
inline void copy_async_commit() {
    emulation::commit_copies();
}
template <int n>
void copy_async_wait() {
    emulation::wait_copies(n);
}
void load_matrices(uint32_t (&r)[4], const void* row);
void load_matrices_transposed(uint32_t (&r)[4], const void* row);
void multiply_tiles_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
void multiply_tiles_f16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
uint32_t round_pair_bf16(float x, float y);
uint32_t round_pair_f16(float x, float y);
inline float exp2_of(float x) {
    const float y = std::exp2(x);
    return y < 0x1p-126F ? 0.0F : y;
}

}  // namespace plumb::cuda

inline void __syncthreads() {
    plumb::cuda::emulation::barrier();
}
inline void __syncwarp(unsigned = 0xFFFFFFFFU) {
    const char nothing = 0;
    plumb::cuda::emulation::exchange(&nothing, 1);
}
template <typename T>
T __shfl_sync(unsigned, T value, int lane) {
    const auto* lanes = plumb::cuda::emulation::exchange(&value, sizeof value);
    return plumb::cuda::emulation::lane_value<T>(lanes, lane & 31);
}
template <typename T>
T __shfl_xor_sync(unsigned, T value, int mask) {
    const auto* lanes = plumb::cuda::emulation::exchange(&value, sizeof value);
    return plumb::cuda::emulation::lane_value<T>(lanes, plumb::cuda::emulation::lane() ^ mask);
}
template <typename T>
T __shfl_down_sync(unsigned, T value, int step) {
    const auto* lanes = plumb::cuda::emulation::exchange(&value, sizeof value);
    const int from = plumb::cuda::emulation::lane() + step;
    return plumb::cuda::emulation::lane_value<T>(lanes,
                                                 from < 32 ? from : plumb::cuda::emulation::lane());
}
template <typename T>
T __shfl_up_sync(unsigned, T value, int step) {
    const auto* lanes = plumb::cuda::emulation::exchange(&value, sizeof value);
    const int from = plumb::cuda::emulation::lane() - step;
    return plumb::cuda::emulation::lane_value<T>(lanes,
                                                 from >= 0 ? from : plumb::cuda::emulation::lane());
}
inline unsigned __ballot_sync(unsigned, int predicate) {
    const char mine = predicate != 0 ? 1 : 0;
    const auto* lanes = plumb::cuda::emulation::exchange(&mine, 1);
    unsigned ballot = 0;
    for (int l = 0; l < 32; ++l)
        if (plumb::cuda::emulation::lane_value<char>(lanes, l) != 0) ballot |= 1U << l;
    return ballot;
}
inline int __any_sync(unsigned mask, int predicate) {
    return __ballot_sync(mask, predicate) != 0 ? 1 : 0;
}
inline int __all_sync(unsigned mask, int predicate) {
    return __ballot_sync(mask, predicate) == 0xFFFFFFFFU ? 1 : 0;
}
// A product that is not fused with what is done to it.
inline float __fmul_rn(float a, float b) {
    return a * b;
}
inline int __popc(unsigned bits) {
    return __builtin_popcount(bits);
}
inline int __ffs(int bits) {
    return __builtin_ffs(bits);
}
// Integers only: kernels add no floating-point numbers atomically.
template <typename T>
T atomicAdd(T* at, T value) {
    static_assert(std::is_integral_v<T>);
    const T before = *at;
    *at = static_cast<T>(before + value);
    return before;
}
template <typename T>
T atomicMax(T* at, T value) {
    static_assert(std::is_integral_v<T>);
    const T before = *at;
    if (value > before) *at = value;
    return before;
}
template <typename T>
T atomicOr(T* at, T value) {
    static_assert(std::is_integral_v<T>);
    const T before = *at;
    *at = static_cast<T>(before | value);
    return before;
}
