#include "infer/generate_loop.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>

namespace plumb {

namespace {

using Clock = std::chrono::steady_clock;

std::atomic<bool> g_stop{false};
static_assert(std::atomic<bool>::is_always_lock_free);

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

void request_stop() noexcept {
    g_stop = true;
}

GenerateLoop::GenerateLoop(Session& session, const GenerateRequest& request, TokenStream& stream)
    : request_(request),
      stream_(stream),
      generator_(session),
      streams_(request.prompts.size() == 1),
      rows_(static_cast<size_t>(generator_.batch())),
      texts_(request.prompts.size()) {}

GenerateSummary GenerateLoop::run() noexcept {
    const auto count = static_cast<int64_t>(request_.prompts.size());
    for (int64_t first = 0; first < count && !g_stop; first += generator_.batch())
        if (!run_round(first, std::min(generator_.batch(), count - first))) {
            summary_.write_errno = errno;
            break;
        }
    for (const TextSummary& text : texts_) summary_.new_tokens += text.new_tokens;
    return summary_;
}

// False when writing failed.
bool GenerateLoop::run_round(int64_t first_prompt, int64_t count) noexcept {
    if (streams_ && !write_prompt(first_prompt)) return false;
    Clock::time_point start = Clock::now();
    for (int64_t row = 0; row < count; ++row) start_row(first_prompt + row, row);
    summary_.prefill_seconds += seconds_since(start);
    if (streams_ && !write_row(0)) return false;
    start = Clock::now();
    const auto live = [](const Row& row) { return !row.ended; };
    while (const auto rows = std::count_if(rows_.begin(), rows_.end(), live)) {
        if (g_stop) {
            for (int64_t row = 0; row < count; ++row)
                if (!rows_[static_cast<size_t>(row)].ended)
                    end_row(first_prompt + row, row, GenerateEnd::interrupted);
        } else {
            generator_.next();
            summary_.decoded_tokens += rows;
            for (int64_t row = 0; row < count; ++row)
                if (!rows_[static_cast<size_t>(row)].ended) look_at_row(first_prompt + row, row);
            summary_.decode_seconds += seconds_since(start);
        }
        if (streams_ && !write_row(0)) return false;
        start = Clock::now();
    }
    if (streams_) return stream_.finish();
    for (int64_t row = 0; row < count; ++row)
        if (!write_prompt(first_prompt + row) || !write_row(row) || !stream_.finish()) return false;
    return true;
}

void GenerateLoop::start_row(int64_t prompt, int64_t row) noexcept {
    const std::vector<int32_t>& tokens = request_.prompts[static_cast<size_t>(prompt)];
    const auto count = static_cast<int64_t>(tokens.size());
    SamplingSettings sampling = request_.sampling;
    sampling.seed += static_cast<uint64_t>(prompt);
    rows_[static_cast<size_t>(row)] = {0, 0, false};
    generator_.start(tokens.data(), count, sampling, row);
    summary_.prompt_tokens += count;
    look_at_row(prompt, row);
}

// After a new token: frees what may be written, ends the row where it has come to an end.
void GenerateLoop::look_at_row(int64_t prompt, int64_t row) noexcept {
    Row& state = rows_[static_cast<size_t>(row)];
    const int32_t* tokens = generator_.new_tokens(row);
    const int64_t count = generator_.new_count(row);
    if (tokens[count - 1] == request_.eos_token) return end_row(prompt, row, GenerateEnd::eos);
    const StopStrings::Found found = request_.stops.look(tokens, count, state.free_count);
    state.free_count = found.free_count;
    if (found.stopped) return end_row(prompt, row, GenerateEnd::stop_string);
    if (count == request_.max_new_tokens) return end_row(prompt, row, GenerateEnd::token_count);
    if (generator_.position(row) == generator_.context())
        end_row(prompt, row, GenerateEnd::context);
}

void GenerateLoop::end_row(int64_t prompt, int64_t row, GenerateEnd end) noexcept {
    Row& state = rows_[static_cast<size_t>(row)];
    const int64_t count = generator_.new_count(row);
    state.ended = true;
    if (end != GenerateEnd::stop_string)
        state.free_count = end == GenerateEnd::eos ? count - 1 : count;
    texts_[static_cast<size_t>(prompt)] = {end, count};
    generator_.stop(row);
}

bool GenerateLoop::write_prompt(int64_t prompt) noexcept {
    const auto count = static_cast<int64_t>(request_.prompts.size());
    if (count > 1 && !stream_.begin_prompt(prompt + 1, count)) return false;
    const std::vector<int32_t>& tokens = request_.prompts[static_cast<size_t>(prompt)];
    return std::all_of(tokens.begin(), tokens.end(),
                       [&](int32_t token) { return stream_.put(token); });
}

bool GenerateLoop::write_row(int64_t row) noexcept {
    Row& state = rows_[static_cast<size_t>(row)];
    for (; state.written < state.free_count; ++state.written)
        if (!stream_.put(generator_.new_tokens(row)[state.written])) return false;
    return true;
}

}  // namespace plumb
