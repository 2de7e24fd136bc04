// The lanes, events, graphs and memory of the emulated GPU: that they run as late or as early as
// CUDA may, and that what a real GPU would not do dies. Without this the tests of whole programs on
// it would prove little.
#ifdef PLUMB_CUDA_EMULATION

#include <gtest/gtest.h>
#include <pthread.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "kernels/cuda/device.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/scratch.h"
#include "kernels/gpu.h"
#include "runtime/base/error.h"
#include "tests/kernels/gpu/gpu_emulation.h"

namespace plumb::cuda {
namespace {

constexpr int kCount = 64;
constexpr int64_t kBytes = kCount * 4;

// Each thread takes its neighbour's value, through shared memory: fibers switch.
__global__ void turn_and_add(int* values, int added) {
    auto* shared = reinterpret_cast<int*>(block_shared());
    const unsigned t = threadIdx.x;
    shared[t] = values[t];
    __syncthreads();
    values[t] = shared[(t + 1) % kCount] + added;
}

// In both modes, late first.
class GpuEmulation : public testing::TestWithParam<bool> {
  protected:
    GpuEmulation() {
        emulation::set_reversed(GetParam());
        gpu_ = open_gpu();
        values_ = static_cast<int*>(gpu_->allocate(kBytes));
        sent_ = static_cast<int*>(gpu_->allocate_host(kBytes));
        got_ = static_cast<int*>(gpu_->allocate_host(kBytes));
        gpu_->begin_preparing();
        add(0, compute);
        gpu_->end_preparing();
    }
    ~GpuEmulation() override {
        gpu_->release(values_);
        gpu_->release_host(sent_);
        gpu_->release_host(got_);
        emulation::set_reversed(false);
        emulation::set_gpu_memory(emulation::kGpuMemoryBytes);
    }

    void add(int added, GpuLane lane) {
        cuda::launch<turn_and_add>(Launch{1, kCount, gpu_->stream(lane), kBytes}, values_, added);
    }
    void send(GpuLane lane) { gpu_->copy_to_gpu(values_, sent_, kBytes, lane); }
    void get(GpuLane lane) { gpu_->copy_to_host(got_, values_, kBytes, lane); }
    // What is in the GPU's memory now, when all before has run.
    int first() {
        for (const GpuLane lane : {GpuLane::compute, GpuLane::copy, GpuLane::save})
            gpu_->host_wait(lane);
        get(GpuLane::save);
        gpu_->host_wait(GpuLane::save);
        return got_[0];
    }

    static constexpr GpuLane compute = GpuLane::compute, copy = GpuLane::copy;
    bool early_ = GetParam();
    std::unique_ptr<Gpu> gpu_;
    int* values_;
    int* sent_;
    int* got_;
};

TEST_P(GpuEmulation, ALaneRunsInOrderAndNotBeforeItsTime) {
    for (int i = 0; i < kCount; ++i) sent_[i] = i;
    send(compute);
    add(100, compute);
    add(1000, compute);
    get(compute);
    EXPECT_EQ(got_[0], early_ ? 1102 : 0);
    // Another lane's end is not this one's.
    gpu_->host_wait(copy);
    EXPECT_EQ(got_[0], early_ ? 1102 : 0);
    gpu_->host_wait(compute);
    for (int i = 0; i < kCount; ++i) EXPECT_EQ(got_[i], 1100 + (i + 2) % kCount);
    gpu_->fill(values_, 0x01, kBytes, compute);
    gpu_->fill(values_ + 1, 0x02, 4, compute);
    get(compute);
    gpu_->host_wait(compute);
    EXPECT_EQ(got_[0], 0x01010101);
    EXPECT_EQ(got_[1], 0x02020202);
    EXPECT_EQ(got_[2], 0x01010101);
}

// The training step's pattern; and without one of its waits.
TEST_P(GpuEmulation, AMissingWaitShows) {
    for (const bool waits : {true, false}) {
        sent_[1] = 5;
        gpu_->host_wait(copy);
        gpu_->fill(values_, 0, kBytes, compute);
        gpu_->host_wait(compute);
        send(copy);
        gpu_->record(GpuEvent::sent, copy);
        if (waits) gpu_->wait(compute, GpuEvent::sent);
        add(1, compute);
        gpu_->record(GpuEvent::ran, compute);
        gpu_->host_wait(GpuEvent::ran);
        // Late, the copy comes after the kernel that should have found it done.
        const bool found = first() == 6;
        EXPECT_EQ(found, waits || early_);
    }
}

// And the host's own: what a copy has yet to read is written over.
TEST_P(GpuEmulation, AHostThatDoesNotWaitShows) {
    for (const bool waits : {true, false}) {
        sent_[0] = 1;
        send(copy);
        gpu_->record(GpuEvent::sent, copy);
        if (waits) gpu_->host_wait(GpuEvent::sent);
        sent_[0] = 2;
        EXPECT_EQ(first(), waits || early_ ? 1 : 2);
    }
}

// A wait is for the moment recorded last when the wait was put; so is the host's.
TEST_P(GpuEmulation, AnEventHoldsItsLastMoment) {
    gpu_->wait(compute, GpuEvent::ran);  // never recorded: nothing to wait for
    gpu_->host_wait(GpuEvent::saved);
    for (int i = 0; i < kCount; ++i) sent_[i] = 1;
    send(copy);
    gpu_->record(GpuEvent::sent, copy);
    gpu_->wait(compute, GpuEvent::sent);
    get(compute);
    gpu_->record(GpuEvent::fetched, compute);
    // Recorded again: what the lane waits for stays, what the host waits for is the new one.
    gpu_->fill(values_, 0x7F, kBytes, copy);
    gpu_->record(GpuEvent::sent, copy);
    gpu_->host_wait(GpuEvent::fetched);
    EXPECT_EQ(got_[0], 1);
    gpu_->host_wait(GpuEvent::sent);
    get(GpuLane::save);
    gpu_->host_wait(GpuLane::save);
    EXPECT_EQ(got_[0], 0x7F7F7F7F);
}

// Through two lanes, back and forth.
TEST_P(GpuEmulation, WaitsAreFollowedFromLaneToLane) {
    gpu_->fill(values_, 0, kBytes, compute);
    for (int step = 0; step < 5; ++step) {
        gpu_->record(GpuEvent::ran, compute);
        gpu_->wait(copy, GpuEvent::ran);
        add(1, copy);
        gpu_->record(GpuEvent::sent, copy);
        gpu_->wait(compute, GpuEvent::sent);
        add(10, compute);
        get(compute);
    }
    gpu_->record(GpuEvent::fetched, compute);
    gpu_->host_wait(GpuEvent::fetched);
    EXPECT_EQ(got_[0], 55);
}

TEST_P(GpuEmulation, AGraphRunsWhenLaunchedAsOftenAsLaunched) {
    const auto before = emulation::gpu_counts();
    gpu_->begin_capture(compute);
    add(1, compute);
    add(2, compute);
    const Gpu::Graph three = gpu_->end_capture(compute);
    gpu_->begin_capture(compute);
    add(50, compute);
    const Gpu::Graph fifty = gpu_->end_capture(compute);
    EXPECT_EQ(first(), 0);
    gpu_->launch(three, compute);
    gpu_->launch(three, compute);
    EXPECT_EQ(first(), 6);
    gpu_->launch(fifty, copy);
    gpu_->launch(three, copy);
    add(100, copy);
    EXPECT_EQ(first(), 159);
    EXPECT_EQ(emulation::gpu_counts().graphs - before.graphs, 4);
    EXPECT_EQ(emulation::gpu_counts().launches - before.launches, 1);
}

TEST_P(GpuEmulation, NothingRunsWhilePreparing) {
    const auto before = emulation::gpu_counts();
    gpu_->begin_preparing();
    add(1, compute);
    gpu_->end_preparing();
    EXPECT_EQ(first(), 0);
    EXPECT_EQ(emulation::gpu_counts().launches, before.launches);
    add(1, compute);
    EXPECT_EQ(first(), 1);
}

// c_2x3 = a_2x4 b_3x4^T.
TEST_P(GpuEmulation, AProductMustBePreparedAsItIs) {
    constexpr int64_t kAt = 256;
    auto* memory = static_cast<char*>(gpu_->allocate(kGemmWorkspaceBytes + 3 * kAt));
    auto* host = static_cast<float*>(gpu_->allocate_host(3 * kAt));
    Gemm g{2,
           3,
           4,
           Dtype::f32,
           {memory, 4, false},
           {memory + kAt, 4, false},
           Dtype::f32,
           memory + 2 * kAt,
           3};
    for (int i = 0; i < 8; ++i) host[i] = static_cast<float>(i);
    for (int i = 0; i < 12; ++i) host[64 + i] = static_cast<float>(i % 5);
    const auto run = [&] { gemm(g, memory + 3 * kAt, gpu_->stream(compute)); };
    gpu_->begin_preparing();
    run();
    gpu_->end_preparing();
    gpu_->copy_to_gpu(memory, host, 3 * kAt, compute);
    run();
    gpu_->copy_to_host(host, memory, 3 * kAt, compute);
    gpu_->host_wait(compute);
    for (int i = 0; i < 2; ++i)
        for (int j = 0; j < 3; ++j) {
            float sum = 0;
            for (int p = 0; p < 4; ++p) sum += static_cast<float>((4 * i + p) * ((4 * j + p) % 5));
            EXPECT_EQ(host[128 + 3 * i + j], sum);
        }
    g.a.data = memory + 4;  // not so well aligned
    EXPECT_DEATH(run(), "not prepared");
    gpu_->release(memory);
    gpu_->release_host(host);
}

TEST_P(GpuEmulation, ThereIsOnlySoMuchMemory) {
    const GpuMemory before = gpu_->memory();
    EXPECT_EQ(before.total_bytes, 8 * kGiB);
    EXPECT_GT(before.free_bytes, 8 * kGiB - kMiB);  // other tests leave code there
    const int64_t held = before.total_bytes - before.free_bytes;
    const auto counts = emulation::gpu_counts();
    emulation::set_gpu_memory(kMiB);
    EXPECT_EQ(gpu_->memory().total_bytes, kMiB);
    EXPECT_THROW(gpu_->allocate(kMiB), Error);
    EXPECT_EQ(emulation::gpu_counts().allocations, counts.allocations);
    void* rest = gpu_->allocate(kMiB - held);
    ASSERT_NE(rest, nullptr);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(rest) % 256, 0U);
    EXPECT_EQ(gpu_->memory().free_bytes, 0);
    EXPECT_THROW(gpu_->allocate(1), Error);
    // Another program's share of it is no other: all that open the GPU share its memory.
    EXPECT_THROW(open_gpu()->allocate(1), Error);
    gpu_->release(rest);
    EXPECT_EQ(gpu_->memory().free_bytes, kMiB - held);
    EXPECT_EQ(emulation::gpu_counts().allocations, counts.allocations + 1);
    emulation::set_memory_holders("python (pid 4711) 7.5 GiB");
    EXPECT_EQ(gpu_->memory_holders(), "python (pid 4711) 7.5 GiB");
    emulation::set_memory_holders("");
}

__global__ void take_long(int* at) {
    if (threadIdx.x == 0) *at += 1;
}

// All that CUDA takes for itself it takes before anything runs, and says what found no memory.
TEST_P(GpuEmulation, WhatIsMadeTakesMemoryAndMayFindNone) {
    const auto refusal = [&](const std::function<void()>& body) -> std::string {
        try {
            body();
        } catch (const Error& error) {
            EXPECT_EQ(error.code(), ExitCode::does_not_fit);
            return error.what();
        }
        return "";
    };
    const auto prepare = [&](const std::function<void()>& body) {
        return refusal([&] {
            gpu_->begin_preparing();
            body();
            gpu_->end_preparing();
        });
    };
    const auto kernel = [&] { cuda::launch<take_long>(Launch{1, kWarp, nullptr}, values_); };
    const auto graph = [&] {
        gpu_->begin_capture(compute);
        add(1, compute);
        gpu_->end_capture(compute);
    };
    static bool loaded = false;  // a kernel's code stays in the process
    const bool first_run = !loaded;
    loaded = true;
    const int64_t free = gpu_->memory().free_bytes;
    emulation::set_memory_holders("python (pid 4711) 7.5 GiB");
    emulation::set_gpu_costs({free + 1, free + 1, free + 1});
    if (first_run) {
        EXPECT_EQ(prepare(kernel).find("CUDA finds no memory for the code of a kernel (it does not "
                                       "say how much that takes); of Emulated GPU's memory "),
                  0U);
    }
    // Of a shape that no other test has.
    Gemm g{3 + GetParam(),      5,          7,       Dtype::f32, {values_, 7, false},
           {values_, 7, false}, Dtype::f32, values_, 5};
    const auto product = [&] { gemm(g, values_, nullptr); };
    EXPECT_NE(prepare(product).find("for what cuBLASLt keeps for a matrix product"),
              std::string::npos);
    EXPECT_NE(refusal(graph).find("for a graph of what is run"), std::string::npos);
    EXPECT_NE(refusal(graph).find(" are free, the rest is held by python (pid 4711) 7.5 GiB"),
              std::string::npos);
    EXPECT_EQ(gpu_->memory().free_bytes, free) << "what was refused took nothing";
    emulation::set_gpu_costs({1 * kKiB, 2 * kKiB, 4 * kKiB});
    for (int i = 0; i < 2; ++i) {
        EXPECT_EQ(prepare(kernel), "");
        EXPECT_EQ(prepare(product), "");
    }
    EXPECT_EQ(refusal(graph), "");
    EXPECT_EQ(gpu_->memory().free_bytes, free - (first_run ? 7 : 6) * kKiB);
    emulation::set_gpu_costs({});
    emulation::set_memory_holders("");
}

// As the saving thread: on a small stack, on its own lane, for what the other thread put. What
// runs on it are fibers that another thread began.
TEST_P(GpuEmulation, AnotherThreadCanWaitForWhatOnePut) {
    add(1, compute);
    ASSERT_EQ(first(), 1);  // fibers have begun here
    std::atomic<int> saves = 0;
    std::function<void()> save = [&] {
        while (saves < 200) {
            gpu_->wait(GpuLane::save, GpuEvent::ran);
            get(GpuLane::save);
            gpu_->record(GpuEvent::saved, GpuLane::save);
            gpu_->host_wait(GpuEvent::saved);
            // All before the event; behind it the other thread goes on, once there is a first save.
            EXPECT_TRUE(got_[0] >= 1001 && got_[0] <= (saves == 0 ? 1001 : 1201)) << got_[0];
            ++saves;
            saves.notify_one();
        }
    };
    for (int i = 0; i < 100; ++i) add(10, compute);
    gpu_->record(GpuEvent::ran, compute);
    pthread_attr_t small;
    ASSERT_EQ(pthread_attr_init(&small), 0);
    ASSERT_EQ(pthread_attr_setstacksize(&small, 256 * kKiB), 0);
    pthread_t thread;
    const auto start = [](void* f) -> void* {
        (*static_cast<std::function<void()>*>(f))();
        return nullptr;
    };
    ASSERT_EQ(pthread_create(&thread, &small, start, &save), 0);
    saves.wait(0);
    for (int i = 0; i < 200; ++i) {
        add(1, compute);
        gpu_->host_wait(compute);
    }
    ASSERT_EQ(pthread_join(thread, nullptr), 0);
    EXPECT_EQ(first(), 1201);
}

using GpuEmulationDeathTest = GpuEmulation;

__global__ void write_at(char* at) {
    if (threadIdx.x == 0) *at = 1;
}

__global__ void never_prepared(int*) {}

TEST_P(GpuEmulationDeathTest, AKernelMustBePrepared) {
    const Launch at{1, kWarp, gpu_->stream(compute)};
    EXPECT_DEATH(cuda::launch<never_prepared>(at, values_), "a kernel that was not prepared");
}

TEST_P(GpuEmulationDeathTest, MemoryIsNotTheHosts) {
    EXPECT_DEATH(values_[3] = 1, "the host touched memory of the GPU");
    const volatile int* read = values_;
    EXPECT_DEATH(static_cast<void>(*read), "the host touched memory of the GPU");
    add(1, compute);
    gpu_->host_wait(compute);
    EXPECT_DEATH(static_cast<void>(*read), "the host touched memory of the GPU");
    // Kernels end with it.
    gpu_->begin_preparing();
    cuda::launch<write_at>(Launch{1, kWarp, nullptr}, static_cast<char*>(nullptr));
    gpu_->end_preparing();
    const auto touch = [&](char* at) {
        cuda::launch<write_at>(Launch{1, kWarp, gpu_->stream(compute)}, at);
        gpu_->host_wait(compute);
    };
    auto* bytes = reinterpret_cast<char*>(values_);
    touch(bytes + kBytes - 1);
    EXPECT_DEATH(touch(bytes + kBytes), "beyond its end");
    EXPECT_DEATH(cuda::launch<write_at>(Launch{1, kWarp, nullptr}, bytes), "without a stream");
    got_[kCount - 1] = 1;
    EXPECT_DEATH(got_[kCount] = 1, "beyond its end");
}

TEST_P(GpuEmulationDeathTest, CopiesAreOfMemoryOfBothSides) {
    int pageable[kCount] = {};
    EXPECT_DEATH(gpu_->copy_to_gpu(values_, pageable, kBytes, copy), "not from allocate_host");
    EXPECT_DEATH(gpu_->copy_to_host(pageable, values_, kBytes, copy), "not from allocate_host");
    EXPECT_DEATH(gpu_->copy_to_gpu(sent_, got_, kBytes, copy), "not the GPU's memory");
    EXPECT_DEATH(gpu_->copy_to_gpu(values_ + 1, sent_, kBytes, copy), "not the GPU's memory");
    EXPECT_DEATH(gpu_->copy_to_host(got_ + 1, values_, kBytes, copy), "not from allocate_host");
    EXPECT_DEATH(gpu_->fill(got_, 0, kBytes, copy), "not the GPU's memory");
    EXPECT_DEATH(gpu_->release(got_), "not allocated");
}

TEST_P(GpuEmulationDeathTest, AGraphIsOfKernelsOnly) {
    const char* reason = "kernels only";
    gpu_->begin_capture(compute);
    EXPECT_DEATH(send(compute), reason);
    EXPECT_DEATH(get(copy), reason);
    EXPECT_DEATH(gpu_->fill(values_, 0, 1, compute), reason);
    EXPECT_DEATH(gpu_->record(GpuEvent::ran, compute), reason);
    EXPECT_DEATH(gpu_->wait(compute, GpuEvent::ran), reason);
    EXPECT_DEATH(gpu_->host_wait(GpuEvent::ran), reason);
    EXPECT_DEATH(gpu_->host_wait(compute), reason);
    EXPECT_DEATH(gpu_->allocate(1), reason);
    EXPECT_DEATH(gpu_->allocate_host(1), reason);
    EXPECT_DEATH(gpu_->release(values_), reason);
    EXPECT_DEATH(gpu_->memory(), reason);
    EXPECT_DEATH(gpu_->begin_capture(copy), reason);
    gpu_->end_capture(compute);
    EXPECT_DEATH(gpu_->end_capture(compute), "none began");
}

std::string mode_name(const testing::TestParamInfo<bool>& early) {
    return early.param ? "Early" : "Late";
}
INSTANTIATE_TEST_SUITE_P(Lanes, GpuEmulation, testing::Bool(), mode_name);
INSTANTIATE_TEST_SUITE_P(Lanes, GpuEmulationDeathTest, testing::Bool(), mode_name);

TEST(GpuEmulationProbe, IsUsable) {
    const GpuProbe found = probe_gpu();
    EXPECT_TRUE(found.compiled);
    EXPECT_EQ(found.name, "Emulated GPU");
    EXPECT_EQ(usable_isa(found), Isa::sm80);
    EXPECT_EQ(open_gpu()->isa(), Isa::sm80);
    EXPECT_TRUE(kernel_table(Isa::sm80).on_gpu);
}

}  // namespace
}  // namespace plumb::cuda

#endif
