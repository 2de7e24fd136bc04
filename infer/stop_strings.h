// Texts that end a generation. Each new text is compared as it grows, over any boundaries of
// tokens: what could still become the beginning of a stop string is held back, so that nothing of a
// stop string is ever written, and the text ends where the first stop string to be complete begins.
// The prompt takes no part. Text is bytes, each a token (infer/prompt.h). Allocates nothing after
// construction.
// Path: hot.
#pragma once

#include <string>
#include <vector>

#include "runtime/base/types.h"

namespace plumb {

class StopStrings {
  public:
    StopStrings() = default;
    // Throws Error (bad_input) when one is empty.
    explicit StopStrings(std::vector<std::string> texts);

    struct Found {
        int64_t free_count = 0;  // tokens that may be written
        bool stopped = false;    // and no more will come
    };
    // Of `count` tokens, the first `free_count` of which an earlier call has freed; called after
    // every new token.
    Found look(const int32_t* tokens, int64_t count, int64_t free_count) const noexcept;

  private:
    std::vector<std::string> texts_;
};

}  // namespace plumb
