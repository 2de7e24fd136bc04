// The static loop of plumb-infer: writes the prompt, runs it, then makes and writes one token after
// the other until one of four ends. Runs after seal and allocates nothing.
// Path: hot.
#pragma once

#include "infer/text_stream.h"
#include "runtime/engine/generate.h"

namespace plumb {

struct GenerateRequest {
    const int32_t* prompt = nullptr;  // ids below the vocabulary
    int64_t prompt_count = 0;         // 1 .. context
    int64_t max_new_tokens = 0;       // at least 1
    int32_t eos_token = -1;           // ends the text and is not written; -1: none
    SamplingSettings sampling;
};

enum class GenerateEnd : uint8_t {
    token_count,   // max_new_tokens are made
    context,       // the cache is full
    eos,           // the model ended the text
    interrupted,   // request_stop()
    write_failed,  // errno of the failed write in GenerateSummary
};

struct GenerateSummary {
    GenerateEnd end = GenerateEnd::token_count;
    int32_t write_errno = 0;
    int64_t prompt_tokens = 0;
    int64_t new_tokens = 0;      // an eos included
    double prefill_seconds = 0;  // up to the first new token
    double decode_seconds = 0;   // for the other new_tokens - 1
};

GenerateSummary generate(Session& session, const GenerateRequest& request,
                         TokenStream& stream) noexcept;

// Ends the loop before its next token; may be called from a signal handler.
void request_stop() noexcept;

}  // namespace plumb
