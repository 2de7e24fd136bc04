#include "tests/kernels/gpu/gpu_emulation.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <sstream>
#include <vector>

#include "kernels/cuda/cublaslt.h"
#include "kernels/cuda/prepare.h"
#include "kernels/gpu.h"
#include "runtime/base/check.h"
#include "tests/kernels/gpu/cuda_emulation.h"

namespace plumb::cuda {

namespace {

using Work = std::function<void()>;
using Locked = std::lock_guard<std::mutex>;

constexpr int64_t kPageBytes = 4096;
constexpr int64_t kStartBytes = 256;  // on which memory starts

// A guard page, pages, a guard page. The memory ends where the pages do.
struct Memory {
    char* mapped;
    int64_t mapped_bytes;
    char* start;
    int64_t size_bytes;
    bool of_host;  // pinned

    char* pages() const { return mapped + kPageBytes; }
    size_t pages_bytes() const { return static_cast<size_t>(mapped_bytes - 2 * kPageBytes); }
    bool has(const void* address, int64_t bytes) const {
        const auto* from = static_cast<const char*>(address);
        return from >= start && from <= start + size_bytes && bytes <= start + size_bytes - from;
    }
};

// What all that open the GPU share, as one GPU's memory is shared.
struct Device {
    std::mutex mutex;  // around everything
    std::vector<Memory> memories;
    int64_t total_bytes = emulation::kGpuMemoryBytes;
    int64_t taken_bytes = 0;  // by CUDA
    emulation::GpuCosts costs;
    std::string holders;
    emulation::GpuCounts counts;
    bool eager[kGpuLaneCount] = {};
    volatile bool runs = false;
    struct sigaction fault_before {};

    int64_t free_bytes() const {
        int64_t free = total_bytes - taken_bytes;
        for (const Memory& m : memories) free -= m.of_host ? 0 : m.size_bytes;
        return std::max<int64_t>(free, 0);
    }
    bool take(int64_t bytes) {
        if (bytes > free_bytes()) return false;
        taken_bytes += bytes;
        return true;
    }
    bool has(const void* address, int64_t bytes, bool of_host) const {
        return std::any_of(memories.begin(), memories.end(), [&](const Memory& m) {
            return m.of_host == of_host && m.has(address, bytes);
        });
    }
};

Device& device() {
    static Device& made = *new Device;  // for as long as any thread runs
    return made;
}

// The GPU runs while it lives: its memory can be touched.
class Running {
  public:
    Running() noexcept { protect(PROT_READ | PROT_WRITE); }
    ~Running() { protect(PROT_NONE); }
    Running(const Running&) = delete;
    Running& operator=(const Running&) = delete;

  private:
    static void protect(int access) {
        device().runs = access != PROT_NONE;
        for (const Memory& m : device().memories)
            if (!m.of_host) CHECK(::mprotect(m.pages(), m.pages_bytes(), access) == 0);
    }
};

// Says what an address of ours was touched for; the fault then happens again as if this were not.
void on_fault(int, siginfo_t* info, void*) {
    const auto* at = static_cast<const char*>(info->si_addr);
    for (const Memory& m : device().memories) {
        if (at < m.mapped || at >= m.mapped + m.mapped_bytes) continue;
        const char* what =
            device().runs || m.of_host
                ? "CUDA emulation: memory was touched before its start or beyond its end\n"
                : "CUDA emulation: the host touched memory of the GPU, or a kernel ran without a "
                  "stream\n";
        if (::write(STDERR_FILENO, what, std::strlen(what)) < 0) break;
    }
    ::sigaction(SIGSEGV, &device().fault_before, nullptr);
}

void watch_faults() {
    struct sigaction action {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO;
    CHECK(::sigaction(SIGSEGV, &action, &device().fault_before) == 0);
}

void* make_memory(int64_t size_bytes, bool of_host) {
    const int64_t pages_bytes = align_up(std::max<int64_t>(size_bytes, 1), kPageBytes);
    Memory made{nullptr, pages_bytes + 2 * kPageBytes, nullptr, size_bytes, of_host};
    void* mapped = ::mmap(nullptr, static_cast<size_t>(made.mapped_bytes), PROT_NONE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK_NOTE(mapped != MAP_FAILED, "no address space for the emulated GPU");
    made.mapped = static_cast<char*>(mapped);
    made.start = made.pages() + pages_bytes - align_up(size_bytes, kStartBytes);
    if (of_host) CHECK(::mprotect(made.pages(), made.pages_bytes(), PROT_READ | PROT_WRITE) == 0);
    device().memories.push_back(made);
    return made.start;
}

void drop_memory(const void* start, bool of_host) {
    auto& all = device().memories;
    const auto found = std::find_if(all.begin(), all.end(), [&](const Memory& m) {
        return m.start == start && m.of_host == of_host;
    });
    CHECK_NOTE(found != all.end(), "memory is released that was not allocated");
    CHECK(::munmap(found->mapped, static_cast<size_t>(found->mapped_bytes)) == 0);
    all.erase(found);
}

// A queue. An event is how much had been put on it at a moment, to wait is to run so much of it:
// what is waited for was put before the wait, so that this ends.
struct Lane {
    std::deque<Work> waiting;
    int64_t put = 0;
    int64_t done = 0;
    std::vector<Work>* graph = nullptr;  // that is being captured
    int number = 0;

    void run_until(int64_t position) {
        while (done < position) {
            const Work work = std::move(waiting.front());
            waiting.pop_front();
            work();
            ++done;
        }
    }
    void put_work(Work work) {
        waiting.push_back(std::move(work));
        ++put;
        if (!emulation::is_reversed() && !device().eager[number]) return;
        const Running running;
        run_until(put);
    }
};

struct Moment {
    Lane* lane = nullptr;  // nullptr: never recorded
    int64_t position = 0;

    void reach() const {
        if (lane != nullptr) lane->run_until(position);
    }
};

class EmulatedGpu final : public Gpu {
  public:
    EmulatedGpu() {
        for (int l = 0; l < kGpuLaneCount; ++l) lanes_[l].number = l;
    }
    ~EmulatedGpu() override {
        const Locked locked(device().mutex);
        run_all();
    }

    Isa isa() const noexcept override { return Isa::sm80; }
    const char* name() const noexcept override { return "Emulated GPU"; }

    void* allocate(int64_t size_bytes) override {
        if (void* memory = allocate_of_gpu(size_bytes)) return memory;
        refuse(bytes_text(size_bytes) + " cannot be allocated");
    }
    void release(void* memory) noexcept override { release(memory, false); }
    void* allocate_host(int64_t size_bytes) override {
        const Locked locked(device().mutex);
        check_no_capture();
        return make_memory(size_bytes, true);
    }
    void release_host(void* memory) noexcept override { release(memory, true); }

    GpuMemory memory() noexcept override {
        const Locked locked(device().mutex);
        run_all();
        return {device().free_bytes(), device().total_bytes};
    }
    std::string memory_holders() override {
        const Locked locked(device().mutex);
        return device().holders;
    }

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

    void* stream(GpuLane l) noexcept override { return &lane(l); }

    void copy_to_gpu(void* to, const void* from, int64_t size_bytes, GpuLane l) noexcept override {
        const Locked locked(device().mutex);
        copy(to, from, size_bytes, lane(l), true);
    }
    void copy_to_host(void* to, const void* from, int64_t size_bytes, GpuLane l) noexcept override {
        const Locked locked(device().mutex);
        copy(to, from, size_bytes, lane(l), false);
    }
    void fill(void* to, uint8_t byte, int64_t size_bytes, GpuLane l) noexcept override {
        const Locked locked(device().mutex);
        check_no_capture();
        if (size_bytes == 0) return;
        CHECK_NOTE(device().has(to, size_bytes, false), "a fill of what is not the GPU's memory");
        lane(l).put_work([=] { std::memset(to, byte, static_cast<size_t>(size_bytes)); });
    }

    void record(GpuEvent event, GpuLane l) noexcept override {
        const Locked locked(device().mutex);
        check_no_capture();
        moment(event) = {&lane(l), lane(l).put};
    }
    void wait(GpuLane l, GpuEvent event) noexcept override {
        const Locked locked(device().mutex);
        check_no_capture();
        lane(l).put_work([awaited = moment(event)] { awaited.reach(); });
    }
    void host_wait(GpuEvent event) noexcept override {
        const Locked locked(device().mutex);
        check_no_capture();
        const Running running;
        moment(event).reach();
    }
    void host_wait(GpuLane l) noexcept override {
        const Locked locked(device().mutex);
        check_no_capture();
        const Running running;
        lane(l).run_until(lane(l).put);
    }

    void begin_capture(GpuLane l) noexcept override {
        const Locked locked(device().mutex);
        check_no_capture();
        lane(l).graph = &graphs_.emplace_back();
    }
    Graph end_capture(GpuLane l) override {
        if (!made_graph(lane(l))) refuse(cuda_needs(kGraphNodes));
        return static_cast<Graph>(graphs_.size()) - 1;
    }
    void launch(Graph graph, GpuLane l) noexcept override {
        const Locked locked(device().mutex);
        check_no_capture();
        CHECK(graph >= 0 && static_cast<size_t>(graph) < graphs_.size());
        ++device().counts.graphs;
        lane(l).put_work([&all = graphs_[static_cast<size_t>(graph)]] {
            for (const Work& work : all) work();
        });
    }

  private:
    Lane& lane(GpuLane l) { return lanes_[static_cast<int>(l)]; }
    Moment& moment(GpuEvent event) { return events_[static_cast<int>(event)]; }

    void* allocate_of_gpu(int64_t size_bytes) {
        const Locked locked(device().mutex);
        check_no_capture();
        if (size_bytes > device().free_bytes()) return nullptr;
        ++device().counts.allocations;
        return make_memory(size_bytes, false);
    }
    static bool made_graph(Lane& lane) {
        const Locked locked(device().mutex);
        CHECK_NOTE(lane.graph != nullptr, "a capture ends on a lane where none began");
        lane.graph = nullptr;
        return device().take(device().costs.graph_bytes);
    }
    void check_no_capture() const {
        for (const Lane& lane : lanes_)
            CHECK_NOTE(lane.graph == nullptr, "what is captured may launch kernels only");
    }
    void run_all() {
        check_no_capture();
        const Running running;
        for (Lane& lane : lanes_) lane.run_until(lane.put);
    }
    void release(void* memory, bool of_host) {
        if (memory == nullptr) return;
        const Locked locked(device().mutex);
        run_all();
        drop_memory(memory, of_host);
    }
    // CUDA takes other host memory too, but then waits.
    void copy(void* to, const void* from, int64_t size_bytes, Lane& lane, bool to_gpu) {
        check_no_capture();
        if (size_bytes == 0) return;
        CHECK_NOTE(device().has(to_gpu ? to : from, size_bytes, false),
                   "a copy whose one side is not the GPU's memory");
        CHECK_NOTE(device().has(to_gpu ? from : to, size_bytes, true),
                   "a copy whose host memory is not from allocate_host");
        lane.put_work([=] { std::memcpy(to, from, static_cast<size_t>(size_bytes)); });
    }

    Lane lanes_[kGpuLaneCount];
    Moment events_[kGpuEventCount];
    std::deque<std::vector<Work>> graphs_;
    std::optional<Preparing> preparing_;
};

}  // namespace

namespace emulation {

void put_launch(void* stream, Work launch) {
    const Locked locked(device().mutex);
    Lane& lane = *static_cast<Lane*>(stream);
    if (lane.graph != nullptr) return lane.graph->push_back(std::move(launch));
    ++device().counts.launches;
    lane.put_work(std::move(launch));
}

void set_gpu_memory(int64_t total_bytes) {
    const Locked locked(device().mutex);
    device().total_bytes = total_bytes;
}

void set_gpu_costs(const GpuCosts& costs) {
    const Locked locked(device().mutex);
    device().costs = costs;
}

bool take_for_kernel() {
    const Locked locked(device().mutex);
    const bool taken = device().take(device().costs.kernel_bytes);
    if (!taken) note_no_memory(kKernelCode);
    return taken;
}

bool take_for_product() {
    const Locked locked(device().mutex);
    const bool taken = device().take(device().costs.product_bytes);
    if (!taken) note_no_memory(kProductCode);
    return taken;
}

void set_eager_lanes(const std::string& names) {
    constexpr const char* kNames[] = {"compute", "copy", "save"};
    static_assert(sizeof kNames / sizeof *kNames == kGpuLaneCount);
    const Locked locked(device().mutex);
    for (int l = 0; l < kGpuLaneCount; ++l)
        device().eager[l] = names.find(kNames[l]) != std::string::npos;
}

void set_memory_holders(std::string holders) {
    const Locked locked(device().mutex);
    device().holders = std::move(holders);
}

GpuCounts gpu_counts() {
    const Locked locked(device().mutex);
    return device().counts;
}

}  // namespace emulation

static emulation::GpuCosts costs_of(const char* text) {
    emulation::GpuCosts costs;
    std::istringstream words(text);
    int64_t bytes = 0;
    for (std::string name; words >> name >> bytes;)
        (name == "kernel"    ? costs.kernel_bytes
         : name == "product" ? costs.product_bytes
                             : costs.graph_bytes) = bytes;
    return costs;
}

GpuProbe probe() {
    GpuProbe found;
    found.compiled = true;
    found.driver_version = found.runtime_version = 13000;
    found.device_count = 1;
    found.name = "Emulated GPU";
    found.capability = 80;
    return found;
}

std::unique_ptr<Gpu> open() {
    static std::once_flag watched;
    std::call_once(watched, [] {
        watch_faults();
        if (const char* lanes = std::getenv("PLUMB_EMULATED_EAGER"))
            emulation::set_eager_lanes(lanes);
        if (const char* costs = std::getenv("PLUMB_EMULATED_COSTS"))
            emulation::set_gpu_costs(costs_of(costs));
        if (const char* holders = std::getenv("PLUMB_EMULATED_HOLDERS"))
            emulation::set_memory_holders(holders);
    });
    return std::make_unique<EmulatedGpu>();
}

}  // namespace plumb::cuda
