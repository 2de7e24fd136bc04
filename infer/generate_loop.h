// The static loop of plumb-infer: prefills as many prompts as the plan has sequences, decodes them
// together until each has come to one of its ends, and goes on with the next ones (a round). A
// single prompt is written as its text comes; of several, each is written at the end of its round,
// under a line with its number. A finished sequence costs no attention and changes no other one.
// Runs after seal and allocates nothing.
// Path: hot.
#pragma once

#include <span>
#include <vector>

#include "infer/stop_strings.h"
#include "infer/text_stream.h"
#include "runtime/engine/generate.h"

namespace plumb {

struct GenerateRequest {
    std::span<const std::vector<int32_t>> prompts;  // each of 1 .. context ids of the vocabulary
    int64_t max_new_tokens = 0;                     // at least 1, for each prompt
    int32_t eos_token = -1;                         // ends a text and is not written; -1: none
    SamplingSettings sampling;                      // prompt i draws with seed + i
    StopStrings stops;
};

enum class GenerateEnd : uint8_t {
    token_count,  // max_new_tokens are made
    context,      // the cache is full
    eos,          // the model ended the text
    stop_string,  // it is not written
    interrupted,  // request_stop()
};

// Of one prompt.
struct TextSummary {
    GenerateEnd end = GenerateEnd::interrupted;
    int64_t new_tokens = 0;  // what ended the text included
};

struct GenerateSummary {
    int32_t write_errno = 0;     // 0: all is written
    int64_t prompt_tokens = 0;   // of prompts that were run
    int64_t new_tokens = 0;      // of all prompts
    double prefill_seconds = 0;  // up to the first new token of each prompt
    int64_t decoded_tokens = 0;  // new tokens but the first of each prompt
    double decode_seconds = 0;
};

class GenerateLoop {
  public:
    // `request`, its prompts and `stream` outlive the loop.
    GenerateLoop(Session& session, const GenerateRequest& request, TokenStream& stream);

    GenerateSummary run() noexcept;
    // After run(), one of each prompt.
    const std::vector<TextSummary>& texts() const { return texts_; }

  private:
    struct Row {
        int64_t free_count = 0;  // tokens that may be written
        int64_t written = 0;
        bool ended = true;
    };
    bool run_round(int64_t first_prompt, int64_t count) noexcept;
    void start_row(int64_t prompt, int64_t row) noexcept;
    void look_at_row(int64_t prompt, int64_t row) noexcept;
    void end_row(int64_t prompt, int64_t row, GenerateEnd end) noexcept;
    bool write_prompt(int64_t prompt) noexcept;
    bool write_row(int64_t row) noexcept;

    const GenerateRequest& request_;
    TokenStream& stream_;
    Generator generator_;
    bool streams_;  // there is one prompt
    std::vector<Row> rows_;
    std::vector<TextSummary> texts_;
    GenerateSummary summary_;
};

// Ends the loop before its next token; may be called from a signal handler.
void request_stop() noexcept;

}  // namespace plumb
