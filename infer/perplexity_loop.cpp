#include "infer/perplexity_loop.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numbers>

#include "runtime/base/check.h"
#include "runtime/base/log.h"

namespace plumb {

namespace {

using Clock = std::chrono::steady_clock;

// Where a window lies in the tokens, and its part of the io row.
struct Window {
    int64_t first = 0;    // input
    int64_t counted = 0;  // place of its first prediction that counts
    int64_t valid = 0;    // inputs that have a token after them; the rest is padding
};

Window window_at(int64_t index, int64_t token_count, int64_t window, int64_t stride) {
    const int64_t first = index * stride;
    const int64_t valid = std::clamp<int64_t>(token_count - 1 - first, 0, window);
    return {first, index == 0 ? 0 : window - stride, valid};
}

// Writes a window to its places in the io row; returns how many of its predictions count.
int64_t fill_window(Session& session, const TokenFile& tokens, const Window& w, int64_t row) {
    const Executor& executor = session.executor();
    const IoTensors& io = session.program().io;
    const int64_t length = session.config().run.batch.sequence_length;
    int32_t* inputs = executor.data<int32_t>(io.tokens) + row * length;
    int32_t* targets = executor.data<int32_t>(io.targets) + row * length;
    float* weights = executor.data<float>(io.loss_weights) + row * length;
    int32_t* positions = executor.data<int32_t>(io.positions) + row * length;
    std::fill_n(executor.data<int32_t>(io.segment_start) + row * length, length, 0);
    if (w.valid > 0) {
        tokens.read(w.first, w.valid, inputs);
        tokens.read(w.first + 1, w.valid, targets);
    }
    std::fill_n(inputs + w.valid, length - w.valid, 0);
    std::fill_n(targets + w.valid, length - w.valid, 0);
    for (int64_t t = 0; t < length; ++t) {
        positions[t] = static_cast<int32_t>(t);
        weights[t] = t >= w.counted && t < w.valid ? 1.0F : 0.0F;
    }
    return std::max<int64_t>(0, w.valid - w.counted);
}

void print_progress(const Score& score, int64_t total) {
    const auto done = static_cast<double>(score.predicted_tokens);
    const double rate = done / std::max(score.seconds, 1e-9);
    print_line(STDERR_FILENO,
               "{:5.1f}% of {} tokens, loss {:.4f} so far, {:.0f} tok/s, {:.0f} s to go",
               100 * done / static_cast<double>(total), total, score.loss(), rate,
               (static_cast<double>(total) - done) / rate);
}

}  // namespace

int64_t window_count(int64_t token_count, int64_t window, int64_t stride) noexcept {
    const int64_t beyond = std::max<int64_t>(0, token_count - 1 - window);
    return 1 + (beyond + stride - 1) / stride;
}

double Score::loss() const {
    return loss_sum / static_cast<double>(std::max<int64_t>(predicted_tokens, 1));
}

double Score::perplexity() const {
    return std::exp(loss());
}

double Score::bits_per_token() const {
    return loss() / std::numbers::ln2;
}

Score score_tokens(Session& session, const TokenFile& tokens, int64_t stride,
                   double progress_seconds) noexcept {
    const BatchSpec& batch = session.config().run.batch;
    const int64_t length = batch.sequence_length;
    CHECK(tokens.count() >= 2 && stride >= 1 && stride <= length);
    const Phase* phase = session.program().phase(PhaseKind::evaluate);
    CHECK_NOTE(phase != nullptr, "the program has no evaluate phase");
    Executor& executor = session.executor();
    const TensorId loss = session.program().io.loss;
    executor.begin_input();
    executor.clear(loss);
    Score score;
    const int64_t windows = window_count(tokens.count(), length, stride);
    const Clock::time_point start = Clock::now();
    double next_report = progress_seconds;
    for (int64_t first = 0; first < windows; first += batch.micro_batch) {
        executor.begin_input();
        for (int64_t row = 0; row < batch.micro_batch; ++row) {
            const Window w = window_at(first + row, tokens.count(), length, stride);
            score.predicted_tokens += fill_window(session, tokens, w, row);
        }
        executor.send_rows(0, 1);
        executor.run(phase->entries[0]);
        const bool last = first + batch.micro_batch >= windows;
        score.seconds = std::chrono::duration<double>(Clock::now() - start).count();
        if (score.seconds < next_report && !last) continue;
        executor.fetch(loss);
        executor.wait();
        score.loss_sum = *executor.data<double>(loss);
        score.seconds = std::chrono::duration<double>(Clock::now() - start).count();
        if (last) break;
        print_progress(score, tokens.count() - 1);
        next_report = score.seconds + progress_seconds;
    }
    return score;
}

}  // namespace plumb
