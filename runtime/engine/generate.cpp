#include "runtime/engine/generate.h"

#include <algorithm>

#include "runtime/base/check.h"
#include "runtime/base/random.h"

namespace plumb {

Generator::Generator(Session& session) noexcept
    : session_(session), phase_(session.program().phase(PhaseKind::generate)), context_(0) {
    CHECK_NOTE(phase_ != nullptr, "the program has no generate phase");
    const Program& program = session.program();
    const auto shape = [&](TensorId id) { return program.tensors[static_cast<size_t>(id)].shape; };
    batch_ = shape(program.io.logits).dim[0];
    vocabulary_ = shape(program.io.logits).dim[1];
    chunk_ = shape(program.io.prompt_tokens).dim[1];
    for (const Tensor& tensor : program.tensors)
        if (tensor.role == Role::kv_cache) context_ = tensor.shape.dim[1];
    const Executor& executor = session.executor();
    next_positions_ = executor.data<int32_t>(program.io.next_position);
    next_tokens_ = executor.data<int32_t>(program.io.next_token);
    new_tokens_ = executor.data<int32_t>(program.io.new_tokens);
    seen_BV_ = executor.data<uint8_t>(program.io.seen);
    draws_B2_ = executor.data<int64_t>(program.io.draws);
    std::fill_n(next_positions_, batch_, -1);
    std::fill_n(next_tokens_, batch_,
                0);  // a row that takes no part embeds some token all the same
    std::fill_n(seen_BV_, batch_ * vocabulary_, uint8_t{0});
    std::fill_n(draws_B2_, 2 * batch_, 0);
}

// What a sample reads beside the tokens and positions of its own section.
void Generator::send_sampling() noexcept {
    Executor& executor = session_.executor();
    executor.send(session_.program().io.draws);
    // Read for the penalty alone.
    if (executor.scalars().repetition_penalty != 1) executor.send(session_.program().io.seen);
}

void Generator::see(int64_t sequence, int32_t token) noexcept {
    CHECK(token >= 0 && token < vocabulary_);
    seen_BV_[sequence * vocabulary_ + token] = 1;
}

int32_t Generator::start(const int32_t* prompt, int64_t count, const SamplingSettings& sampling,
                         int64_t sequence) noexcept {
    CHECK(count >= 1 && count <= context_);
    CHECK(sequence >= 0 && sequence < batch_);
    Executor& executor = session_.executor();
    executor.begin_input();
    const IoTensors& io = session_.program().io;
    StepScalars& scalars = executor.scalars();
    scalars.temperature = sampling.temperature;
    scalars.top_k = sampling.top_k;
    scalars.top_p = sampling.top_p;
    scalars.repetition_penalty = sampling.repetition_penalty;
    draws_B2_[2 * sequence] = static_cast<int64_t>(random_key(sampling.seed, "sample"));
    draws_B2_[2 * sequence + 1] = 0;
    std::fill_n(seen_BV_ + sequence * vocabulary_, vocabulary_, uint8_t{0});
    for (int64_t i = 0; i < count; ++i) see(sequence, prompt[i]);
    int32_t* tokens = executor.data<int32_t>(io.prompt_tokens);
    int32_t* positions = executor.data<int32_t>(io.prompt_positions);
    *executor.data<int32_t>(io.prompt_sequence) = static_cast<int32_t>(sequence);
    for (int64_t first = 0; first < count; first += chunk_) {
        executor.begin_input();
        const int64_t valid = count - first < chunk_ ? count - first : chunk_;
        for (int64_t i = 0; i < chunk_; ++i) {
            tokens[i] = i < valid ? prompt[first + i] : 0;
            positions[i] = i < valid ? static_cast<int32_t>(first + i) : -1;
        }
        *executor.data<int32_t>(io.prompt_rows) = static_cast<int32_t>(valid - 1);
        for (const TensorId id : {io.prompt_tokens, io.prompt_positions, io.prompt_rows,
                                  io.prompt_sequence, io.scalars})
            executor.send(id);
        send_sampling();
        executor.run(phase_->entries[0]);
    }
    executor.fetch(io.first_token);
    executor.wait();
    next_positions_[sequence] = static_cast<int32_t>(count);
    take(sequence, *executor.data<int32_t>(io.first_token));
    started_ = true;
    return next_tokens_[sequence];
}

void Generator::take(int64_t sequence, int32_t token) noexcept {
    see(sequence, token);
    next_tokens_[sequence] = token;
    new_tokens_[sequence * context_ + draws_B2_[2 * sequence + 1]++] = token;
}

int32_t Generator::next() noexcept {
    for (int64_t n = 0; n < batch_; ++n) CHECK(position(n) < context_);
    Executor& executor = session_.executor();
    const IoTensors& io = session_.program().io;
    executor.begin_input();
    for (const TensorId id : {io.next_token, io.next_position}) executor.send(id);
    send_sampling();
    executor.run(phase_->entries[1]);
    executor.fetch(io.next_token);
    executor.wait();
    for (int64_t n = 0; n < batch_; ++n) {
        if (next_positions_[n] < 0) continue;
        ++next_positions_[n];
        take(n, next_tokens_[n]);
    }
    started_ = false;
    return next_tokens_[0];
}

void Generator::stop(int64_t sequence) noexcept {
    next_positions_[sequence] = -1;
}

const int32_t* Generator::new_tokens(int64_t sequence) const noexcept {
    return new_tokens_ + sequence * context_;
}

const float* Generator::logits(int64_t sequence) const noexcept {
    Executor& executor = session_.executor();
    executor.fetch(session_.program().io.logits);
    executor.wait();
    const float* logits_BV = executor.data<float>(session_.program().io.logits);
    return logits_BV + (started_ ? 0 : sequence * vocabulary_);
}

}  // namespace plumb
