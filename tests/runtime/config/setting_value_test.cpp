#include "runtime/config/setting_value.h"

#include <gtest/gtest.h>

#include "tests/runtime/config/error_of.h"

namespace plumb {
namespace {

TEST(SettingValue, SizesHaveUnits) {
    EXPECT_EQ(parse_size("8GiB", "x"), int64_t{8} << 30);
    EXPECT_EQ(parse_size("1.5GiB", "x"), int64_t{3} << 29);
    EXPECT_EQ(parse_size("512MiB", "x"), int64_t{1} << 29);
    EXPECT_EQ(parse_size("64KiB", "x"), 65536);
    EXPECT_EQ(parse_size("2TiB", "x"), int64_t{1} << 41);
    EXPECT_EQ(parse_size("100B", "x"), 100);
    EXPECT_EQ(parse_size("9007199254740993", "x"), 9007199254740993);  // 2^53 + 1 stays exact
    EXPECT_EQ(parse_size("0.3KiB", "x"), 307);                         // 307.2, rounded down
}

TEST(SettingValue, BadSizesAreErrors) {
    for (const char* text : {"", "GiB", "8GB", "8 GiB", "-1", "1e3", "1.2.3KiB", "8gib", "0x10"})
        EXPECT_NE(error_of([&] { parse_size(text, "x"); }).find("is not a size"), std::string::npos)
            << text;
    for (const char* text : {"8388608TiB", "9223372036854775808", "99999999999999999999GiB"})
        EXPECT_NE(error_of([&] { parse_size(text, "x"); }).find("does not fit 63 bits"),
                  std::string::npos)
            << text;
}

TEST(SettingValue, UntypedTextGetsTheTypeItLooksLike) {
    const auto look = [](const char* text) { return typed(UntypedValue{text}, "x"); };
    EXPECT_EQ(std::get<int64_t>(look("-7")), -7);
    EXPECT_EQ(std::get<double>(look("6e-4")), 6e-4);
    EXPECT_EQ(std::get<bool>(look("true")), true);
    EXPECT_EQ(std::get<std::string>(look("7 ")), "7 ");
    EXPECT_EQ(std::get<std::string>(look("")), "");
    EXPECT_EQ(error_of([&] { look("9223372036854775808"); }),
              "x: the integer 9223372036854775808 does not fit 63 bits");
}

TEST(SettingValue, NearestCountsEdits) {
    const std::vector<std::string> keys = {"train.lr", "train.beta1", "layout.data"};
    EXPECT_EQ(nearest("trian.lr", keys), "train.lr");
    EXPECT_EQ(nearest("train.beta", keys), "train.beta1");
    EXPECT_EQ(nearest("lr", keys), "train.lr");        // by its last part
    EXPECT_EQ(nearest("batch.lr", keys), "train.lr");  // in the wrong section
    EXPECT_EQ(nearest("x", {}), "");
}

TEST(SettingValue, PrintableIsWellFormedUtf8WithoutControls) {
    for (const char* good : {"", "run/a b.bin", "\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x98\x80"})
        EXPECT_TRUE(printable(good)) << good;
    for (const char* bad : {"\n", "\x7f", "\xc2\x85", "\xff", "\xc3", "\xc0\xaf", "\xed\xa0\x80",
                            "\xf4\x90\x80\x80", "\x80"})
        EXPECT_FALSE(printable(bad)) << quote(bad);
}

TEST(SettingValue, QuoteEscapes) {
    EXPECT_EQ(quote("a\"b\\c\nd"), "\"a\\\"b\\\\c\\u000Ad\"");
}

TEST(SettingValue, FilesThatCannotBeReadAreInputOutputErrors) {
    EXPECT_NE(error_of([] { read_text_file("no/such/file"); }, ExitCode::io)
                  .find("no/such/file: cannot read: No such file"),
              std::string::npos);
    EXPECT_NE(error_of([] { read_text_file("/"); }, ExitCode::io).find("not a regular file"),
              std::string::npos);
}

}  // namespace
}  // namespace plumb
