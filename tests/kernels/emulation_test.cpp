// The emulated GPU itself: that it notices what a kernel may not do, and that its tiles are those
// of PTX. Without this the tests of the CUDA kernels would prove little.
#ifdef PLUMB_CUDA_EMULATION

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/cuda/device.h"
#include "kernels/cuda/values.h"
#include "runtime/base/dtype.h"

namespace plumb::cuda {
namespace {

constexpr int kThreads = 64;
constexpr int64_t kShared = kThreads * 4;

float* shared_floats() {
    return reinterpret_cast<float*>(block_shared());
}

// Each thread reads what its neighbour writes; with the barrier or without.
template <bool barrier>
__global__ void neighbours(float* to) {
    float* shared = shared_floats();
    const unsigned t = threadIdx.x;
    shared[t] = static_cast<float>(t);
    if (barrier) __syncthreads();
    to[t] = shared[(t + 1) % kThreads];
}

template <bool barrier>
std::vector<float> run_neighbours(bool reversed) {
    std::vector<float> result(kThreads);
    emulation::set_reversed(reversed);
    launch<neighbours<barrier>>(Launch{1, kThreads, nullptr, kShared}, result.data());
    emulation::set_reversed(false);
    return result;
}

TEST(Emulation, AMissingBarrierGivesDifferentResultsInTheTwoOrders) {
    const auto with = run_neighbours<true>(false);
    for (int t = 0; t < kThreads; ++t)
        EXPECT_EQ(with[static_cast<size_t>(t)], static_cast<float>((t + 1) % kThreads));
    EXPECT_EQ(run_neighbours<true>(true), with);
    const auto forwards = run_neighbours<false>(false), backwards = run_neighbours<false>(true);
    // What is read too early is NaN, not what a block before left there.
    EXPECT_TRUE(std::isnan(forwards[1]));
    EXPECT_EQ(backwards[1], 2.0F);
    EXPECT_EQ(forwards[kThreads - 1], 0.0F);
    EXPECT_TRUE(std::isnan(backwards[kThreads - 1]));
}

// Blocks too go in either order: one that reads what another wrote is found out.
__global__ void block_chain(int* value) {
    if (threadIdx.x == 0) *value = *value * 3 + static_cast<int>(blockIdx.x);
}

TEST(Emulation, BlocksRunInEitherOrder) {
    int forwards = 1, backwards = 1;
    launch<block_chain>(Launch{3, kWarp, nullptr}, &forwards);
    emulation::set_reversed(true);
    launch<block_chain>(Launch{3, kWarp, nullptr}, &backwards);
    emulation::set_reversed(false);
    EXPECT_EQ(forwards, ((1 * 3 + 0) * 3 + 1) * 3 + 2);
    EXPECT_EQ(backwards, ((1 * 3 + 2) * 3 + 1) * 3 + 0);
}

__global__ void write_behind(int bytes) {
    if (threadIdx.x == 0) block_shared()[bytes] = 1;
}

TEST(EmulationDeathTest, AWriteBehindSharedMemoryAborts) {
    launch<write_behind>(Launch{1, kWarp, nullptr, 128}, 127);
    EXPECT_DEATH(launch<write_behind>(Launch{1, kWarp, nullptr, 128}, 128), "shared memory");
    EXPECT_DEATH(launch<write_behind>(Launch{1, kWarp, nullptr, 128}, 300), "shared memory");
}

__global__ void barrier_of_some(unsigned threads) {
    if (threadIdx.x >= threads) return;
    __syncthreads();
}

TEST(EmulationDeathTest, ABarrierThatSomeThreadsDoNotReachAborts) {
    launch<barrier_of_some>(Launch{1, kThreads, nullptr}, 64U);
    launch<barrier_of_some>(Launch{1, kThreads, nullptr}, 0U);
    EXPECT_DEATH(launch<barrier_of_some>(Launch{1, kThreads, nullptr}, 63U), "do not reach");
    EXPECT_DEATH(launch<barrier_of_some>(Launch{1, kThreads, nullptr}, 32U), "do not reach");
}

// One lane leaves, or waits at the block's barrier instead.
template <bool leave>
__global__ void collective_of_some(int* to, unsigned missing) {
    if (threadIdx.x == missing) {
        if (leave) return;
        __syncthreads();
    }
    const int sum = warp_sum(1);
    if (threadIdx.x != missing) __syncthreads();
    to[threadIdx.x] = sum;
}

TEST(EmulationDeathTest, ACollectiveWithoutAllLanesAborts) {
    std::vector<int> to(kThreads);
    launch<collective_of_some<true>>(Launch{1, kThreads, nullptr}, to.data(), 1000U);
    for (const int sum : to) EXPECT_EQ(sum, kWarp);
    EXPECT_DEATH(launch<collective_of_some<true>>(Launch{1, kThreads, nullptr}, to.data(), 40U),
                 "without all its lanes");
    EXPECT_DEATH(launch<collective_of_some<false>>(Launch{1, kThreads, nullptr}, to.data(), 5U),
                 "without all its lanes");
}

TEST(EmulationDeathTest, ImpossibleLaunchesAbort) {
    EXPECT_DEATH(launch<barrier_of_some>(Launch{1, 48, nullptr}, 48U), "whole warps");
    EXPECT_DEATH(launch<barrier_of_some>(Launch{1, kWarp, nullptr, 0, 65536}, 32U), "too large");
    EXPECT_DEATH(launch<barrier_of_some>(Launch{1, kWarp, nullptr, 228 * 1024}, 32U),
                 "more shared memory");
}

// Copies of two commits: `waited` is how many of them may still be on their way when it is read.
template <int pending>
__global__ void copy_and_read(float* to, const float* from) {
    float* shared = shared_floats();
    copy_async_16(shared + 4 * threadIdx.x, from + 4 * threadIdx.x, true);
    copy_async_commit();
    copy_async_16(shared + 4 * (kWarp + threadIdx.x), from, threadIdx.x % 2 == 0);
    copy_async_commit();
    copy_async_wait<pending>();
    __syncthreads();
    to[threadIdx.x] = shared[4 * ((threadIdx.x + 1) % kWarp)];
    to[kWarp + threadIdx.x] = shared[4 * (kWarp + threadIdx.x)];
}

template <int pending>
std::vector<float> run_copies() {
    std::vector<float> to(2 * kWarp);
    Pack<float> from[kWarp];
    for (int i = 0; i < kWarp; ++i) from[i].value[0] = static_cast<float>(i + 1);
    launch<copy_and_read<pending>>(Launch{1, kWarp, nullptr, 2 * kWarp * 16}, to.data(),
                                   static_cast<const float*>(from[0].value));
    return to;
}

TEST(Emulation, AnAsynchronousCopyArrivesWithItsWait) {
    const auto none = run_copies<2>(), first = run_copies<1>(), both = run_copies<0>();
    for (size_t t = 0; t < kWarp; ++t) {
        EXPECT_TRUE(std::isnan(none[t]));
        EXPECT_TRUE(std::isnan(none[kWarp + t]));
        EXPECT_EQ(first[t], static_cast<float>((t + 1) % kWarp + 1));
        EXPECT_TRUE(std::isnan(first[kWarp + t]));
        EXPECT_EQ(both[t], first[t]);
        // Zeros where the copy is not valid.
        EXPECT_EQ(both[kWarp + t], t % 2 == 0 ? 1.0F : 0.0F);
    }
}

// Asks for the next numbers while the old ones are still to be read.
__global__ void fetch_too_early(float* to, const float* from) {
    float* shared = shared_floats();
    const unsigned lane = threadIdx.x;
    for (unsigned k = 0; k < 4; ++k) shared[lane * 4 + k] = 7.0F;
    __syncthreads();
    copy_async_16(shared + lane * 4, from + lane * 4, true);
    copy_async_commit();
    to[lane] = shared[lane * 4];
    copy_async_wait<0>();
}

TEST(Emulation, AnAsynchronousCopyThatStartsTooEarlyShows) {
    std::vector<float> from(kWarp * 4, 1.0F), early(kWarp), late(kWarp);
    for (const bool reversed : {false, true}) {
        emulation::set_reversed(reversed);
        launch<fetch_too_early>(Launch{1, kWarp, nullptr, kWarp * 16},
                                (reversed ? early : late).data(),
                                static_cast<const float*>(from.data()));
    }
    emulation::set_reversed(false);
    EXPECT_EQ(late, std::vector<float>(kWarp, 7.0F));
    EXPECT_EQ(early, std::vector<float>(kWarp, 1.0F));
}

// A 16 x 16 matrix of 16-bit numbers as four of 8 x 8: 0 and 1 above each other, 2 and 3 right of
// them, which is the order of a's fragments.
__device__ const uint16_t* matrix_row(const uint16_t* from, int lane) {
    const int matrix = lane / 8;
    return from + (lane % 8 + matrix % 2 * 8) * 16 + matrix / 2 * 8;
}

template <bool transposed>
__global__ void load_tiles_of(uint32_t* to, const uint16_t* from) {
    auto* shared = reinterpret_cast<uint16_t*>(block_shared());
    for (int i = static_cast<int>(threadIdx.x); i < 256; i += kWarp) shared[i] = from[i];
    __syncthreads();
    uint32_t r[4];
    const uint16_t* row = matrix_row(shared, static_cast<int>(threadIdx.x));
    if (transposed)
        load_matrices_transposed(r, row);
    else
        load_matrices(r, row);
    for (int m = 0; m < 4; ++m) to[threadIdx.x * 4 + static_cast<unsigned>(m)] = r[m];
}

// PTX ISA, ldmatrix: of each matrix thread l holds row l / 4, elements 2 * (l % 4) and the next;
// with .trans the matrix is transposed as it is loaded.
TEST(Emulation, MatricesAreLoadedAsPtxSays) {
    std::vector<uint16_t> from(256);
    for (size_t i = 0; i < 256; ++i) from[i] = static_cast<uint16_t>(i * 7 + 1);
    std::vector<uint32_t> plain(128), transposed(128);
    launch<load_tiles_of<false>>(Launch{1, kWarp, nullptr, 512}, plain.data(),
                                 static_cast<const uint16_t*>(from.data()));
    launch<load_tiles_of<true>>(Launch{1, kWarp, nullptr, 512}, transposed.data(),
                                static_cast<const uint16_t*>(from.data()));
    for (size_t lane = 0; lane < 32; ++lane)
        for (size_t m = 0; m < 4; ++m)
            for (size_t half = 0; half < 2; ++half) {
                const size_t row = m % 2 * 8, column = m / 2 * 8;  // of the matrix's corner
                const size_t g = lane / 4, t = 2 * (lane % 4) + half;
                EXPECT_EQ(static_cast<uint16_t>(plain[lane * 4 + m] >> (16 * half)),
                          from[(row + g) * 16 + column + t]);
                EXPECT_EQ(static_cast<uint16_t>(transposed[lane * 4 + m] >> (16 * half)),
                          from[(row + t) * 16 + column + g]);
            }
}

struct Half {
    static uint16_t bits(float value) { return f16_bits(value); }
    static void multiply(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
        multiply_tiles_f16(c, a, b);
    }
};
struct Brain {
    static uint16_t bits(float value) { return narrow<Bf16>(value).bits; }
    static void multiply(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
        multiply_tiles_bf16(c, a, b);
    }
};

// c_16x8 += a_16x16 * b_16x8, all row-major, with fragments taken one by one as in the tables of
// PTX ISA, "Matrix fragments for mma.m16n8k16 with floating point type".
template <typename T>
__global__ void product_by_table(float* c, const uint16_t* a, const uint16_t* b) {
    const int lane = static_cast<int>(threadIdx.x), g = lane / 4, t = lane % 4;
    const auto pair = [](uint16_t low, uint16_t high) {
        return low | static_cast<uint32_t>(high) << 16;
    };
    uint32_t af[4] = {}, bf[2] = {};
    for (int i = 0; i < 8; i += 2) {
        // a_i: row = groupID for 0 <= i < 2 or 4 <= i < 6, else groupID + 8; column = 2 * thread +
        // (i & 1), + 8 for i >= 4.
        const int row = i < 2 || (i >= 4 && i < 6) ? g : g + 8;
        const int column = 2 * t + (i >= 4 ? 8 : 0);
        af[i / 2] = pair(a[row * 16 + column], a[row * 16 + column + 1]);
    }
    for (int i = 0; i < 4; i += 2) {
        // b_i: row = 2 * thread + (i & 1), + 8 for i >= 2; column = groupID.
        const int row = 2 * t + (i >= 2 ? 8 : 0);
        bf[i / 2] = pair(b[row * 8 + g], b[(row + 1) * 8 + g]);
    }
    // c_i: row = groupID for i < 2, else groupID + 8; column = 2 * thread + (i & 1).
    float sum[4];
    for (int i = 0; i < 4; ++i) sum[i] = c[(i < 2 ? g : g + 8) * 8 + 2 * t + i % 2];
    T::multiply(sum, af, bf);
    for (int i = 0; i < 4; ++i) c[(i < 2 ? g : g + 8) * 8 + 2 * t + i % 2] = sum[i];
}

// The same as kernels do it: a by rows, b by rows transposed, out of shared memory. b is there
// twice, side by side: four matrices are two fragments of b.
template <typename T>
__global__ void product_by_loads(float* c, const uint16_t* a, const uint16_t* b) {
    auto* shared = reinterpret_cast<uint16_t*>(block_shared());
    const int lane = static_cast<int>(threadIdx.x), g = lane / 4, t = lane % 4;
    for (int i = lane; i < 256; i += kWarp) {
        shared[i] = a[i];
        shared[256 + i] = b[i / 16 * 8 + i % 8];
    }
    __syncthreads();
    uint32_t af[4], two[4];
    load_matrices(af, matrix_row(shared, lane));
    load_matrices_transposed(two, matrix_row(shared + 256, lane));
    for (int copy = 0; copy < 2; ++copy) {
        const uint32_t bf[2] = {two[2 * copy], two[2 * copy + 1]};
        float sum[4] = {};
        T::multiply(sum, af, bf);
        for (int i = 0; i < 4; ++i) c[(i < 2 ? g : g + 8) * 8 + 2 * t + i % 2] += 0.5F * sum[i];
    }
}

template <typename T>
void expect_products() {
    std::vector<uint16_t> a(256), b(128);
    std::vector<float> expected(128), table(128), loads;
    const auto a_of = [](size_t i) { return static_cast<float>((i * 37 + 11) % 61) - 30.0F; };
    const auto b_of = [](size_t i) { return static_cast<float>((i * 29 + 5) % 53) - 26.0F; };
    for (size_t i = 0; i < 256; ++i) a[i] = T::bits(a_of(i));
    for (size_t i = 0; i < 128; ++i) b[i] = T::bits(b_of(i));
    for (size_t i = 0; i < 128; ++i) table[i] = static_cast<float>(i);
    loads = table;
    // Integers: exact in any order.
    for (size_t i = 0; i < 16; ++i)
        for (size_t j = 0; j < 8; ++j) {
            expected[i * 8 + j] = table[i * 8 + j];
            for (size_t k = 0; k < 16; ++k)
                expected[i * 8 + j] += a_of(i * 16 + k) * b_of(k * 8 + j);
        }
    launch<product_by_table<T>>(Launch{1, kWarp, nullptr}, table.data(),
                                static_cast<const uint16_t*>(a.data()),
                                static_cast<const uint16_t*>(b.data()));
    EXPECT_EQ(table, expected);
    launch<product_by_loads<T>>(Launch{1, kWarp, nullptr, 1024}, loads.data(),
                                static_cast<const uint16_t*>(a.data()),
                                static_cast<const uint16_t*>(b.data()));
    EXPECT_EQ(loads, expected);
}

TEST(Emulation, TilesAreMultipliedAsPtxSays) {
    expect_products<Brain>();
    expect_products<Half>();
}

// Ties to even, x in the low half.
TEST(Emulation, PairsAreRoundedToNearest) {
    for (const Dtype dtype : {Dtype::bf16, Dtype::f16}) {
        const bool brain = dtype == Dtype::bf16;
        const auto pair = brain ? round_pair_bf16 : round_pair_f16;
        const uint32_t one = brain ? 0x3F80U : 0x3C00U;
        const float ulp = brain ? 0x1p-7F : 0x1p-10F;
        EXPECT_EQ(pair(1.0F, -1.0F), one | (one | 0x8000U) << 16);
        EXPECT_EQ(pair(1.0F + 0.5F * ulp, 1.0F + 1.5F * ulp), one | (one + 2) << 16);
        EXPECT_EQ(pair(1.0F + 0.501F * ulp, 1.0F + 1.499F * ulp), (one + 1) | (one + 1) << 16);
    }
}

__global__ void each_collective(int* to) {
    const int lane = static_cast<int>(threadIdx.x);
    to[lane] = __shfl_sync(kAllLanes, lane * 10, 7);
    to[kWarp + lane] = __shfl_xor_sync(kAllLanes, lane, 5);
    to[2 * kWarp + lane] = __shfl_down_sync(kAllLanes, lane, 3);
    to[3 * kWarp + lane] = __shfl_up_sync(kAllLanes, lane, 3);
    to[4 * kWarp + lane] = static_cast<int>(__ballot_sync(kAllLanes, lane % 3 == 0 ? 1 : 0));
}

TEST(Emulation, ShufflesAndBallots) {
    for (const bool reversed : {false, true}) {
        std::vector<int> to(5 * kWarp);
        emulation::set_reversed(reversed);
        launch<each_collective>(Launch{1, kWarp, nullptr}, to.data());
        emulation::set_reversed(false);
        for (int lane = 0; lane < kWarp; ++lane) {
            const int* got = to.data() + lane;
            EXPECT_EQ(got[0], 70);
            EXPECT_EQ(got[kWarp], lane ^ 5);
            EXPECT_EQ(got[2 * kWarp], lane + 3 < kWarp ? lane + 3 : lane);
            EXPECT_EQ(got[3 * kWarp], lane >= 3 ? lane - 3 : lane);
            EXPECT_EQ(got[4 * kWarp], 0x49249249);
        }
    }
}

}  // namespace
}  // namespace plumb::cuda

#endif
