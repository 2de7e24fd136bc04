// The emulated GPU behind kernels/gpu.h: what tests set and ask of it. Its memory cannot be touched
// by the host and has guard pages, and what CUDA would take of it for itself can be set. Its lanes
// run as late as they may: when the host waits, and then only what that wait needs; or, reversed
// (cuda_emulation.h), as early: at once; or only some of them so early. Results that differ between
// these need a wait that is missing. Copies must have memory of the GPU on one side and pinned
// memory on the other, a graph is of kernels only and a kernel or product that was not prepared
// does not run: anything else aborts with its reason.
// Path: cold.
#pragma once

#include <cstdint>
#include <string>

namespace plumb::cuda::emulation {

// Of all its memory, 8 GiB when nothing else is said; what is allocated stays.
constexpr int64_t kGpuMemoryBytes = int64_t{8} << 30;
void set_gpu_memory(int64_t total_bytes);

// Lanes whose work runs at once, by name, as in "compute" or "copy save"; "" (as it is first) for
// none. Programs take them from the environment's PLUMB_EMULATED_EAGER.
void set_eager_lanes(const std::string& names);

// What is taken of it, for ever: by a kernel and by a product when they are prepared, by a graph
// when it is made. Nothing at first; programs take these from the environment's
// PLUMB_EMULATED_COSTS, as in "graph 1000 kernel 20".
struct GpuCosts {
    int64_t kernel_bytes = 0;
    int64_t product_bytes = 0;
    int64_t graph_bytes = 0;
};
void set_gpu_costs(const GpuCosts& costs);
// As a kernel or product that is prepared does; notes it when there is not so much.
bool take_for_kernel();
bool take_for_product();

// What Gpu::memory_holders says; programs take it from PLUMB_EMULATED_HOLDERS.
void set_memory_holders(std::string holders);

// Since the program started, by every Gpu: what was put on lanes, run or not.
struct GpuCounts {
    int64_t allocations = 0;  // of the GPU's memory
    int64_t launches = 0;     // of single kernels and products, without those of graphs
    int64_t graphs = 0;       // launched
};
GpuCounts gpu_counts();

}  // namespace plumb::cuda::emulation
