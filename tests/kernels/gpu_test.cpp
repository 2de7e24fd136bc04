// What the user is told of a GPU that cannot be used, word by word, and which ones can be.
#include "kernels/gpu.h"

#include <gtest/gtest.h>

#include "runtime/base/error.h"
#include "runtime/base/types.h"

namespace plumb {
namespace {

// A machine on which everything is there.
GpuProbe h200() {
    GpuProbe probe;
    probe.compiled = true;
    probe.driver_version = 13000;
    probe.runtime_version = 13000;
    probe.device_count = 1;
    probe.name = "NVIDIA H200";
    probe.capability = 90;
    return probe;
}

std::string refusal(const GpuProbe& probe) {
    try {
        return std::string("used as ") + isa_name(usable_isa(probe));
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ExitCode::bad_input);
        return error.what();
    }
}

TEST(UsableGpu, HasACapabilityThatKernelsAreBuiltFor) {
    for (int capability = 10; capability <= 130; ++capability) {
        GpuProbe probe = h200();
        probe.capability = capability;
        const std::string found = refusal(probe);
        if (capability == 80) {
            EXPECT_EQ(found, "used as sm80");
        } else if (capability == 90) {
            EXPECT_EQ(found, "used as sm90");
        } else {
            const std::string is = "run.device: NVIDIA H200 is sm_" + std::to_string(capability) +
                                   "; kernels are built for sm_80 and sm_90";
            const bool small = capability == 86 || capability == 89;
            EXPECT_EQ(found, is +
                                 (small ? " (those of sm_80 use up to 139 KiB of shared memory "
                                          "in a block, sm_" +
                                              std::to_string(capability) + " has 99)"
                                        : "") +
                                 "; CUDA_VISIBLE_DEVICES can make another GPU the first");
        }
    }
}

// Of the same major version any driver will do.
TEST(UsableGpu, HasADriverThatIsNewEnough) {
    const struct {
        int driver, runtime;
        const char* part;
    } cases[] = {
        {13000, 13000, "used as sm90"},
        {12000, 12040, "used as sm90"},
        {12080, 12040, "used as sm90"},
        {13010, 12040, "used as sm90"},
        {13000, 13020, "used as sm90"},
        {12090, 13020,
         "run.device: the NVIDIA driver is too old: it knows CUDA up to 12.9; this program, of "
         "CUDA 13.2, needs one that knows CUDA 13.0 or newer"},
        {11080, 12040,
         "run.device: the NVIDIA driver is too old: it knows CUDA up to 11.8; this program, of "
         "CUDA 12.4, needs one that knows CUDA 12.0 or newer"},
    };
    for (const auto& c : cases) {
        GpuProbe probe = h200();
        probe.driver_version = c.driver;
        probe.runtime_version = c.runtime;
        EXPECT_EQ(refusal(probe), c.part) << c.driver << " " << c.runtime;
        // A driver that is too old is the reason for what CUDA says.
        if (c.driver / 1000 >= c.runtime / 1000) continue;
        probe.error = "CUDA driver version is insufficient for CUDA runtime version";
        probe.device_count = 0;
        EXPECT_EQ(refusal(probe), c.part);
    }
}

TEST(UsableGpu, LacksNothing) {
    EXPECT_EQ(refusal(GpuProbe{}),
              "run.device: this program was built without CUDA (make cuda builds one with it)");

    GpuProbe no_driver;
    no_driver.compiled = true;
    no_driver.runtime_version = 13000;
    no_driver.error = "CUDA's words";
    EXPECT_EQ(refusal(no_driver),
              "run.device: no NVIDIA driver is loaded, one that knows CUDA 13.0 or newer is "
              "needed; CUDA says: CUDA's words");

    GpuProbe no_device = h200();
    no_device.device_count = 0;
    no_device.capability = 0;
    EXPECT_EQ(refusal(no_device),
              "run.device: the NVIDIA driver shows no GPU, one is needed (the environment's "
              "CUDA_VISIBLE_DEVICES, where it is set, says which are shown)");

    GpuProbe silent = h200();
    silent.error = "system not yet initialized";
    silent.device_count = 0;
    EXPECT_EQ(refusal(silent),
              "run.device: CUDA cannot use this machine's GPUs: system not yet initialized (the "
              "driver knows CUDA up to 13.0, this program is of CUDA 13.0)");

    GpuProbe bare = h200();
    bare.cublaslt_error = "cuBLASLt cannot be loaded: why";
    EXPECT_EQ(refusal(bare),
              "run.device: cuBLASLt cannot be loaded: why (LD_LIBRARY_PATH may name its folder)");
}

// The machine of this test: opening its GPU fails for the reason that the probe gives, or gives
// what the probe says.
TEST(UsableGpu, IsWhatOpens) {
    const GpuProbe probe = probe_gpu();
    const std::string found = refusal(probe);
    try {
        const std::unique_ptr<Gpu> gpu = open_gpu();
        EXPECT_EQ(found, std::string("used as ") + isa_name(gpu->isa()));
        EXPECT_EQ(gpu->name(), probe.name);
    } catch (const Error& error) {
        EXPECT_EQ(found, error.what());
    }
}

TEST(MemoryShortage, TellsBothNumbersAndWhoHoldsTheRest) {
    const GpuMemory memory{kGiB, 80 * kGiB};
    EXPECT_EQ(memory_shortage("2 GiB cannot be allocated", memory, "python (pid 4711) 70.1 GiB",
                              "NVIDIA H200"),
              "2 GiB cannot be allocated; of NVIDIA H200's memory 1073741824 bytes (1024.0 MiB) of "
              "85899345920 bytes (81920.0 MiB) are free, the rest is held by python (pid 4711) "
              "70.1 GiB");
    EXPECT_EQ(memory_shortage(cuda_needs("a graph"), {80 * kGiB, 80 * kGiB}, "", "NVIDIA H200"),
              "CUDA finds no memory for a graph (it does not say how much that takes); of NVIDIA "
              "H200's memory 85899345920 bytes (81920.0 MiB) of 85899345920 bytes (81920.0 MiB) "
              "are free");
}

}  // namespace
}  // namespace plumb
