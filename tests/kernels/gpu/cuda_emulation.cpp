#include "tests/kernels/gpu/cuda_emulation.h"

#include <setjmp.h>
#include <ucontext.h>

#include <cstdio>
#include <memory>
#include <vector>

#include "runtime/base/dtype.h"

EmulatedIndex threadIdx, blockIdx, blockDim, gridDim;

namespace plumb::cuda::emulation {

namespace {

constexpr int kWarpLanes = 32;
constexpr int kThreadsMax = 1024;
constexpr size_t kStackBytes = 128 * 1024;
constexpr int64_t kRedBytes = 256;
constexpr unsigned char kRed = 0xA5;
constexpr int64_t kSharedMax = 163 * 1024;  // of a block, sm_80

enum class State { ready, at_barrier, in_collective, done };

struct Copy {
    void* to;
    const void* from;
    bool valid;
};

// Made by makecontext once and for all blocks; from then on _setjmp and _longjmp, which spare the
// system call for signals that swapcontext makes.
struct Fiber {
    ucontext_t context;
    jmp_buf place;
    bool started = false;
    std::unique_ptr<char[]> stack;
    State state = State::ready;
    int collectives = 0;
    std::vector<std::vector<Copy>> copies;  // by commit, the last one open
};

struct Warp {
    unsigned char slots[2][kWarpLanes * kLaneBytes];
};

jmp_buf scheduler;
std::vector<Fiber> fibers(kThreadsMax);
std::vector<Warp> warps(kThreadsMax / kWarpLanes);
std::vector<char> shared_bytes_of_block;
char* shared_base = nullptr;
const std::function<void()>* block_body = nullptr;
int current = 0;
bool backwards = false;

[[noreturn]] void fail(const char* what) {
    std::fprintf(stderr, "CUDA emulation: %s (block %u, %u, thread %d of %u)\n", what, blockIdx.x,
                 blockIdx.y, current, blockDim.x);
    std::abort();
}

void wait_in(State state) {
    Fiber& fiber = fibers[static_cast<size_t>(current)];
    fiber.state = state;
    if (_setjmp(fiber.place) == 0) _longjmp(scheduler, 1);
}

void run_fiber() {
    while (true) {
        (*block_body)();
        wait_in(State::done);  // for the next block
    }
}

void resume(int thread) {
    Fiber& fiber = fibers[static_cast<size_t>(thread)];
    current = thread;
    threadIdx.x = static_cast<unsigned>(thread);
    if (_setjmp(scheduler) != 0) return;
    if (fiber.started) _longjmp(fiber.place, 1);
    fiber.started = true;
    setcontext(&fiber.context);
}

// Lets a warp whose lanes are all in the same collective go on.
bool release_warp(int first) {
    for (int t = first; t < first + kWarpLanes; ++t)
        if (fibers[static_cast<size_t>(t)].state != State::in_collective ||
            fibers[static_cast<size_t>(t)].collectives !=
                fibers[static_cast<size_t>(first)].collectives)
            return false;
    for (int t = first; t < first + kWarpLanes; ++t)
        fibers[static_cast<size_t>(t)].state = State::ready;
    return true;
}

void release_barrier(int threads) {
    for (int t = 0; t < threads; ++t) {
        Fiber& fiber = fibers[static_cast<size_t>(t)];
        if (fiber.state == State::in_collective) fail("a warp collective without all its lanes");
        if (fiber.state == State::done) fail("a barrier that some threads do not reach");
        fiber.state = State::ready;
    }
}

void run_block(int threads) {
    for (int t = 0; t < threads; ++t) {
        Fiber& fiber = fibers[static_cast<size_t>(t)];
        fiber.state = State::ready;
        fiber.collectives = 0;
        if (fiber.copies.size() != 1 || !fiber.copies[0].empty()) fiber.copies.assign(1, {});
        if (fiber.stack) continue;
        fiber.stack.reset(new char[kStackBytes]);
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.get();
        fiber.context.uc_stack.ss_size = kStackBytes;
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, run_fiber, 0);
    }
    while (true) {
        bool ran = false;
        for (int first = 0; first < threads; first += kWarpLanes) {
            const int warp = backwards ? threads - kWarpLanes - first : first;
            do {
                for (int l = 0; l < kWarpLanes; ++l) {
                    const int thread = warp + (backwards ? kWarpLanes - 1 - l : l);
                    if (fibers[static_cast<size_t>(thread)].state != State::ready) continue;
                    resume(thread);
                    ran = true;
                }
            } while (release_warp(warp));
        }
        if (ran) continue;
        bool waiting = false;
        for (int t = 0; t < threads; ++t)
            waiting = waiting || fibers[static_cast<size_t>(t)].state != State::done;
        if (!waiting) return;
        release_barrier(threads);
    }
}

void check_shared(int64_t bytes) {
    for (int64_t i = 0; i < kRedBytes; ++i)
        if (static_cast<unsigned char>(shared_base[bytes + i]) != kRed)
            fail("a write behind the shared memory that the launch asked for");
}

}  // namespace

void set_reversed(bool reversed) {
    backwards = reversed;
}
bool is_reversed() {
    return backwards;
}

void run_grid(int64_t blocks, int64_t blocks_y, int threads, int64_t shared_bytes,
              const std::function<void()>& body) {
    if (threads < kWarpLanes || threads > kThreadsMax || threads % kWarpLanes != 0)
        fail("a block that is not 1 to 32 whole warps");
    if (shared_bytes > kSharedMax) fail("more shared memory than a block can have");
    if (blocks < 0 || blocks > 0x7FFFFFFF || blocks_y < 0 || blocks_y > 65535)
        fail("a grid that is too large");
    shared_bytes_of_block.resize(static_cast<size_t>(shared_bytes + kRedBytes + 128));
    const auto address = reinterpret_cast<uintptr_t>(shared_bytes_of_block.data());
    shared_base = shared_bytes_of_block.data() + (128 - address % 128) % 128;
    block_body = &body;
    gridDim = {static_cast<unsigned>(blocks), static_cast<unsigned>(blocks_y), 1};
    blockDim = {static_cast<unsigned>(threads), 1, 1};
    for (int64_t b = 0; b < blocks * blocks_y; ++b) {
        const int64_t block = backwards ? blocks * blocks_y - 1 - b : b;
        blockIdx = {static_cast<unsigned>(block % blocks), static_cast<unsigned>(block / blocks),
                    0};
        std::memset(shared_base, 0xFF, static_cast<size_t>(shared_bytes));
        std::memset(shared_base + shared_bytes, kRed, static_cast<size_t>(kRedBytes));
        run_block(threads);
        check_shared(shared_bytes);
    }
}

char* shared_memory() {
    return shared_base;
}

void barrier() {
    wait_in(State::at_barrier);
}

const unsigned char* exchange(const void* mine, int size_bytes) {
    Fiber& fiber = fibers[static_cast<size_t>(current)];
    Warp& warp = warps[static_cast<size_t>(current / kWarpLanes)];
    unsigned char* slots = warp.slots[fiber.collectives++ % 2];
    std::memcpy(slots + current % kWarpLanes * kLaneBytes, mine, static_cast<size_t>(size_bytes));
    wait_in(State::in_collective);
    return slots;
}

// An asynchronous copy may happen at any moment from its start to its wait: here at its wait or,
// reversed, at its start.
static void do_copy(const Copy& copy) {
    if (copy.valid)
        std::memcpy(copy.to, copy.from, 16);
    else
        std::memset(copy.to, 0, 16);
}

void copy_later(void* to, const void* from, bool valid) {
    if (reinterpret_cast<uintptr_t>(to) % 16 != 0 ||
        (valid && reinterpret_cast<uintptr_t>(from) % 16 != 0))
        fail("an asynchronous copy that is not aligned to 16 bytes");
    const Copy copy = {to, from, valid};
    if (backwards)
        do_copy(copy);
    else
        fibers[static_cast<size_t>(current)].copies.back().push_back(copy);
}

void commit_copies() {
    fibers[static_cast<size_t>(current)].copies.emplace_back();
}

void wait_copies(int but_last) {
    auto& copies = fibers[static_cast<size_t>(current)].copies;
    while (static_cast<int>(copies.size()) - 1 > but_last) {
        for (const Copy& copy : copies.front()) do_copy(copy);
        copies.erase(copies.begin());
    }
}

}  // namespace plumb::cuda::emulation

namespace plumb::cuda {

namespace {

void load_tiles(uint32_t (&r)[4], const void* row, bool transposed) {
    using namespace emulation;
    const unsigned char* lanes = exchange(&row, sizeof row);
    for (int m = 0; m < 4; ++m) {
        uint16_t pair[2];
        for (int k = 0; k < 2; ++k) {
            const int i = lane() / 4, j = 2 * (lane() % 4) + k;
            const int from_row = transposed ? j : i, from_column = transposed ? i : j;
            const auto* values =
                static_cast<const uint16_t*>(lane_value<const void*>(lanes, 8 * m + from_row));
            pair[k] = values[from_column];
        }
        r[m] = pair[0] | static_cast<uint32_t>(pair[1]) << 16;
    }
}

struct Fragments {
    uint32_t a[4];
    uint32_t b[2];
};

template <typename Widen>
void multiply_tiles(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                    const Widen& widen) {
    using namespace emulation;
    Fragments mine;
    std::memcpy(mine.a, a, sizeof mine.a);
    std::memcpy(mine.b, b, sizeof mine.b);
    const unsigned char* lanes = exchange(&mine, sizeof mine);
    const auto half = [](uint32_t word, int k) {
        return static_cast<uint16_t>(k % 2 == 0 ? word : word >> 16);
    };
    const auto a_at = [&](int i, int k) {
        const auto f = lane_value<Fragments>(lanes, i % 8 * 4 + k % 8 / 2);
        return widen(half(f.a[i / 8 + k / 8 * 2], k));
    };
    const auto b_at = [&](int k, int j) {
        const auto f = lane_value<Fragments>(lanes, j * 4 + k % 8 / 2);
        return widen(half(f.b[k / 8], k));
    };
    for (int e = 0; e < 4; ++e) {
        const int i = lane() / 4 + e / 2 * 8, j = 2 * (lane() % 4) + e % 2;
        float sum = 0;
        for (int k = 0; k < 16; ++k) sum += a_at(i, k) * b_at(k, j);
        c[e] += sum;
    }
}

}  // namespace

void load_matrices(uint32_t (&r)[4], const void* row) {
    load_tiles(r, row, false);
}
void load_matrices_transposed(uint32_t (&r)[4], const void* row) {
    load_tiles(r, row, true);
}
void multiply_tiles_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    multiply_tiles(c, a, b, [](uint16_t bits) {
        return __builtin_bit_cast(float, static_cast<uint32_t>(bits) << 16);
    });
}
void multiply_tiles_f16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    multiply_tiles(c, a, b, [](uint16_t bits) { return f16_value(bits); });
}
uint32_t round_pair_bf16(float x, float y) {
    const auto round = [](float value) {
        if (value != value) return 0x7FFFU;
        const auto bits = __builtin_bit_cast(uint32_t, value);
        return (bits + 0x7FFFU + (bits >> 16 & 1)) >> 16;
    };
    return round(x) | round(y) << 16;
}
uint32_t round_pair_f16(float x, float y) {
    return f16_bits(x) | static_cast<uint32_t>(f16_bits(y)) << 16;
}

}  // namespace plumb::cuda
