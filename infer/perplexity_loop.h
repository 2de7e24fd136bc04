// How well a model predicts given tokens: the loop of `plumb-infer perplexity`. Every token but the
// first is predicted once. The tokens are cut into windows of T = batch.sequence_length inputs, one
// every `stride` tokens: with stride T they lie end to end, as in the trainer's evaluation; with a
// smaller stride each overlaps the one before, and only its last `stride` predictions count, so
// that each has at least T - stride tokens before it. Runs after seal and allocates nothing.
// Path: hot.
#pragma once

#include "formats/tokens.h"
#include "runtime/engine/session.h"

namespace plumb {

// Windows that `token_count` tokens (at least 2) are cut into.
int64_t window_count(int64_t token_count, int64_t window, int64_t stride) noexcept;

struct Score {
    int64_t predicted_tokens = 0;
    double loss_sum = 0;  // nats
    double seconds = 0;

    double loss() const;  // nats per token
    double perplexity() const;
    double bits_per_token() const;
};

// `stride` from 1 to the window. At most every `progress_seconds` a line with what is done goes to
// standard error. The session's program is Purpose::score; ids are below its vocabulary.
Score score_tokens(Session& session, const TokenFile& tokens, int64_t stride,
                   double progress_seconds) noexcept;

}  // namespace plumb
