// Generation of one sequence through the program's prefill and decode sections and the planned
// key/value cache: the prompt in chunks, then one token at a time. Allocates nothing.
// Path: hot.
#pragma once

#include "runtime/engine/session.h"

namespace plumb {

struct SamplingSettings {
    double temperature = 0;  // 0: greedy
    uint64_t seed = 1;
};

class Generator {
  public:
    explicit Generator(Session& session) noexcept;

    // Positions that the cache holds: prompt plus generated tokens.
    int64_t context() const { return context_; }
    int64_t position() const { return position_; }

    // Starts a new sequence: runs the prompt (1 .. context tokens) and returns the first new token.
    int32_t start(const int32_t* prompt, int64_t count, const SamplingSettings& sampling) noexcept;
    // Feeds back the last token and returns the next; position() < context() before the call.
    int32_t next() noexcept;

    // Logits_V of the last call.
    const float* logits() const;

  private:
    void set_counter() noexcept;

    Session& session_;
    const Phase* phase_;
    int64_t context_;
    int64_t chunk_;
    int64_t position_ = 0;  // tokens in the cache
    int64_t produced_ = 0;
};

}  // namespace plumb
