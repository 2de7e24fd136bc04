// From a checked configuration to the whole program of one rank: every section and phase that
// plumb-train or plumb-infer runs. Pure: the same inputs give the same program, on any machine.
// Path: cold.
#pragma once

#include "runtime/config/run_config.h"
#include "runtime/program/kernel_traits.h"
#include "runtime/program/program.h"

namespace plumb {

// train: initialise, load, step, evaluate, save, and generate when train.sample_tokens > 0.
// generate: load, generate, for generate.batch sequences at once.
// score: load, evaluate, with one io row of batch.micro_batch sequences.
enum class Purpose : uint8_t { train, generate, score };

// Staging of the checkpoint codec, which the program plans but knows nothing of (bytes).
struct StagingBytes {
    int64_t raw = 0;
    int64_t planes = 0;
    int64_t stored = 0;
    int64_t context = 0;
    int64_t index = 0;    // all chunk records of a save
    int64_t live = 0;     // what a save copies from a GPU before it encodes it
    int64_t passage = 0;  // what a load has decoded on its way to a GPU
};

// The value dtype of a program. Settings must be resolved (runtime/engine/session.h).
Dtype program_dtype(const RunConfig& config, Purpose purpose);
// As settings spell it: "fp32", "bf16", "fp16".
const char* value_dtype_name(Dtype dtype);

struct ProgramInputs {
    const KernelTraits& traits;
    DeviceRecord device;
    StagingBytes staging;
};

Program build_program(const RunConfig& config, const ProgramInputs& inputs, Purpose purpose);

// The parameters alone (names, shapes, units), for sizing staging before a program is built.
std::vector<Param> model_parameters(const ModelSpec& model);

}  // namespace plumb
