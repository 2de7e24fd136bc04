// What run.device = "cuda" stands for: with CUDA or on an emulated GPU a record, elsewhere an
// error.
#include <gtest/gtest.h>

#include <optional>

#include "kernels/gpu.h"
#include "runtime/base/error.h"
#include "runtime/engine/session.h"
#include "tests/runtime/engine/golden_session.h"

namespace plumb {
namespace {

RunConfig with_device(const char* device) {
    GoldenRun run;
    run.device = device;
    return golden_config(read_golden("gpt2"), run);
}

TEST(Device, CudaIsTheRecordOfTheGpuThatIsThere) {
    const RunConfig config = with_device("cuda");
    std::optional<Isa> isa;
    std::string why_not;
    try {
        isa = usable_isa(probe_gpu());
    } catch (const Error& error) {
        why_not = error.what();
    }
    if (!isa) {
        try {
            device_of(config);
            FAIL() << "a device without a GPU: " << why_not;
        } catch (const Error& error) {
            EXPECT_EQ(error.code(), ExitCode::bad_input);
            EXPECT_EQ(std::string(error.what()).rfind(why_not + "; to plan ", 0), 0u)
                << error.what();
        }
        return;
    }
    const std::string name = std::string("cuda-") + isa_name(*isa);
    EXPECT_EQ(device_of(config).name, name);
    EXPECT_EQ(device_of(config).isa, *isa);
    EXPECT_EQ(plan_of(config, Purpose::train).digest,
              plan_of(with_device(name.c_str()), Purpose::train).digest);
}

TEST(Device, CpuIsThisMachineAndANameIsARecord) {
    EXPECT_EQ(device_of(with_device("cpu")).isa, host_isa());
    EXPECT_EQ(device_of(with_device("cuda-sm80")).isa, Isa::sm80);
    EXPECT_THROW(device_of(with_device("cuda-sm86")), Error);
}

// For plans and runs alike.
TEST(Device, Tf32IsOfAGpu) {
    RunConfig config = with_device("cuda-sm80");
    config.run.run.tf32 = true;
    EXPECT_EQ(device_of(config).isa, Isa::sm80);
    config.run.run.device = "cpu";
    EXPECT_THROW(device_of(config), Error);
    EXPECT_THROW(plan_of(config, Purpose::train), Error);
}

}  // namespace
}  // namespace plumb
