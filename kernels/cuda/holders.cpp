#include "kernels/cuda/holders.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <vector>

#include "runtime/base/types.h"

namespace plumb::cuda {

namespace {

// As nvml.h has it since CUDA 11.
struct NvmlProcess {
    unsigned pid;
    unsigned long long used_bytes;  // all ones: unknown
    unsigned gpu_instance;          // all ones: the whole GPU
    unsigned compute_instance;
};
constexpr int kNvmlSuccess = 0;
using NvmlDevice = void*;

struct Nvml {
    int (*init)();
    int (*shutdown)();
    int (*device_of)(const char* pci_bus_id, NvmlDevice* device);
    int (*compute_processes)(NvmlDevice device, unsigned* count, NvmlProcess* processes);
    int (*graphics_processes)(NvmlDevice device, unsigned* count, NvmlProcess* processes);
};

template <typename F>
bool find(void* library, const char* name, F* function) {
    *function = reinterpret_cast<F>(::dlsym(library, name));
    return *function != nullptr;
}

bool load(Nvml* nvml) {
    void* library = ::dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    return library != nullptr && find(library, "nvmlInit_v2", &nvml->init) &&
           find(library, "nvmlShutdown", &nvml->shutdown) &&
           find(library, "nvmlDeviceGetHandleByPciBusId_v2", &nvml->device_of) &&
           find(library, "nvmlDeviceGetComputeRunningProcesses_v3", &nvml->compute_processes) &&
           find(library, "nvmlDeviceGetGraphicsRunningProcesses_v3", &nvml->graphics_processes);
}

std::vector<NvmlProcess> processes_on(const Nvml& nvml, const char* pci_bus_id) {
    constexpr unsigned kMax = 256;
    std::vector<NvmlProcess> all;
    NvmlDevice device = nullptr;
    if (nvml.device_of(pci_bus_id, &device) != kNvmlSuccess) return all;
    for (const auto ask : {nvml.compute_processes, nvml.graphics_processes}) {
        std::vector<NvmlProcess> asked(kMax);
        unsigned count = kMax;
        if (ask(device, &count, asked.data()) != kNvmlSuccess) continue;
        asked.resize(std::min(count, kMax));
        for (const NvmlProcess& one : asked) {
            const bool known = std::any_of(all.begin(), all.end(), [&](const NvmlProcess& other) {
                return other.pid == one.pid;
            });
            // Of a part we cannot tell whether it is the one that we run on.
            if (!known && one.gpu_instance == ~0U) all.push_back(one);
        }
    }
    return all;
}

bool is_this(const NvmlProcess& process) {
    return process.pid == static_cast<unsigned>(::getpid());
}

// Whether ids are those of /proc: in the machine's own namespace, whose number Linux fixes, or when
// this process is among them by its own.
bool ids_are_ours(const std::vector<NvmlProcess>& processes) {
    std::error_code unknown;
    return std::filesystem::read_symlink("/proc/self/ns/pid", unknown) == "pid:[4026531836]" ||
           std::any_of(processes.begin(), processes.end(), is_this);
}

std::string text_of(const NvmlProcess& process, bool ours) {
    std::string name;
    if (ours) std::getline(std::ifstream(fmt::format("/proc/{}/comm", process.pid)), name);
    std::string text = is_this(process) ? "this process"
                       : name.empty()   ? fmt::format("pid {} (not visible here)", process.pid)
                                        : fmt::format("{} (pid {})", name, process.pid);
    if (process.used_bytes != ~0ULL)
        text += fmt::format(" {:.1f} GiB",
                            static_cast<double>(process.used_bytes) / static_cast<double>(kGiB));
    return text;
}

}  // namespace

std::string memory_holders(const char* pci_bus_id) {
    Nvml nvml;
    if (!load(&nvml) || nvml.init() != kNvmlSuccess) return "";
    std::vector<NvmlProcess> processes = processes_on(nvml, pci_bus_id);
    nvml.shutdown();
    // Unknown amounts come last: all ones and one more is zero.
    std::sort(processes.begin(), processes.end(), [](const NvmlProcess& a, const NvmlProcess& b) {
        return a.used_bytes + 1 > b.used_bytes + 1;
    });
    const bool ours = ids_are_ours(processes);
    std::string text;
    for (const NvmlProcess& process : processes)
        text += (text.empty() ? "" : ", ") + text_of(process, ours);
    return text;
}

}  // namespace plumb::cuda
