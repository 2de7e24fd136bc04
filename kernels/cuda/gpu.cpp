#include "kernels/gpu.h"

#include <cuda_runtime.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <optional>
#include <vector>

#include "kernels/cuda/cublaslt.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/holders.h"
#include "kernels/cuda/prepare.h"
#include "runtime/base/error.h"

namespace plumb::cuda {

namespace {

constexpr int kDevice = 0;  // which that is, CUDA_VISIBLE_DEVICES says

GpuProbe make_probe() {
    GpuProbe probe;
    probe.compiled = true;
    probe.runtime_version = CUDART_VERSION;
    cudaError_t status = cudaDriverGetVersion(&probe.driver_version);
    if (status == cudaSuccess) status = cudaGetDeviceCount(&probe.device_count);
    cudaDeviceProp properties;
    if (status == cudaSuccess) status = cudaGetDeviceProperties(&properties, kDevice);
    if (status != cudaSuccess) {
        if (status != cudaErrorNoDevice) probe.error = cudaGetErrorString(status);
        forget_error();
        return probe;
    }
    probe.name = properties.name;
    probe.capability = properties.major * 10 + properties.minor;
    probe.cublaslt_error = find_cublaslt();
    return probe;
}

std::string holders() {
    char pci_bus_id[32];
    if (cudaDeviceGetPCIBusId(pci_bus_id, sizeof pci_bus_id, kDevice) != cudaSuccess) {
        forget_error();
        return "";
    }
    return memory_holders(pci_bus_id);
}

// Makes CUDA's context, the first thing that takes memory of the GPU.
void start_cuda(const GpuProbe& probe) {
    const Preparing preparing;
    const cudaError_t status = cudaSetDevice(kDevice);
    std::string problem = status == cudaSuccess ? load_cublaslt() : cudaGetErrorString(status);
    if (problem.empty()) return;
    forget_error();
    if (const std::string who = holders(); !who.empty()) problem += "; memory is held by " + who;
    const bool no_memory = status == cudaErrorMemoryAllocation || preparing.lacking() != nullptr;
    throw Error(no_memory ? ExitCode::does_not_fit : ExitCode::bad_input,
                fmt::format("run.device: CUDA cannot start on {}: {}", probe.name, problem));
}

// A thread that sleeps wakes up tens of microseconds late, which a decoded token of a small model
// (less than a millisecond) would feel and a training step (a hundred and more) does not, whose
// wait would keep a core busy that loads data or compresses a checkpoint. So who waits for an event
// looks for so long, and sleeps then.
constexpr std::chrono::milliseconds kLooking{10};

class CudaGpu final : public Gpu {
  public:
    CudaGpu(const GpuProbe& probe, Isa isa) : name_(probe.name), isa_(isa) {
        int lowest = 0, highest = 0;
        CUDA_CHECK(cudaDeviceGetStreamPriorityRange(&lowest, &highest));
        bool made = true;
        for (int lane = 0; lane < kGpuLaneCount; ++lane) {
            const bool waits = lane == static_cast<int>(GpuLane::save);
            made = made && CUDA_GRANTED(cudaStreamCreateWithPriority(
                               &streams_[lane], cudaStreamNonBlocking, waits ? lowest : highest));
        }
        for (cudaEvent_t& event : events_)
            made = made && CUDA_GRANTED(cudaEventCreateWithFlags(
                               &event, cudaEventDisableTiming | cudaEventBlockingSync));
        if (!made || !use_lanes()) refuse(cuda_needs("streams and events"));
    }
    ~CudaGpu() override {
        for (cudaStream_t stream : streams_) CUDA_CHECK(cudaStreamSynchronize(stream));
        for (cudaGraphExec_t graph : graphs_) CUDA_CHECK(cudaGraphExecDestroy(graph));
        for (cudaEvent_t event : events_) CUDA_CHECK(cudaEventDestroy(event));
        for (cudaStream_t stream : streams_) CUDA_CHECK(cudaStreamDestroy(stream));
    }
    CudaGpu(const CudaGpu&) = delete;
    CudaGpu& operator=(const CudaGpu&) = delete;

    Isa isa() const noexcept override { return isa_; }
    const char* name() const noexcept override { return name_.c_str(); }

    void* allocate(int64_t size_bytes) override {
        void* memory = nullptr;
        if (!CUDA_GRANTED(cudaMalloc(&memory, bytes(size_bytes)))) refuse(unallocated(size_bytes));
        // The first loads code.
        if (!CUDA_GRANTED(cudaMemsetAsync(memory, 0, bytes(size_bytes), on(GpuLane::compute))))
            refuse(cuda_needs("clearing memory"));
        host_wait(GpuLane::compute);  // zeros for every lane
        return memory;
    }
    void release(void* memory) noexcept override { CUDA_CHECK(cudaFree(memory)); }
    void* allocate_host(int64_t size_bytes) override {
        void* memory = nullptr;
        if (!CUDA_GRANTED(cudaMallocHost(&memory, bytes(size_bytes))))
            throw Error(ExitCode::does_not_fit, unallocated(size_bytes) + " in pinned host memory");
        return std::memset(memory, 0, static_cast<size_t>(size_bytes));
    }
    void release_host(void* memory) noexcept override { CUDA_CHECK(cudaFreeHost(memory)); }
    GpuMemory memory() noexcept override {
        size_t free_bytes = 0, total_bytes = 0;
        CUDA_CHECK(cudaMemGetInfo(&free_bytes, &total_bytes));
        return {static_cast<int64_t>(free_bytes), static_cast<int64_t>(total_bytes)};
    }
    std::string memory_holders() override { return holders(); }

    void begin_preparing() noexcept override { preparing_.emplace(); }
    void end_preparing() override {
        const char* lacking = preparing_->lacking();
        preparing_.reset();
        if (lacking != nullptr) refuse(cuda_needs(lacking));
    }
    std::string use_products(const std::string& table, bool measure) override {
        return cuda::use_products(table, measure);
    }
    GpuProducts products() override { return products_in_use(); }
    std::string products_file() override { return cuda::products_file(); }

    void* stream(GpuLane lane) noexcept override { return on(lane); }

    void copy_to_gpu(void* to, const void* from, int64_t size_bytes,
                     GpuLane lane) noexcept override {
        CUDA_CHECK(cudaMemcpyAsync(to, from, static_cast<size_t>(size_bytes),
                                   cudaMemcpyHostToDevice, on(lane)));
    }
    void copy_to_host(void* to, const void* from, int64_t size_bytes,
                      GpuLane lane) noexcept override {
        CUDA_CHECK(cudaMemcpyAsync(to, from, static_cast<size_t>(size_bytes),
                                   cudaMemcpyDeviceToHost, on(lane)));
    }
    void fill(void* to, uint8_t byte, int64_t size_bytes, GpuLane lane) noexcept override {
        CUDA_CHECK(cudaMemsetAsync(to, byte, static_cast<size_t>(size_bytes), on(lane)));
    }

    void record(GpuEvent event, GpuLane lane) noexcept override {
        CUDA_CHECK(cudaEventRecord(of(event), on(lane)));
    }
    void wait(GpuLane lane, GpuEvent event) noexcept override {
        CUDA_CHECK(cudaStreamWaitEvent(on(lane), of(event), 0));
    }
    // The saving thread has time: it sleeps, and does not take turns with the step's calls.
    void host_wait(GpuEvent event) noexcept override {
        using Clock = std::chrono::steady_clock;
        const auto end = Clock::now() + kLooking;
        cudaError_t status = cudaErrorNotReady;
        while (event != GpuEvent::saved && status == cudaErrorNotReady && Clock::now() < end)
            status = cudaEventQuery(of(event));
        forget_error();  // "not ready" is kept as one
        if (status == cudaErrorNotReady) status = cudaEventSynchronize(of(event));
        CUDA_CHECK(status);
    }
    void host_wait(GpuLane lane) noexcept override { CUDA_CHECK(cudaStreamSynchronize(on(lane))); }

    // Relaxed: what cuBLASLt asks of CUDA for a launch is its own affair.
    void begin_capture(GpuLane lane) noexcept override {
        CUDA_CHECK(cudaStreamBeginCapture(on(lane), cudaStreamCaptureModeRelaxed));
    }
    // What the graph needs of the GPU's memory is there before it is launched.
    Graph end_capture(GpuLane lane) override {
        cudaGraph_t captured = nullptr;
        cudaGraphExec_t graph = nullptr;
        CUDA_CHECK(cudaStreamEndCapture(on(lane), &captured));
        const bool made = CUDA_GRANTED(cudaGraphInstantiate(&graph, captured, 0));
        CUDA_CHECK(cudaGraphDestroy(captured));
        if (made) graphs_.push_back(graph);
        if (!made || !CUDA_GRANTED(cudaGraphUpload(graph, on(lane))) ||
            !CUDA_GRANTED(cudaStreamSynchronize(on(lane))))
            refuse(cuda_needs(kGraphNodes));
        return static_cast<Graph>(graphs_.size()) - 1;
    }
    void launch(Graph graph, GpuLane lane) noexcept override {
        CUDA_CHECK(cudaGraphLaunch(graphs_[static_cast<size_t>(graph)], on(lane)));
    }

  private:
    // CUDA gives no address for no bytes, which would read as "there is not so much".
    static size_t bytes(int64_t size_bytes) noexcept {
        return static_cast<size_t>(std::max(size_bytes, int64_t{1}));
    }
    static std::string unallocated(int64_t size_bytes) {
        return bytes_text(size_bytes) + " cannot be allocated";
    }
    // So that what CUDA makes when a lane is used first, as the saving thread's is after seal, is
    // there; false when it found no memory.
    bool use_lanes() {
        constexpr size_t kBytes = 256;
        void* of_gpu = allocate(kBytes);
        void* of_host = allocate_host(kBytes);
        bool used = true;
        for (cudaStream_t lane : streams_)
            used = used && CUDA_GRANTED(cudaMemsetAsync(of_gpu, 0, kBytes, lane)) &&
                   CUDA_GRANTED(
                       cudaMemcpyAsync(of_host, of_gpu, kBytes, cudaMemcpyDeviceToHost, lane)) &&
                   CUDA_GRANTED(
                       cudaMemcpyAsync(of_gpu, of_host, kBytes, cudaMemcpyHostToDevice, lane)) &&
                   CUDA_GRANTED(cudaStreamSynchronize(lane));
        release(of_gpu);
        release_host(of_host);
        return used;
    }
    cudaStream_t on(GpuLane lane) const noexcept { return streams_[static_cast<int>(lane)]; }
    cudaEvent_t of(GpuEvent event) const noexcept { return events_[static_cast<int>(event)]; }

    std::string name_;
    Isa isa_;
    cudaStream_t streams_[kGpuLaneCount] = {};
    cudaEvent_t events_[kGpuEventCount] = {};
    std::vector<cudaGraphExec_t> graphs_;
    std::optional<Preparing> preparing_;
};

}  // namespace

// What kernels/gpu.cpp looks for.
GpuProbe probe();
std::unique_ptr<Gpu> open();

GpuProbe probe() {
    static const GpuProbe made = make_probe();
    return made;
}

std::unique_ptr<Gpu> open() {
    const GpuProbe found = probe();
    const Isa isa = usable_isa(found);
    start_cuda(found);
    return std::make_unique<CudaGpu>(found, isa);
}

}  // namespace plumb::cuda
