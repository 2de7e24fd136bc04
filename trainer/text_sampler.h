// A sample of text at each evaluation, for models of bytes: the first tokens of the validation file
// and what the model writes after them, the same prompt and seed every time, so that samples can be
// compared. Runs between steps in the planned key/value cache; allocates nothing after
// construction.
// Path: hot.
#pragma once

#include <string_view>
#include <vector>

#include "formats/tokens.h"
#include "runtime/engine/generate.h"

namespace plumb {

// Writes `bytes` as text for one line of a terminal: well-formed UTF-8 stays, control characters
// and broken sequences become \n, \t or \xNN. Returns the characters written, at most 4 * count.
int64_t escape_text(const unsigned char* bytes, int64_t count, char* text) noexcept;

struct TextSample {
    std::string_view prompt;
    std::string_view text;
};

class TextSampler {
  public:
    // Whether these tokens are bytes that this model can write.
    static bool possible(const RunConfig& config, const TokenFile& tokens);

    TextSampler(Session& session, const TokenFile& tokens);
    // Valid until the next call.
    TextSample sample() noexcept;

  private:
    Generator generator_;
    std::vector<int32_t> prompt_;
    int64_t token_count_;
    std::vector<unsigned char> bytes_;
    std::vector<char> prompt_text_;
    std::vector<char> text_;
};

}  // namespace plumb
