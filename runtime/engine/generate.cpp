#include "runtime/engine/generate.h"

#include "runtime/base/check.h"
#include "runtime/base/random.h"

namespace plumb {

Generator::Generator(Session& session) noexcept
    : session_(session), phase_(session.program().phase(PhaseKind::generate)) {
    CHECK_NOTE(phase_ != nullptr, "the program has no generate phase");
    const Program& program = session.program();
    chunk_ = program.tensors[static_cast<size_t>(program.io.prompt_tokens)].shape.dim[1];
    context_ = 0;
    for (const Tensor& tensor : program.tensors)
        if (tensor.role == Role::kv_cache) context_ = tensor.shape.dim[1];
}

void Generator::set_counter() noexcept {
    session_.executor().scalars().sample_counter = static_cast<uint64_t>(produced_++);
}

int32_t Generator::start(const int32_t* prompt, int64_t count,
                         const SamplingSettings& sampling) noexcept {
    CHECK(count >= 1 && count <= context_);
    Executor& executor = session_.executor();
    const IoTensors& io = session_.program().io;
    executor.scalars().temperature = sampling.temperature;
    executor.scalars().sample_key = random_key(sampling.seed, "sample");
    int32_t* tokens = executor.data<int32_t>(io.prompt_tokens);
    int32_t* positions = executor.data<int32_t>(io.prompt_positions);
    produced_ = 0;
    set_counter();
    for (int64_t first = 0; first < count; first += chunk_) {
        const int64_t valid = count - first < chunk_ ? count - first : chunk_;
        for (int64_t i = 0; i < chunk_; ++i) {
            tokens[i] = i < valid ? prompt[first + i] : 0;
            positions[i] = i < valid ? static_cast<int32_t>(first + i) : -1;
        }
        *executor.data<int32_t>(io.prompt_rows) = static_cast<int32_t>(valid - 1);
        executor.run(phase_->entries[0]);
    }
    position_ = count;
    return *executor.data<int32_t>(io.next_token);
}

int32_t Generator::next() noexcept {
    CHECK(position_ < context_);
    Executor& executor = session_.executor();
    const IoTensors& io = session_.program().io;
    *executor.data<int32_t>(io.next_position) = static_cast<int32_t>(position_);
    set_counter();
    executor.run(phase_->entries[1]);
    ++position_;
    return *executor.data<int32_t>(io.next_token);
}

const float* Generator::logits() const {
    return session_.executor().data<float>(session_.program().io.logits);
}

}  // namespace plumb
