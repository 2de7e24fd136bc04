// A run file from anywhere: a complete configuration or an Error, and what is accepted survives the
// way into a checkpoint's settings text and back.
#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/config/run_config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace plumb;
    RunConfig config;
    try {
        // Model paths start where there is nothing.
        config = parse_run({reinterpret_cast<const char*>(data), size}, "run.toml", "/nonexistent");
    } catch (const Error& error) {
        // io: the config.json that the input names.
        CHECK(error.code() == ExitCode::bad_input || error.code() == ExitCode::io);
        return 0;
    }
    CHECK(parse_settings_text(settings_text(config), "checkpoint") == config);
    return 0;
}
