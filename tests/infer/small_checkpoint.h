// Tiny models with initial weights, and checkpoints of them as plumb-train would save them.
// Path: cold.
#pragma once

#include <string>

#include "runtime/engine/state_io.h"

namespace plumb {

// One block of hidden size 16. gpt2 has a learned position per token of context.
inline RunConfig small_config(ModelType type, int64_t vocab_size, int64_t context,
                              const std::string& folder = "unused") {
    RunConfig config;
    ModelSpec& model = config.model;
    model = model_defaults(type);
    model.vocab_size = vocab_size;
    model.hidden_size = 16;
    model.num_hidden_layers = 1;
    model.num_attention_heads = 2;
    model.intermediate_size = 24;
    model.max_position_embeddings = context;
    model.initializer_range = 0.3;  // so that the likeliest token varies
    model.bos_token_id = -1;
    model.eos_token_id = -1;
    config.run.batch.sequence_length = 8;
    config.run.batch.micro_batch = 1;
    config.run.batch.global_batch = 1;
    config.run.train.loss_chunk = 8;
    config.run.train.sample_tokens = 0;
    config.run.train.dtype = ComputeDtype::fp32;  // on every machine
    config.run.checkpoint.dir = folder;
    config.run.run.threads = 1;
    complete_run(config, "small");
    return config;
}

// Saves the initial weights as the state after `step` steps; the step folder.
inline std::string save_checkpoint(const RunConfig& config, int64_t step) {
    Session session(config, Purpose::train);
    session.run_phase(PhaseKind::initialise);
    StateIo state(session);
    state.prepare_folder();
    RunRecord record;
    record.step = step;
    SaveReport report;
    throw_if_failed(state.save(record, &report));
    return report.directory.text;
}

}  // namespace plumb
