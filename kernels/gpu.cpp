#include "kernels/gpu.h"

#include "runtime/base/error.h"

namespace plumb {

namespace cuda {
// kernels/cuda/gpu.cpp or the emulated GPU of tests, where one is linked.
[[gnu::weak]] GpuProbe probe();
[[gnu::weak]] std::unique_ptr<Gpu> open();
}  // namespace cuda

GpuProbe probe_gpu() {
    return cuda::probe == nullptr ? GpuProbe{} : cuda::probe();
}

Isa usable_isa(const GpuProbe& probe) {
    if (!probe.compiled)
        throw Error(ExitCode::bad_input, "run.device: this program was built without CUDA");
    return probe.capability == 80 ? Isa::sm80 : Isa::sm90;
}

std::unique_ptr<Gpu> open_gpu() {
    usable_isa(probe_gpu());
    return cuda::open();
}

}  // namespace plumb
