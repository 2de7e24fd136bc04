// What of a byte stream reaches a terminal, a pipe and a list of ids.
#include "infer/text_stream.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <string>
#include <string_view>
#include <vector>

namespace plumb {
namespace {

constexpr std::string_view kBad = "\xEF\xBF\xBD";

std::string text_of(const TextPiece& piece) {
    return std::string(piece.text, static_cast<size_t>(piece.size));
}

std::string shown(std::string_view bytes) {
    TerminalText terminal;
    std::string text;
    for (const char c : bytes) text += text_of(terminal.put(static_cast<uint8_t>(c)));
    return text + text_of(terminal.finish());
}

std::string bad(int count) {
    std::string text;
    for (int i = 0; i < count; ++i) text += kBad;
    return text;
}

TEST(TerminalText, WholeCharactersPassUnchanged) {
    for (const std::string_view text :
         {"plain\ttext\r\n", "h\xC3\xA9", "\xC2\xA0", "\xDF\xBF", "\xE0\xA0\x80", "\xE2\x82\xAC",
          "\xED\x9F\xBF", "\xEE\x80\x80", "\xEF\xBF\xBF", "\xF0\x90\x80\x80", "\xF0\x9F\x98\x80",
          "\xF4\x8F\xBF\xBF"})
        EXPECT_EQ(shown(text), text);
}

TEST(TerminalText, ACharacterAppearsWithItsLastByte) {
    TerminalText terminal;
    EXPECT_EQ(text_of(terminal.put(0xE2)), "");
    EXPECT_EQ(text_of(terminal.put(0x82)), "");
    EXPECT_EQ(text_of(terminal.put(0xAC)), "\xE2\x82\xAC");
    EXPECT_EQ(text_of(terminal.put('a')), "a");
    EXPECT_EQ(text_of(terminal.finish()), "");
}

TEST(TerminalText, BrokenPartsAreReplaced) {
    EXPECT_EQ(shown("a\x80z"), "a" + bad(1) + "z");         // lone continuation
    EXPECT_EQ(shown("\xE2\x82z"), bad(1) + "z");            // cut short
    EXPECT_EQ(shown("\xE2\x82"), bad(1));                   // by the end
    EXPECT_EQ(shown("\xE2\xC3\xA9"), bad(1) + "\xC3\xA9");  // by a good one
    EXPECT_EQ(shown("\xF0\x9F\x98\xF0\x9F"), bad(2));       // by another broken one
    EXPECT_EQ(shown("\xC0\xAF\xC1\xBF"), bad(4));           // overlong, two bytes
    EXPECT_EQ(shown("\xE0\x9F\xBF"), bad(3));               // overlong, three
    EXPECT_EQ(shown("\xF0\x8F\xBF\xBF"), bad(4));           // overlong, four
    EXPECT_EQ(shown("\xED\xA0\x80"), bad(3));               // surrogate
    EXPECT_EQ(shown("\xF4\x90\x80\x80"), bad(4));           // above U+10FFFF
    EXPECT_EQ(shown("\xF5\xFF\xFE"), bad(3));               // never in UTF-8
}

// The example of the Unicode standard, section 3.9 (table 3-11).
TEST(TerminalText, OneReplacementPerMaximalPart) {
    EXPECT_EQ(shown("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41"), bad(4) + "A");
}

TEST(TerminalText, ControlCharactersAreReplaced) {
    EXPECT_EQ(shown("a\x1B[2Jb"), "a" + bad(1) + "[2Jb");
    EXPECT_EQ(shown(std::string_view("\0\a\x7F", 3)), bad(3));
    EXPECT_EQ(shown("\xC2\x9B"), bad(2));  // CSI as U+009B
}

TEST(TerminalText, AnyBytesGiveValidText) {
    for (int first = 0; first < 256; ++first) {
        for (int second = 0; second < 256; ++second) {
            const char bytes[] = {static_cast<char>(first), static_cast<char>(second), 'x'};
            const std::string text = shown(std::string_view(bytes, 3));
            EXPECT_EQ(shown(text), text) << first << " " << second;
            EXPECT_EQ(text.back(), 'x');
        }
    }
}

std::string written(TokenFormat format, const std::vector<int32_t>& tokens) {
    int fds[2];
    EXPECT_EQ(::pipe(fds), 0);
    TokenStream stream(fds[1], format);
    for (const int32_t token : tokens) EXPECT_TRUE(stream.put(token));
    EXPECT_TRUE(stream.finish());
    ::close(fds[1]);
    char buffer[256];
    const auto size = ::read(fds[0], buffer, sizeof buffer);
    ::close(fds[0]);
    return std::string(buffer, static_cast<size_t>(size));
}

TEST(TokenStream, APipeGetsTheBytes) {
    EXPECT_EQ(written(TokenFormat::raw_bytes, {'a', 0xFF, 0x1B, 0xE2}), "a\xFF\x1B\xE2");
}

TEST(TokenStream, ATerminalGetsTextThatEndsItsLine) {
    EXPECT_EQ(written(TokenFormat::terminal, {'a', 0xFF}), "a" + bad(1) + "\n");
    EXPECT_EQ(written(TokenFormat::terminal, {'a', 0xE2}), "a" + bad(1) + "\n");
    EXPECT_EQ(written(TokenFormat::terminal, {'a', '\n'}), "a\n");
}

TEST(TokenStream, IdsAreALine) {
    EXPECT_EQ(written(TokenFormat::ids, {0, 50256, 2147483647}), "0,50256,2147483647\n");
}

TEST(TokenStream, ALineAboveEachOfSeveralPrompts) {
    for (const TokenFormat format :
         {TokenFormat::raw_bytes, TokenFormat::terminal, TokenFormat::ids}) {
        int fds[2];
        ASSERT_EQ(::pipe(fds), 0);
        TokenStream stream(fds[1], format);
        for (int64_t prompt = 1; prompt <= 2; ++prompt) {
            EXPECT_TRUE(stream.begin_prompt(prompt, 2));
            EXPECT_TRUE(stream.put('a') && stream.put('b') && stream.finish());
        }
        char buffer[256];
        const auto size = ::read(fds[0], buffer, sizeof buffer);
        const std::string text(buffer, static_cast<size_t>(size));
        ::close(fds[0]);
        ::close(fds[1]);
        if (format == TokenFormat::raw_bytes) {
            EXPECT_EQ(text, "==> prompt 1 of 2 <==\nab\n==> prompt 2 of 2 <==\nab\n");
        }
        if (format == TokenFormat::terminal) {
            EXPECT_EQ(text, "==> prompt 1 of 2 <==\nab\n\n==> prompt 2 of 2 <==\nab\n");
        }
        if (format == TokenFormat::ids) {
            EXPECT_EQ(text, "97,98\n97,98\n");
        }
    }
}

TEST(TokenStream, AFailedWriteIsReported) {
    TokenStream stream(-1, TokenFormat::raw_bytes);
    EXPECT_FALSE(stream.put('a'));
}

}  // namespace
}  // namespace plumb
