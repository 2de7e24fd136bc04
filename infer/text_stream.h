// Writes generated tokens to a file descriptor as they come. Byte tokens are text: a pipe gets the
// bytes unchanged; a terminal gets whole UTF-8 characters only, U+FFFD in place of what is not
// UTF-8 (one per maximal invalid part, as the Unicode standard recommends) and of control
// characters, so that no model can break a terminal. Other tokens are written as ids, separated by
// commas, the form in which --prompt-tokens reads them. Allocates nothing.
// Path: hot.
#pragma once

#include "runtime/base/types.h"

namespace plumb {

// What one byte completed: at most U+FFFD for an unfinished character and one character more.
struct TextPiece {
    char text[8];
    int32_t size = 0;
};

// Cuts bytes into characters that are safe to show.
class TerminalText {
  public:
    TextPiece put(uint8_t byte) noexcept;
    // At the end of the text: U+FFFD when a character is unfinished.
    TextPiece finish() noexcept;

  private:
    bool begin(uint8_t byte) noexcept;

    char part_[4] = {};      // of an unfinished character
    int32_t part_size_ = 0;  // bytes there are
    int32_t full_size_ = 0;  // bytes there will be
    uint8_t next_min_ = 0;   // range of the next byte
    uint8_t next_max_ = 0;
};

enum class TokenFormat : uint8_t { raw_bytes, terminal, ids };

class TokenStream {
  public:
    TokenStream(int fd, TokenFormat format) noexcept : fd_(fd), format_(format) {}

    // The line above one of several prompts and its text, as tail writes it above files; on a
    // terminal an empty line parts it from the text before. Ids have none: each prompt with its
    // text is a line.
    bool begin_prompt(int64_t number, int64_t count) noexcept;
    // Writes what the token completes, unbuffered. False when writing failed; errno says why.
    bool put(int32_t token) noexcept;
    // Completes the text and ends the line where it has no end. Raw bytes of a single text stay as
    // they are; each of several gets a newline more.
    bool finish() noexcept;
    // Whether what was written last, finish() included, leaves a line without its end.
    bool line_open() const { return line_open_; }

  private:
    int fd_;
    TokenFormat format_;
    bool line_open_ = false;
    bool several_ = false;  // texts
    TerminalText terminal_;
};

}  // namespace plumb
