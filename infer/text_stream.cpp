#include "infer/text_stream.h"

#include <algorithm>
#include <charconv>

#include "runtime/base/check.h"
#include "runtime/base/log.h"

namespace plumb {

namespace {

constexpr char kReplacement[] = "\xEF\xBF\xBD";  // U+FFFD

void append(TextPiece& piece, const char* text, int32_t size) {
    CHECK(piece.size + size <= static_cast<int32_t>(sizeof piece.text));
    std::copy_n(text, size, piece.text + piece.size);
    piece.size += size;
}

bool is_shown(uint8_t ascii) {
    if (ascii == '\n' || ascii == '\t' || ascii == '\r') return true;
    return ascii >= 0x20 && ascii != 0x7F;
}

}  // namespace

// The well-formed sequences of the Unicode standard, table 3-7. C2 begins at A0: what would come
// before are the control characters U+0080 to U+009F.
bool TerminalText::begin(uint8_t byte) noexcept {
    next_min_ = 0x80;
    next_max_ = 0xBF;
    if (byte < 0xC2 || byte > 0xF4) return false;
    full_size_ = byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
    if (byte == 0xC2) next_min_ = 0xA0;
    if (byte == 0xE0) next_min_ = 0xA0;
    if (byte == 0xED) next_max_ = 0x9F;  // surrogates
    if (byte == 0xF0) next_min_ = 0x90;
    if (byte == 0xF4) next_max_ = 0x8F;  // above U+10FFFF
    part_[0] = static_cast<char>(byte);
    part_size_ = 1;
    return true;
}

TextPiece TerminalText::put(uint8_t byte) noexcept {
    TextPiece piece;
    if (part_size_ > 0) {
        if (byte >= next_min_ && byte <= next_max_) {
            part_[part_size_++] = static_cast<char>(byte);
            next_min_ = 0x80;
            next_max_ = 0xBF;
            if (part_size_ == full_size_) {
                append(piece, part_, full_size_);
                part_size_ = 0;
            }
            return piece;
        }
        piece = finish();  // and the byte begins anew
    }
    if (byte < 0x80 && is_shown(byte)) {
        const char character = static_cast<char>(byte);
        append(piece, &character, 1);
    } else if (!begin(byte)) {
        append(piece, kReplacement, 3);
    }
    return piece;
}

TextPiece TerminalText::finish() noexcept {
    TextPiece piece;
    if (part_size_ > 0) append(piece, kReplacement, 3);
    part_size_ = 0;
    return piece;
}

bool TokenStream::begin_prompt(int64_t number, int64_t count) noexcept {
    if (format_ == TokenFormat::ids) return true;
    const bool parts_texts = number > 1 && format_ == TokenFormat::terminal;
    several_ = true;
    line_open_ = false;
    return (!parts_texts || write_all(fd_, "\n", 1)) &&
           print_line(fd_, "==> prompt {} of {} <==", number, count);
}

bool TokenStream::put(int32_t token) noexcept {
    if (format_ == TokenFormat::ids) {
        char text[16];
        char* end = text;
        if (line_open_) *end++ = ',';
        end = std::to_chars(end, text + sizeof text, token).ptr;
        line_open_ = true;
        return write_all(fd_, text, end - text);
    }
    const auto byte = static_cast<uint8_t>(token);
    CHECK(byte == token);
    line_open_ = byte != '\n';
    if (format_ == TokenFormat::raw_bytes) {
        const char character = static_cast<char>(byte);
        return write_all(fd_, &character, 1);
    }
    const TextPiece piece = terminal_.put(byte);
    return write_all(fd_, piece.text, piece.size);
}

bool TokenStream::finish() noexcept {
    const bool raw = format_ == TokenFormat::raw_bytes;
    if (raw && !several_) return true;
    const TextPiece piece = terminal_.finish();
    if (!write_all(fd_, piece.text, piece.size)) return false;
    const bool ends_line = raw || line_open_;
    line_open_ = false;
    return !ends_line || write_all(fd_, "\n", 1);
}

}  // namespace plumb
