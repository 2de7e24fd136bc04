#include "runtime/engine/resume_config.h"

#include <fmt/format.h>

#include <optional>

#include "runtime/base/error.h"
#include "runtime/engine/session.h"
#include "runtime/engine/state_io.h"

namespace plumb {

namespace {

// Settings of the checkpoint in `folder`, when there is one of this model that can be read.
std::optional<RunConfig> saved_config(const RunConfig& config, const std::string& folder) {
    try {
        RunConfig saved = config_of_checkpoint(folder, {});
        if (model_hash(saved) == model_hash(config)) return saved;
    } catch (const Error&) {
        // There is none, or loading it will say what is wrong with it.
    }
    return {};
}

}  // namespace

RunConfig load_training(const std::string& name, std::vector<std::string>* overrides) {
    RunConfig config = load_run(name, *overrides);
    const CheckpointSpec& checkpoint = config.run.checkpoint;
    if (checkpoint.resume == "never") return config;
    const std::string folder = checkpoint.resume == "auto" ? checkpoint.dir : checkpoint.resume;
    const std::optional<RunConfig> saved = saved_config(config, folder);
    if (!saved) return config;
    const int64_t saved_bytes = saved->run.checkpoint.chunk_bytes;
    if (checkpoint.chunk_bytes < saved_bytes)
        throw Error(
            ExitCode::bad_input,
            fmt::format("checkpoint.chunk_bytes: {}, but the checkpoint in {} has chunks of "
                        "{} bytes, and what resumes it needs no less",
                        checkpoint.chunk_bytes, folder, saved_bytes));
    // Another program's settings may leave theirs to the machine too.
    if (config.run.train.dtype != ComputeDtype::automatic ||
        saved->run.train.dtype == ComputeDtype::automatic)
        return config;
    const char* dtype = value_dtype_name(program_dtype(*saved, Purpose::train));
    overrides->push_back(fmt::format("--train.dtype={}", dtype));
    config = load_run(name, *overrides);
    config.notes.push_back(
        fmt::format("train.dtype is auto: goes on in {}, as the checkpoint in {}", dtype, folder));
    return config;
}

}  // namespace plumb
