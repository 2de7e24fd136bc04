// What kernels/gpu.h promises, asked of the GPU of the tests, a real one or the emulated one: it is
// what the executor relies on. On the emulated one lanes run as late as they may and as early.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <thread>

#include "kernels/kernels.h"
#include "tests/kernels/gpu/gpu_device.h"

namespace plumb::testing {
namespace {

constexpr int64_t kCount = 1000;  // numbers of a buffer
constexpr int64_t kBytes = kCount * 4;
constexpr GpuLane kLanes[] = {GpuLane::compute, GpuLane::copy, GpuLane::save};
constexpr GpuLane compute = GpuLane::compute, copy = GpuLane::copy, save = GpuLane::save;

// Memory of the GPU or, pinned, of the host.
template <typename T>
class Memory {
  public:
    Memory(Gpu& gpu, int64_t size_bytes, bool of_host)
        : gpu_(gpu),
          of_host_(of_host),
          start_(static_cast<T*>(of_host ? gpu.allocate_host(size_bytes)
                                         : gpu.allocate(size_bytes))) {}
    ~Memory() {
        if (of_host_)
            gpu_.release_host(start_);
        else
            gpu_.release(start_);
    }
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;
    operator T*() const { return start_; }  // NOLINT: as the pointer that it holds

  private:
    Gpu& gpu_;
    bool of_host_;
    T* start_;
};

// The parameter: reversed.
class GpuContract : public ::testing::TestWithParam<bool> {
  protected:
    void SetUp() override {
        if (!gpu::is_there()) GTEST_SKIP() << "no GPU";
        gpu::set_reversed(GetParam());
        gpu_ = open_gpu();
        sum_ = std::make_unique<Memory<float>>(*gpu_, kBytes, false);
        added_ = std::make_unique<Memory<float>>(*gpu_, kBytes, false);
        sent_ = std::make_unique<Memory<float>>(*gpu_, kBytes, true);
        got_ = std::make_unique<Memory<float>>(*gpu_, kBytes, true);
        gpu_->begin_preparing();
        zero(compute);
        add(compute);
        gpu_->end_preparing();
    }
    void TearDown() override { gpu::set_reversed(false); }

    void run(OpKind kind, GpuLane lane) {
        const Shape shape[2] = {make_shape(kCount), make_shape(kCount)};
        void* const data[2] = {*sum_, *added_};
        const Attrs attrs;
        KernelArgs args{&attrs, shape, data, nullptr, 0, nullptr, 0, 1};
        args.stream = gpu_->stream(lane);
        kernel_table(gpu_->isa()).kernel[static_cast<int>(kind)][value_index(Dtype::f32)](args);
    }
    void zero(GpuLane lane) { run(OpKind::zero, lane); }  // sum = 0
    void add(GpuLane lane) { run(OpKind::add, lane); }    // sum += added

    void send(float value, GpuLane lane) {
        std::fill_n(static_cast<float*>(*sent_), kCount, value);
        gpu_->copy_to_gpu(*added_, *sent_, kBytes, lane);
    }
    void get(GpuLane lane) { gpu_->copy_to_host(*got_, *sum_, kBytes, lane); }
    void wait_for_all() {
        for (const GpuLane lane : kLanes) gpu_->host_wait(lane);
    }
    // The sum when all is done, the same in all of it.
    float sum() {
        wait_for_all();
        get(save);
        gpu_->host_wait(save);
        const float* got = *got_;
        EXPECT_EQ(std::count(got, got + kCount, got[0]), kCount);
        return got[0];
    }

    std::unique_ptr<Gpu> gpu_;
    std::unique_ptr<Memory<float>> sum_, added_, sent_, got_;
};

TEST_P(GpuContract, MemoryIsZerosAlsoWhereItWasUsedBefore) {
    constexpr int64_t kSize = 3 * kMiB + 17;
    Memory<char> pinned(*gpu_, kSize, true);
    for (int round = 0; round < 3; ++round) {
        Memory<char> memory(*gpu_, kSize, false), host(*gpu_, kSize, true);
        for (const char* start : {static_cast<char*>(memory), static_cast<char*>(host)})
            EXPECT_EQ(reinterpret_cast<uintptr_t>(start) % 256, 0U);
        gpu_->copy_to_host(pinned, memory, kSize, copy);
        gpu_->host_wait(copy);
        for (char* start : {static_cast<char*>(pinned), static_cast<char*>(host)}) {
            EXPECT_EQ(std::count(start, start + kSize, 0), kSize);
            std::memset(start, 0x5A, static_cast<size_t>(kSize));
        }
        gpu_->fill(memory, 0xFF, kSize, compute);
        gpu_->host_wait(compute);
    }
    const Memory<char> nothing(*gpu_, 0, false), nothing_of_host(*gpu_, 0, true);
    EXPECT_NE(nothing, nullptr);
    EXPECT_NE(nothing_of_host, nullptr);
}

TEST_P(GpuContract, CopiesAndFillsOfEveryLaneAreInOrder) {
    for (const GpuLane lane : kLanes) {
        Memory<char> memory(*gpu_, kBytes, false), from(*gpu_, kBytes, true);
        Memory<char> to(*gpu_, kBytes, true);
        for (int64_t i = 0; i < kBytes; ++i) from[i] = static_cast<char>(i % 251);
        gpu_->copy_to_gpu(memory, from, kBytes, lane);
        gpu_->fill(memory + 5, 0xEE, 3, lane);
        gpu_->fill(memory + 6, 0x11, 1, lane);
        gpu_->copy_to_gpu(memory + 100, from, 0, lane);
        gpu_->copy_to_host(to + 1, memory + 1, kBytes - 1, lane);
        gpu_->host_wait(lane);
        const unsigned char filled[] = {0xEE, 0x11, 0xEE};
        std::memcpy(from + 5, filled, sizeof filled);
        EXPECT_EQ(std::memcmp(to, from, static_cast<size_t>(kBytes)), 0);
    }
}

// The executor's step: what is sent on one lane is used on another, and fetched on the first.
TEST_P(GpuContract, EventsOrderLanes) {
    float expected = 0;
    for (int step = 1; step <= 50; ++step) {
        gpu_->host_wait(GpuEvent::sent);
        gpu_->wait(copy, GpuEvent::ran);
        send(static_cast<float>(step), copy);
        gpu_->record(GpuEvent::sent, copy);
        gpu_->wait(compute, GpuEvent::sent);
        add(compute);
        gpu_->record(GpuEvent::ran, compute);
        gpu_->wait(copy, GpuEvent::ran);
        get(copy);
        gpu_->record(GpuEvent::fetched, copy);
        expected += static_cast<float>(step);
        if (step % 7 != 0) continue;
        gpu_->host_wait(GpuEvent::fetched);
        EXPECT_EQ((*got_)[0], expected);
        EXPECT_EQ((*got_)[kCount - 1], expected);
    }
    EXPECT_EQ(sum(), expected);
}

TEST_P(GpuContract, AnEventThatWasNeverRecordedHoldsNobody) {
    gpu_->host_wait(GpuEvent::saved);
    for (const GpuLane lane : kLanes) gpu_->wait(lane, GpuEvent::saved);
    EXPECT_EQ(sum(), 0);
}

// An answer "not yet" is none that a later launch may be blamed for.
TEST_P(GpuContract, TheHostWaitsForWhatTakesLong) {
    constexpr int64_t kLarge = 256 * kMiB;
    Memory<char> large(*gpu_, kLarge, false);
    ASSERT_NE(large, nullptr);
    send(1, compute);
    for (const GpuEvent event : {GpuEvent::ran, GpuEvent::saved}) {
        for (int i = 0; i < (gpu::kEmulated ? 2 : 100); ++i)
            gpu_->fill(large, 0x77, kLarge, compute);
        add(compute);
        get(compute);
        gpu_->record(event, compute);
        gpu_->host_wait(event);
        EXPECT_EQ((*got_)[0], event == GpuEvent::ran ? 1 : 2);
    }
    add(copy);
    EXPECT_EQ(sum(), 3);
}

TEST_P(GpuContract, GraphsRunWhenLaunchedAndAsOftenAsLaunched) {
    send(1, compute);
    gpu_->host_wait(compute);
    gpu_->begin_capture(compute);
    for (int i = 0; i < 3; ++i) add(compute);
    const Gpu::Graph three = gpu_->end_capture(compute);
    gpu_->begin_capture(compute);
    zero(compute);
    add(compute);
    const Gpu::Graph one = gpu_->end_capture(compute);
    EXPECT_EQ(sum(), 0) << "captured is not run";
    gpu_->launch(three, compute);
    gpu_->launch(three, compute);
    EXPECT_EQ(sum(), 6);
    // Among single launches, on another lane, with what lies there now.
    send(10, copy);
    add(copy);
    gpu_->launch(three, copy);
    EXPECT_EQ(sum(), 46);
    for (int i = 0; i < 20; ++i) gpu_->launch(i % 2 == 0 ? three : one, compute);
    EXPECT_EQ(sum(), 10);
    // Another Gpu of this process has lanes and graphs of its own.
    const std::unique_ptr<Gpu> other = open_gpu();
    other->host_wait(compute);
    gpu_->launch(three, compute);
    EXPECT_EQ(sum(), 40);
}

TEST_P(GpuContract, NothingIsLaunchedWhilePreparing) {
    send(1, compute);
    gpu_->begin_preparing();
    add(compute);
    gpu_->end_preparing();
    EXPECT_EQ(sum(), 0);
    add(compute);
    EXPECT_EQ(sum(), 1);
}

// What is taken is counted and given back, and too much is refused without a trace.
TEST_P(GpuContract, MemoryIsCounted) {
    constexpr int64_t kSize = 64 * kMiB;
    const GpuMemory before = gpu_->memory();
    EXPECT_GT(before.free_bytes, kSize);
    EXPECT_GE(before.total_bytes, before.free_bytes);
    {
        const Memory<char> memory(*gpu_, kSize, false);
        EXPECT_LE(gpu_->memory().free_bytes, before.free_bytes - kSize);
        EXPECT_EQ(gpu_->memory().total_bytes, before.total_bytes);
    }
    EXPECT_EQ(gpu_->memory().free_bytes, before.free_bytes);
    EXPECT_THROW(gpu_->allocate(2 * before.total_bytes), Error);
    EXPECT_EQ(gpu_->memory().free_bytes, before.free_bytes);
    send(1, compute);
    add(compute);
    EXPECT_EQ(sum(), 1);
}

// As the saving thread does beside training.
TEST_P(GpuContract, AThreadCopiesOnItsLaneWhileAnotherLaunches) {
    send(1, compute);
    gpu_->host_wait(compute);
    Memory<float> seen(*gpu_, kBytes, true);
    std::atomic<bool> ends = false;
    std::atomic<int> copies = 0;
    std::thread saving([&] {
        float before = 0;
        while (!ends || copies < 10) {
            gpu_->copy_to_host(seen, *sum_, kBytes, save);
            gpu_->record(GpuEvent::saved, save);
            gpu_->host_wait(GpuEvent::saved);
            EXPECT_GE(seen[0], before);
            before = seen[0];
            ++copies;
        }
    });
    for (int i = 0; i < 200; ++i) {
        add(compute);
        gpu_->record(GpuEvent::ran, compute);
        gpu_->host_wait(GpuEvent::ran);
    }
    ends = true;
    saving.join();
    EXPECT_EQ(sum(), 200);
}

constexpr bool kOrders[] = {false, true};
INSTANTIATE_TEST_SUITE_P(Orders, GpuContract,
                         ::testing::ValuesIn(kOrders, kOrders + (gpu::kEmulated ? 2 : 1)),
                         [](const auto& tested) { return tested.param ? "Reversed" : "Forward"; });

}  // namespace
}  // namespace plumb::testing
