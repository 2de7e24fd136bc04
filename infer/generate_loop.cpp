#include "infer/generate_loop.h"

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

GenerateSummary generate(Session& session, const GenerateRequest& request,
                         TokenStream& stream) noexcept {
    GenerateSummary summary;
    summary.prompt_tokens = request.prompt_count;
    const auto end = [&](GenerateEnd why) {
        summary.end = why;
        if (why == GenerateEnd::write_failed || !stream.finish()) {
            summary.end = GenerateEnd::write_failed;
            summary.write_errno = errno;
        }
        return summary;
    };
    for (int64_t i = 0; i < request.prompt_count; ++i)
        if (!stream.put(request.prompt[i])) return end(GenerateEnd::write_failed);

    Generator generator(session);
    Clock::time_point start = Clock::now();
    int32_t token = generator.start(request.prompt, request.prompt_count, request.sampling);
    summary.prefill_seconds = seconds_since(start);
    start = Clock::now();
    while (true) {
        ++summary.new_tokens;
        if (token == request.eos_token) return end(GenerateEnd::eos);
        if (!stream.put(token)) return end(GenerateEnd::write_failed);
        if (summary.new_tokens == request.max_new_tokens) return end(GenerateEnd::token_count);
        if (g_stop) return end(GenerateEnd::interrupted);
        if (generator.position() == generator.context()) return end(GenerateEnd::context);
        token = generator.next();
        summary.decode_seconds = seconds_since(start);
    }
}

}  // namespace plumb
