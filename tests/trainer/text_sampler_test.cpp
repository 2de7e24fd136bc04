#include "trainer/text_sampler.h"

#include <gtest/gtest.h>

#include <string>

namespace plumb {
namespace {

std::string escaped(const std::string& bytes) {
    std::string text(4 * bytes.size() + 1, '#');
    const int64_t size = escape_text(reinterpret_cast<const unsigned char*>(bytes.data()),
                                     static_cast<int64_t>(bytes.size()), text.data());
    EXPECT_LE(size, 4 * static_cast<int64_t>(bytes.size()));
    EXPECT_EQ(text[static_cast<size_t>(size)], '#') << "wrote beyond what it says";
    return text.substr(0, static_cast<size_t>(size));
}

TEST(EscapeText, PrintableTextStays) {
    EXPECT_EQ(escaped(""), "");
    EXPECT_EQ(escaped("a b~!"), "a b~!");
    EXPECT_EQ(escaped("\xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80"),
              "\xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80");
}

TEST(EscapeText, ControlCharactersAreVisible) {
    EXPECT_EQ(escaped("a\nb\tc"), "a\\nb\\tc");
    EXPECT_EQ(escaped(std::string("\0\x1b[2J\x7f\r", 7)), "\\x00\\x1b[2J\\x7f\\x0d");
    EXPECT_EQ(escaped("\xc2\x9b"), "\\xc2\\x9b") << "a control sequence introducer";
    EXPECT_EQ(escaped("\xc2\xa0"), "\xc2\xa0");
}

TEST(EscapeText, BrokenSequencesAreVisible) {
    EXPECT_EQ(escaped("\x80"), "\\x80");
    EXPECT_EQ(escaped("\xc3"), "\\xc3");
    EXPECT_EQ(escaped("\xc3x"), "\\xc3x");
    EXPECT_EQ(escaped("\xe2\x82"), "\\xe2\\x82");
    EXPECT_EQ(escaped("\xc0\xaf"), "\\xc0\\xaf") << "overlong";
    EXPECT_EQ(escaped("\xe0\x9f\xbf"), "\\xe0\\x9f\\xbf") << "overlong";
    EXPECT_EQ(escaped("\xf0\x8f\xbf\xbf"), "\\xf0\\x8f\\xbf\\xbf") << "overlong";
    EXPECT_EQ(escaped("\xed\xa0\x80"), "\\xed\\xa0\\x80") << "a surrogate";
    EXPECT_EQ(escaped("\xf4\x90\x80\x80"), "\\xf4\\x90\\x80\\x80") << "above U+10FFFF";
    EXPECT_EQ(escaped("\xff"), "\\xff");
}

}  // namespace
}  // namespace plumb
