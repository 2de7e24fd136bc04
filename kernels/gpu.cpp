#include "kernels/gpu.h"

#include <fmt/format.h>

#include <string_view>

#include "kernels/cuda/scratch.h"
#include "runtime/base/error.h"

namespace plumb {

namespace cuda {
// kernels/cuda/gpu.cpp or the emulated GPU of tests, where one is linked.
[[gnu::weak]] GpuProbe probe();
[[gnu::weak]] std::unique_ptr<Gpu> open();
}  // namespace cuda

namespace {

[[noreturn]] void refuse(const std::string& why) {
    throw Error(ExitCode::bad_input, "run.device: " + why);
}

// 12040: "12.4".
std::string cuda_version(int version) {
    return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

// A driver runs programs of older CUDAs and, because ours need nothing compiled by it, of newer
// ones of the same major version.
void check_driver(const GpuProbe& probe) {
    const int needed = probe.runtime_version / 1000 * 1000;
    if (probe.driver_version == 0)
        refuse(
            fmt::format("no NVIDIA driver is loaded, one that knows CUDA {} or newer is needed; "
                        "CUDA says: {}",
                        cuda_version(needed), probe.error));
    if (probe.driver_version < needed)
        refuse(
            fmt::format("the NVIDIA driver is too old: it knows CUDA up to {}; this program, of "
                        "CUDA {}, needs one that knows CUDA {} or newer",
                        cuda_version(probe.driver_version), cuda_version(probe.runtime_version),
                        cuda_version(needed)));
}

std::string wrong_architecture(const GpuProbe& probe) {
    std::string why = fmt::format("{} is sm_{}; kernels are built for sm_80 and sm_90", probe.name,
                                  probe.capability);
    if (probe.capability == 86 || probe.capability == 89)
        why += fmt::format(
            " (those of sm_80 use up to {} KiB of shared memory in a block, sm_{} has 99)",
            cuda::kBlockSharedMost / kKiB, probe.capability);
    return why + "; CUDA_VISIBLE_DEVICES can make another GPU the first";
}

}  // namespace

GpuProbe probe_gpu() {
    return cuda::probe == nullptr ? GpuProbe{} : cuda::probe();
}

Isa usable_isa(const GpuProbe& probe) {
    if (!probe.compiled)
        refuse("this program was built without CUDA (make cuda builds one with it)");
    check_driver(probe);
    if (!probe.error.empty())
        refuse(fmt::format(
            "CUDA cannot use this machine's GPUs: {} (the driver knows CUDA up to "
            "{}, this program is of CUDA {})",
            probe.error, cuda_version(probe.driver_version), cuda_version(probe.runtime_version)));
    if (probe.device_count == 0)
        refuse(
            "the NVIDIA driver shows no GPU, one is needed (the environment's "
            "CUDA_VISIBLE_DEVICES, where it is set, says which are shown)");
    if (probe.capability != 80 && probe.capability != 90) refuse(wrong_architecture(probe));
    if (!probe.cublaslt_error.empty())
        refuse(probe.cublaslt_error + " (LD_LIBRARY_PATH may name its folder)");
    return probe.capability == 80 ? Isa::sm80 : Isa::sm90;
}

std::unique_ptr<Gpu> open_gpu() {
    usable_isa(probe_gpu());
    return cuda::open();
}

double gpu_peak_flops(const char* name, Dtype dtype) noexcept {
    struct Peak {
        std::string_view name;  // or its beginning; the first that fits counts
        double half;            // bf16 and fp16, dense: without sparsity
        double fp32;
    };
    // NVIDIA's data sheets of the A100 (2021), H100 (2023) and H200 (2024).
    static constexpr Peak kPeaks[] = {
        {"NVIDIA A100", 312e12, 19.5e12},   {"NVIDIA H200 NVL", 835e12, 60e12},
        {"NVIDIA H200", 989e12, 67e12},     {"NVIDIA H100 PCIe", 756e12, 51e12},
        {"NVIDIA H100 NVL", 835e12, 60e12}, {"NVIDIA H100 80GB HBM3", 989e12, 67e12},
        {"NVIDIA GH200", 989e12, 67e12},
    };
    for (const Peak& peak : kPeaks)
        if (std::string_view(name).starts_with(peak.name))
            return dtype == Dtype::f32 ? peak.fp32 : peak.half;
    return 0;
}

std::string bytes_text(int64_t bytes) {
    return fmt::format("{} bytes ({:.1f} MiB)", bytes,
                       static_cast<double>(bytes) / static_cast<double>(kMiB));
}

std::string cuda_needs(const char* something) {
    return fmt::format("CUDA finds no memory for {} (it does not say how much that takes)",
                       something);
}

std::string memory_shortage(const std::string& what, const GpuMemory& memory,
                            const std::string& holders, const char* name) {
    std::string text = fmt::format("{}; of {}'s memory {} of {} are free", what, name,
                                   bytes_text(memory.free_bytes), bytes_text(memory.total_bytes));
    if (!holders.empty()) text += ", the rest is held by " + holders;
    return text;
}

void Gpu::refuse(const std::string& what) {
    throw Error(ExitCode::does_not_fit, memory_shortage(what, memory(), memory_holders(), name()));
}

}  // namespace plumb
