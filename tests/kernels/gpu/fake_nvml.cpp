#include "tests/kernels/gpu/fake_nvml.h"

#include <algorithm>
#include <string_view>

namespace plumb::testing {

FakeNvml& fake_nvml() {
    static FakeNvml made;
    return made;
}

}  // namespace plumb::testing

using plumb::testing::fake_nvml;
using plumb::testing::FakeNvmlProcess;

namespace {

int list(size_t most, unsigned* count, FakeNvmlProcess* processes) {
    if (fake_nvml().process_status != 0) return fake_nvml().process_status;
    const auto& all = fake_nvml().processes;
    const size_t listed = std::min({most, all.size(), static_cast<size_t>(*count)});
    std::copy_n(all.begin(), listed, processes);
    *count = static_cast<unsigned>(listed);
    return 0;
}

}  // namespace

extern "C" {

int nvmlInit_v2() {
    fake_nvml().opened += fake_nvml().init_status == 0;
    return fake_nvml().init_status;
}
int nvmlShutdown() {
    --fake_nvml().opened;
    return 0;
}
int nvmlDeviceGetHandleByPciBusId_v2(const char* pci_bus_id, void** device) {
    *device = &fake_nvml();
    return std::string_view(pci_bus_id) == "0000:65:00.0" ? fake_nvml().device_status : 2;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void*, unsigned* count, FakeNvmlProcess* processes) {
    return list(256, count, processes);
}
int nvmlDeviceGetGraphicsRunningProcesses_v3(void*, unsigned* count, FakeNvmlProcess* processes) {
    return list(1, count, processes);
}

}  // extern "C"
