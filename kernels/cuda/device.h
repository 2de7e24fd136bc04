// The GPU as kernels see it: CUDA's own names (threadIdx, __syncthreads, __shfl_xor_sync) and, for
// what has no name in the language, thin functions: launches, shared memory, asynchronous copies
// and tensor-core tiles. Everything that kernels use of CUDA stands here or is one of CUDA's names
// that the emulation of tests/kernels/gpu gives too, so that the same .cu files compile as
// plain C++ and run on a CPU. Warps are always whole: block sizes are multiples of 32 and every
// collective has all lanes.
// Path: hot.
#pragma once

#include "kernels/kernels.h"

#ifdef __CUDACC__
#include <cuda_runtime.h>

#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/prepare.h"

// What assert() calls; declared by CUDA only where assert() is on.
extern "C" __host__ __device__ void __assert_fail(const char* assertion, const char* file,
                                                  unsigned line, const char* function) noexcept;
#else
#include <cuda_emulation.h>
#endif

namespace plumb::cuda {

constexpr int kWarp = 32;
constexpr uint32_t kAllLanes = 0xFFFFFFFFU;

struct Launch {
    int64_t blocks;  // of x
    int threads;     // of a block, a multiple of kWarp
    void* stream;    // cudaStream_t
    int64_t shared_bytes = 0;
    int64_t blocks_y = 1;
};

#ifdef __CUDACC__

// launch<kernel>({blocks, threads, stream}, arguments...): kernel<<<>>>. More than 48 KiB of shared
// memory is asked for once per kernel.
template <auto kernel, typename... A>
void launch(const Launch& at, A... arguments) noexcept {
    if (at.blocks == 0 || at.blocks_y == 0) return;
    if (is_preparing()) {
        cudaFuncAttributes loaded;  // asking for them loads the kernel's code
        if (!CUDA_GRANTED(cudaFuncGetAttributes(&loaded, kernel)))
            return note_no_memory(kKernelCode);
    }
    constexpr int64_t kSharedDefault = 48 * kKiB;
    if (at.shared_bytes > kSharedDefault) {
        static int64_t granted = 0;
        if (granted < at.shared_bytes) {
            CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                            static_cast<int>(at.shared_bytes)));
            granted = at.shared_bytes;
        }
    }
    if (is_preparing()) return;
    kernel<<<dim3(static_cast<unsigned>(at.blocks), static_cast<unsigned>(at.blocks_y)),
             static_cast<unsigned>(at.threads), static_cast<size_t>(at.shared_bytes),
             static_cast<cudaStream_t>(at.stream)>>>(arguments...);
    CUDA_CHECK(cudaPeekAtLastError());
}

// The block's dynamic shared memory, 128-byte aligned.
__device__ __forceinline__ char* block_shared() {
    extern __shared__ __align__(128) char plumb_shared[];
    return plumb_shared;
}

// 16 bytes from global to shared memory, zeros when !valid; visible to this thread after the wait,
// to the block after a barrier behind it. wait<n>: all but the last n commits have arrived.
__device__ __forceinline__ void copy_async_16(void* shared, const void* global, bool valid) {
    const auto to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global),
                 "r"(valid ? 16 : 0)
                 : "memory");
}
__device__ __forceinline__ void copy_async_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int n>
__device__ __forceinline__ void copy_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(n) : "memory");
}

// Four 8 x 8 matrices of 16-bit values: lane l gives the address of row l % 8 of matrix l / 8 and
// gets of each matrix elements (l / 4, 2 * (l % 4)) and the next; transposed, of its transpose.
__device__ __forceinline__ void load_matrices(uint32_t (&r)[4], const void* row) {
    const auto from = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from)
                 : "memory");
}
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&r)[4], const void* row) {
    const auto from = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from)
                 : "memory");
}

// c_16x8 += a_16x16 * b_16x8 of pairs of bf16 or f16, in the fragments of PTX's mma.m16n8k16: with
// g = lane / 4 and t = lane % 4, a = (g, 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8) and each
// one's right neighbour; b = (2t, g), (2t + 8, g) and the one below; c = (g, 2t), (g, 2t + 1),
// (g + 8, 2t), (g + 8, 2t + 1).
__device__ __forceinline__ void multiply_tiles_bf16(float (&c)[4], const uint32_t (&a)[4],
                                                    const uint32_t (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
        "{%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ void multiply_tiles_f16(float (&c)[4], const uint32_t (&a)[4],
                                                   const uint32_t (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
        "{%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Two numbers rounded to nearest even, as a pair of the tiles above: x in the low half.
__device__ __forceinline__ uint32_t round_pair_bf16(float x, float y) {
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(y), "f"(x));
    return pair;
}
__device__ __forceinline__ uint32_t round_pair_f16(float x, float y) {
    uint32_t pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(y), "f"(x));
    return pair;
}

// 2^x in one instruction, within 2 ulps; 0 where that is below 2^-126.
__device__ __forceinline__ float exp2_of(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

#endif

// An invariant of the data that a kernel finds broken: the launch fails, and with it the program.
__device__ __forceinline__ void check_on_device(bool condition, const char* note) {
#ifdef __CUDACC__
    if (!condition) __assert_fail(note, __FILE__, __LINE__, "a kernel");
#else
    CHECK_NOTE(condition, note);
#endif
}

// Sums and maxima of a warp in every lane, by a butterfly: the same order for every lane and run.
template <typename T>
__device__ __forceinline__ T warp_sum(T v) {
    for (int step = kWarp / 2; step > 0; step /= 2) v += __shfl_xor_sync(kAllLanes, v, step);
    return v;
}
template <typename T>
__device__ __forceinline__ T warp_max(T v) {
    for (int step = kWarp / 2; step > 0; step /= 2) {
        const T other = __shfl_xor_sync(kAllLanes, v, step);
        v = other > v ? other : v;
    }
    return v;
}
// The same of a block, in every thread: warps in order. `shared` has a T for each warp and is free
// again at the block's next barrier after the next use.
template <typename T>
__device__ __forceinline__ T block_sum(T v, T* shared) {
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    const int warps = static_cast<int>(blockDim.x) / kWarp;
    v = warp_sum(v);
    if (static_cast<int>(threadIdx.x) % kWarp == 0) shared[warp] = v;
    __syncthreads();
    T sum = shared[0];
    for (int w = 1; w < warps; ++w) sum += shared[w];
    __syncthreads();
    return sum;
}
template <typename T>
__device__ __forceinline__ T block_max(T v, T* shared) {
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    const int warps = static_cast<int>(blockDim.x) / kWarp;
    v = warp_max(v);
    if (static_cast<int>(threadIdx.x) % kWarp == 0) shared[warp] = v;
    __syncthreads();
    T max = shared[0];
    for (int w = 1; w < warps; ++w) max = shared[w] > max ? shared[w] : max;
    __syncthreads();
    return max;
}

}  // namespace plumb::cuda
