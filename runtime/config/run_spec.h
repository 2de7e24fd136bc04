// One run: the tables [batch], [train], [data], [checkpoint], [generate] and [run] of a run file.
// The initial values here are the defaults that --help prints; ranges, units and help stand in
// settings.cpp. After load_run nothing here means "automatic" any more, except run.threads and
// run.memory and dtypes, which only the machine can answer.
// Path: cold.
#pragma once

#include <string>

#include "runtime/base/types.h"

namespace plumb {

enum class LrSchedule : int32_t { cosine, linear, constant, wsd };
// The dtype of weights and activations. bf16 and fp16 are mixed precision: sums, statistics,
// gradients of weights, moments and masters stay fp32. automatic: what suits the device; it is
// resolved where the device is known (runtime/engine/session.h), before anything is planned.
enum class ComputeDtype : int32_t { automatic, fp32, bf16, fp16 };

struct BatchSpec {
    int64_t sequence_length = 0;  // tokens; as read, 0: max_position_embeddings
    int64_t micro_batch = 4;      // sequences
    int64_t global_batch = 32;    // sequences; a multiple of micro_batch

    bool operator==(const BatchSpec&) const = default;
    int64_t micro_batch_count() const { return global_batch / micro_batch; }
    int64_t micro_batch_tokens() const { return micro_batch * sequence_length; }
    int64_t step_tokens() const { return global_batch * sequence_length; }
};

struct TrainSpec {
    int64_t steps = 200;
    int64_t stop_at = 0;  // save and end early at this step; 0: never
    int64_t seed = 1;
    ComputeDtype dtype = ComputeDtype::automatic;
    double loss_scale = 65536;         // fp16: at the start; a power of two
    int64_t loss_scale_window = 2000;  // fp16: finite steps after which it doubles
    double lr = 6e-4;
    double min_lr = 6e-5;
    int64_t warmup_steps = -1;  // as read, -1: 20, or steps if that is less
    LrSchedule lr_schedule = LrSchedule::cosine;
    int64_t decay_steps = 0;  // wsd: last steps, in which lr falls; as read, 0: a tenth of steps
    double beta1 = 0.9;
    double beta2 = 0.95;
    double eps = 1e-8;
    double weight_decay = 0.1;
    double clip = 1.0;            // largest global gradient norm; 0: no clipping
    int64_t eval_every = 50;      // steps; 0: never
    int64_t eval_batches = 8;     // micro-batches per evaluation
    int64_t log_every = 1;        // steps per line on the console; log.jsonl has every step
    bool tensorboard = false;     // event files beside log.jsonl
    int64_t sample_tokens = 128;  // sampled at each evaluation of byte tokens; 0: none
    int64_t loss_chunk = 0;       // tokens; as read, 0: automatic_loss_chunk()

    bool operator==(const TrainSpec&) const = default;
};

struct DataSpec {
    std::string train;  // paths, relative to the current directory; empty: not given
    std::string valid;

    bool operator==(const DataSpec&) const = default;
};

struct CheckpointSpec {
    std::string dir = "run";
    int64_t every = 50;           // steps; 0: never save, not even at the end
    int64_t keep = 2;             // newest checkpoints
    int64_t keep_every = 0;       // steps; multiples of it stay too; 0: none
    std::string resume = "auto";  // "auto": the newest in dir, if any; "never"; or a folder
    int64_t chunk_bytes = int64_t{1} << 20;

    bool operator==(const CheckpointSpec&) const = default;
};

struct GenerateSpec {
    int64_t context = 0;        // tokens the cache holds; as read, 0: max_position_embeddings
    int64_t prefill_chunk = 0;  // tokens of the prompt per pass; as read, 0: 64 or the context
    int64_t batch = 1;          // sequences that are generated at once
    ComputeDtype dtype = ComputeDtype::automatic;  // automatic: train.dtype

    bool operator==(const GenerateSpec&) const = default;
};

// The table [run]: the machine.
struct MachineSpec {
    std::string device = "cpu";  // "cpu": this machine; or a named record, for planning
    int64_t threads = 0;         // 0: all cores
    int64_t memory = 0;          // bytes the run may use; 0: not limited
    bool graph = true;           // on a GPU, a step runs as one CUDA graph
    bool tf32 = false;           // a GPU's products of fp32 round their factors

    bool operator==(const MachineSpec&) const = default;
};

struct RunSpec {
    BatchSpec batch;
    TrainSpec train;
    DataSpec data;
    CheckpointSpec checkpoint;
    GenerateSpec generate;
    MachineSpec run;

    bool operator==(const RunSpec&) const = default;
};

// Tokens whose logits exist at once when train.loss_chunk is 0: the largest multiple of 16 whose
// fp32 logits take at most 32 MiB, at least 16, at most a micro-batch. On a GPU the largest power
// of two whose logits take at most 512 MiB: products of fewer rows would leave most of it idle, and
// each chunk passes over the head's gradient once. A function of shapes and the kind of device.
int64_t automatic_loss_chunk(int64_t vocab_size, int64_t micro_batch_tokens, bool on_gpu);

}  // namespace plumb
