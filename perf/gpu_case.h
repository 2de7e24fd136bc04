// Measuring on a GPU: a case of the kernels' table in its memory, and the limits of the machine.
// A case has its operands in several sets, one call after another on the next, so that together
// they move more than any GPU's L2 holds (50 MB on H100 and H200) before a byte is seen again: what
// memory gives, not what the cache does. The calls are one graph, as those of a training step are.
// Values are random, from a pool of a million: drawing them all would take minutes.
// Path: cold.
#pragma once

#include <memory>
#include <vector>

#include "kernels/gpu.h"
#include "perf/bench_case.h"

namespace plumb::testing {

// Memory of a GPU.
struct GpuRelease {
    Gpu* gpu;
    void operator()(char* memory) const noexcept { gpu->release(memory); }
};
using GpuBytes = std::unique_ptr<char, GpuRelease>;

// Host memory from which copies to the GPU do not wait.
class PinnedBytes {
  public:
    // Throws Error (does_not_fit).
    PinnedBytes(Gpu& gpu, int64_t size_bytes);
    ~PinnedBytes() { gpu_.release_host(bytes_); }
    PinnedBytes(const PinnedBytes&) = delete;
    PinnedBytes& operator=(const PinnedBytes&) = delete;

    char* data() const { return bytes_; }
    // Puts copies of all of it on lane compute until `to` is full.
    void fill(char* to, int64_t size_bytes) const noexcept;

  private:
    Gpu& gpu_;
    int64_t size_bytes_;
    char* bytes_;
};

// What all cases of a run share.
struct GpuBench {
    Gpu& gpu;
    PinnedBytes floats;  // random normal numbers
    PinnedBytes halves;  // the same in bf16 or f16
    PinnedBytes staging;
    int64_t rotation_bytes;  // what the calls of all sets move at least
    double least_s;          // of one measurement
    int calls;               // of a graph, at least

    // `dtype` is that of the values.
    GpuBench(Gpu& on, Dtype dtype, bool smoke);
};

class GpuCase {
  public:
    // Throws Error (does_not_fit) when the GPU has too little free memory.
    GpuCase(GpuBench& bench, const KernelCase& c);

    // Seconds of a call: wall clock from the first of many graphs put on the lane to the end of the
    // last, each measurement at least bench.least_s long.
    struct Time {
        double median_s;
        double best_s;
    };
    Time measure() noexcept;

  private:
    char* operand(int64_t set, int i) const {
        return memory_.get() + set * set_bytes_ + offset_[i];
    }
    void fill(int64_t set, const Values& values);
    void call(int64_t set) const noexcept;
    double seconds_of(int64_t launches) const noexcept;

    GpuBench& bench_;
    KernelCase case_;
    Kernel kernel_;
    int64_t offset_[kMaxOperands] = {};
    int64_t set_bytes_ = 0;
    int64_t scratch_bytes_ = 0;
    int64_t sets_ = 1;
    int64_t calls_ = 0;
    GpuBytes memory_;  // sets, scratch, scalars
    Gpu::Graph graph_ = 0;
};

struct GpuLimits {
    double fold_bandwidth;    // bytes/s, read and written, of `fold`, an op that streams 1 GiB
    double memcpy_bandwidth;  // of CUDA's own copy within the GPU; 0 where it is not linked
    double matrix_flops;      // flop/s of the value dtype's products, 8192^3, by our path
    double copy_bandwidth() const;
};
// Throws Error (does_not_fit), as all that measures here.
GpuLimits measure_gpu_limits(GpuBench& bench, Dtype dtype, bool smoke);

// The GPU, its products by the fastest algorithms as in training. Throws Error as open_gpu does.
std::unique_ptr<Gpu> open_tuned_gpu();

}  // namespace plumb::testing
