// A session of a golden model (tests/golden) with the golden weights, and its training steps.
// Path: cold.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "runtime/config/hf_config.h"
#include "runtime/engine/session.h"
#include "runtime/engine/state_records.h"
#include "tests/golden/golden_file.h"
#include "tests/golden/golden_model.h"

namespace plumb {

struct GoldenRun {
    int32_t threads = 1;
    Recompute recompute;
    Reduction reduction = Reduction::fast;
    int64_t loss_chunk = 7;     // not a divisor of a micro-batch's 32 tokens
    int64_t micro_batches = 0;  // 0: as in the golden file
    ComputeDtype dtype = ComputeDtype::fp32;
    const char* device = "cpu";
};

inline RunConfig golden_config(const Golden& golden, const GoldenRun& run) {
    RunConfig config;
    config.model = parse_hf_config(golden.config, "golden");
    config.layout.recompute = run.recompute;
    config.layout.reduction = run.reduction;
    BatchSpec& batch = config.run.batch;
    batch.sequence_length = golden.training.sequence_length;
    batch.micro_batch = golden.training.sequences;
    batch.global_batch =
        batch.micro_batch *
        (run.micro_batches > 0 ? run.micro_batches : golden.training.micro_batches);
    config.run.train.loss_chunk = run.loss_chunk;
    config.run.train.dtype = run.dtype;
    config.run.run.threads = run.threads;
    config.run.run.device = run.device;
    complete_run(config, "golden");
    return config;
}

inline void put_golden(Session& session, const Param& param, const std::vector<float>& w) {
    const auto bytes = [&](TensorId id) {
        return id == kNoTensor ? int64_t{0}
                               : session.program().tensors[static_cast<size_t>(id)].size_bytes;
    };
    std::vector<char> weight(static_cast<size_t>(bytes(param.weight)));
    std::vector<char> master(static_cast<size_t>(bytes(param.master)));
    const Dtype dtype = session.program().tensors[static_cast<size_t>(param.weight)].dtype;
    put_weights({dtype, weight.data(), master.empty() ? nullptr : master.data()}, 0,
                param.elements(), "param", Dtype::f32, w.data());
    session.executor().write(param.weight, 0, weight.data(), bytes(param.weight));
    if (!master.empty())
        session.executor().write(param.master, 0, master.data(), bytes(param.master));
}

inline void set_golden_weights(Session& session) {
    if (session.program().phase(PhaseKind::initialise) != nullptr)
        session.run_phase(PhaseKind::initialise);
    for (const Param& param : session.program().params) {
        std::vector<float> w(static_cast<size_t>(param.elements()));
        for (size_t i = 0; i < w.size(); ++i)
            w[i] = golden_value(param.name, static_cast<int64_t>(i));
        put_golden(session, param, w);
    }
}

// Fills the io rows of a step as scripts/make_goldens.py defines it.
inline void fill_golden_step(Session& session, const Golden& golden, int64_t step) {
    Executor& executor = session.executor();
    executor.begin_input();
    const IoTensors& io = session.program().io;
    const int64_t length = golden.training.sequence_length;
    const int64_t sequences = golden.training.sequences;
    for (int32_t m = 0; m < session.program().micro_batch_count; ++m) {
        for (int64_t s = 0; s < sequences; ++s) {
            for (int64_t t = 0; t < length; ++t) {
                const int64_t index = (m * sequences + s) * (length + 1) + t;
                const int64_t at = s * length + t;
                executor.data<int32_t>(io.tokens, m)[at] =
                    golden_token(step, index, golden.vocab_size);
                executor.data<int32_t>(io.targets, m)[at] =
                    golden_token(step, index + 1, golden.vocab_size);
                executor.data<float>(io.loss_weights, m)[at] = 1.0f;
                executor.data<int32_t>(io.positions, m)[at] = static_cast<int32_t>(t);
                executor.data<int32_t>(io.segment_start, m)[at] = 0;
            }
        }
    }
    executor.send_rows(0, session.program().micro_batch_count);
}

inline void set_golden_scalars(Session& session, const Golden& golden, int64_t step) {
    const GoldenTraining& t = golden.training;
    StepScalars& scalars = session.executor().scalars();
    scalars.lr = t.lr_per_step[static_cast<size_t>(step)];
    scalars.beta1 = t.beta1;
    scalars.beta2 = t.beta2;
    scalars.eps = t.eps;
    scalars.weight_decay = t.weight_decay;
    scalars.clip = t.clip;
    scalars.bias_correction1 = 1 - std::pow(t.beta1, static_cast<double>(step + 1));
    scalars.bias_correction2 = 1 - std::pow(t.beta2, static_cast<double>(step + 1));
    scalars.bias_correction1_skipped = scalars.bias_correction1;
    scalars.bias_correction2_skipped = scalars.bias_correction2;
    scalars.inverse_weight_sum =
        1.0 / static_cast<double>(session.config().run.batch.step_tokens());
    scalars.loss_scale_window = static_cast<double>(session.config().run.train.loss_scale_window);
    session.executor().send(session.program().io.scalars);
    session.executor().clear(session.program().io.loss);
}

struct StepResult {
    double loss;
    double grad_norm;
};

inline StepResult run_golden_step(Session& session, const Golden& golden, int64_t step) {
    fill_golden_step(session, golden, step);
    set_golden_scalars(session, golden, step);
    Executor& executor = session.executor();
    executor.run(session.program().phase(PhaseKind::step)->entries);
    const IoTensors& io = session.program().io;
    executor.fetch(io.loss);
    executor.fetch(io.clip);
    executor.wait();
    return {*executor.data<double>(io.loss) * executor.scalars().inverse_weight_sum,
            executor.data<double>(io.clip)[1]};
}

}  // namespace plumb
