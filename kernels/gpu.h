// What the runtime needs of a GPU beside its kernels: memory, lanes, copies, events, graphs. Behind
// it stands CUDA (kernels/cuda/gpu.cpp), or the emulated GPU of the tests, whose memory the host
// cannot touch and whose lanes run as late, or as early, as they may. Work on one lane runs in
// order; lanes know nothing of each other but what events say. All but what is marked cold may be
// called after seal; one thread at a time for each lane.
// Path: hot.
#pragma once

#include <memory>
#include <string>

#include "runtime/base/dtype.h"
#include "runtime/base/hash.h"
#include "runtime/program/kernel_traits.h"

namespace plumb {

// A CUDA stream each.
enum class GpuLane : uint8_t {
    compute,
    copy,  // what the host gives a step and gets from it
    save,  // the saving thread's
    count
};
inline constexpr int kGpuLaneCount = static_cast<int>(GpuLane::count);

// Moments of a lane, for others to wait for. Each holds the moment at which it was recorded last.
enum class GpuEvent : uint8_t {
    sent,     // copies to the GPU are done: the host may write again, a run may begin
    ran,      // a run has ended
    fetched,  // copies to the host are done
    saved,    // a copy of the saving thread is done
    count
};
inline constexpr int kGpuEventCount = static_cast<int>(GpuEvent::count);

struct GpuMemory {
    int64_t free_bytes = 0;
    int64_t total_bytes = 0;
};

// How the algorithms of a GPU's matrix products were chosen since Gpu::use_products.
struct GpuProducts {
    std::string table;     // of all, for a later use_products; empty before the first
    int64_t taken = 0;     // products whose algorithm was in the table given
    int64_t tuned = 0;     // whose was measured
    double tuning_ms = 0;  // the time that took
    Hash128 bound_hash;    // of the algorithms of those that were prepared; zeros: of none
};

class Gpu {
  public:
    using Graph = int32_t;

    virtual ~Gpu() = default;

    virtual Isa isa() const noexcept = 0;
    virtual const char* name() const noexcept = 0;  // "NVIDIA H200"

    // Cold. Memory of the GPU, and of the host for copies that do not wait (pinned): zeros, aligned
    // to 256 bytes. Throw Error (does_not_fit) when there is not so much.
    virtual void* allocate(int64_t size_bytes) = 0;
    virtual void release(void* memory) noexcept = 0;
    virtual void* allocate_host(int64_t size_bytes) = 0;
    virtual void release_host(void* memory) noexcept = 0;
    virtual GpuMemory memory() noexcept = 0;
    // Cold. The processes that hold memory of this GPU, "python (pid 4711) 70.1 GiB, ..."; empty
    // when the system does not tell.
    virtual std::string memory_holders() = 0;
    // Cold. Throws Error (does_not_fit): `what` of this GPU's memory cannot be had, how much of it
    // is free and who holds the rest. All that finds too little memory ends here.
    [[noreturn]] void refuse(const std::string& what);

    // Cold. Between these, kernels of the calling thread make what they need and launch nothing;
    // the end throws as refuse() does when something found no memory. What was called is then all
    // on the GPU: later calls take none of its memory.
    virtual void begin_preparing() noexcept = 0;
    virtual void end_preparing() = 0;

    // Cold. From here on the algorithm of a matrix product that is prepared comes from a table of
    // an earlier run; of one that is not in it, it is cuBLASLt's first proposal, as before, or with
    // `measure` the fastest. Each runs when it is prepared, on its operands, which must still be
    // zeros, results too. Returns "" or why the table, which may be empty, cannot be used.
    virtual std::string use_products(const std::string& table, bool measure) = 0;
    virtual GpuProducts products() = 0;
    // The name of the file for tables that this GPU and this library can use, and no others.
    virtual std::string products_file() = 0;

    // What KernelArgs::stream takes.
    virtual void* stream(GpuLane lane) noexcept = 0;

    // Put on a lane; return at once when host memory is from allocate_host.
    virtual void copy_to_gpu(void* to, const void* from, int64_t size_bytes,
                             GpuLane lane) noexcept = 0;
    virtual void copy_to_host(void* to, const void* from, int64_t size_bytes,
                              GpuLane lane) noexcept = 0;
    virtual void fill(void* to, uint8_t byte, int64_t size_bytes, GpuLane lane) noexcept = 0;

    virtual void record(GpuEvent event, GpuLane lane) noexcept = 0;
    // What is put on the lane later runs after the event; at once when it was never recorded.
    virtual void wait(GpuLane lane, GpuEvent event) noexcept = 0;
    virtual void host_wait(GpuEvent event) noexcept = 0;
    virtual void host_wait(GpuLane lane) noexcept = 0;  // for all that is on it

    // Cold. What is put on the lane between these is not run but becomes a graph (kernels only).
    // The end takes all that the graph needs of the GPU's memory, and throws as refuse() does.
    virtual void begin_capture(GpuLane lane) noexcept = 0;
    virtual Graph end_capture(GpuLane lane) = 0;
    // Runs one as a whole.
    virtual void launch(Graph graph, GpuLane lane) noexcept = 0;
};

// What there is to be used, before it is used.
struct GpuProbe {
    bool compiled = false;    // this program has CUDA kernels
    int driver_version = 0;   // the newest CUDA that the driver knows, 12040 for 12.4; 0: no driver
    int runtime_version = 0;  // the CUDA that this program was built with
    int device_count = 0;
    std::string error;           // CUDA's own words when it cannot be asked; empty: it can
    std::string name;            // of the first device
    int capability = 0;          // 90 for 9.0
    std::string cublaslt_error;  // why cuBLASLt cannot be used; empty: it can
};

// Cold. The probe of this machine.
GpuProbe probe_gpu();
// Cold. The instruction set of the GPU that a probe found. Throws Error (bad_input) that says what
// is missing: CUDA in this program, a driver, a newer driver, a device, one of an architecture that
// kernels are built for, cuBLASLt.
Isa usable_isa(const GpuProbe& probe);
// Cold. Throws Error as usable_isa does, and where CUDA cannot start: does_not_fit when what is
// free of the GPU's memory is too little for CUDA itself.
std::unique_ptr<Gpu> open_gpu();

// Cold. Dense peak flop/s of a GPU on values of a dtype (16-bit ones with sums in fp32, fp32
// without tensor cores), by its name, from its maker's data sheet; 0 when it is not in the table.
double gpu_peak_flops(const char* name, Dtype dtype) noexcept;

// Cold. What Gpu::refuse says of the GPU `name`.
std::string memory_shortage(const std::string& what, const GpuMemory& memory,
                            const std::string& holders, const char* name);
// Cold. What cannot be had when CUDA itself finds no memory for something; it does not say how much
// it looked for.
std::string cuda_needs(const char* something);
// Cold. As texts about memory have it: "2097152 bytes (2.0 MiB)".
std::string bytes_text(int64_t bytes);

}  // namespace plumb
