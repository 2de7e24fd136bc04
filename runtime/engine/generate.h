// Generation through the program's prefill and decode sections and the planned key/value caches:
// each sequence's prompt in chunks, then one token at a time for all sequences together. What a
// sequence becomes depends on its prompt and settings alone, bit for bit: not on how many sequences
// the plan has, nor on what the others are. Allocates nothing.
// Path: hot.
#pragma once

#include "runtime/engine/session.h"

namespace plumb {

// What they mean stands at SampleOperands (runtime/program/op.h).
struct SamplingSettings {
    double temperature = 0;  // 0: greedy
    uint64_t seed = 1;
    int64_t top_k = 0;  // 0: all
    double top_p = 1;   // 1: all
    double repetition_penalty = 1;
};

class Generator {
  public:
    explicit Generator(Session& session) noexcept;

    // Sequences that are generated at once, numbered from 0.
    int64_t batch() const { return batch_; }
    // Positions that the cache holds for each: prompt plus generated tokens.
    int64_t context() const { return context_; }
    // Tokens of a sequence in the cache; -1 when it takes no part.
    int64_t position(int64_t sequence = 0) const noexcept { return next_positions_[sequence]; }

    // Starts a sequence anew: runs the prompt (1 .. context tokens) and returns its first new
    // token. All but the seed is common to the sequences: the last call's holds.
    int32_t start(const int32_t* prompt, int64_t count, const SamplingSettings& sampling,
                  int64_t sequence = 0) noexcept;
    // Feeds back the last token of every sequence that takes part, position() < context() before
    // the call, and returns the next one of sequence 0.
    int32_t next() noexcept;
    // The sequence takes no part in next() until it is started again.
    void stop(int64_t sequence) noexcept;

    // The tokens that a sequence has got since its start(), and how many.
    const int32_t* new_tokens(int64_t sequence) const noexcept;
    int64_t new_count(int64_t sequence) const noexcept { return draws_B2_[2 * sequence + 1]; }
    // Logits_V of the last call: of the sequence just started, or after next() of any.
    const float* logits(int64_t sequence = 0) const noexcept;

  private:
    void send_sampling() noexcept;
    void see(int64_t sequence, int32_t token) noexcept;
    void take(int64_t sequence, int32_t token) noexcept;

    Session& session_;
    const Phase* phase_;
    int64_t batch_;
    int64_t vocabulary_;
    int64_t context_;
    int64_t chunk_;
    // Addresses in the plan's io.
    int32_t* next_positions_;
    int32_t* next_tokens_;
    int32_t* new_tokens_;
    uint8_t* seen_BV_;
    int64_t* draws_B2_;     // the number of the next draw counts the new tokens
    bool started_ = false;  // the last call was start()
};

}  // namespace plumb
