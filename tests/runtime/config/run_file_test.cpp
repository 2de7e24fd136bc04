#include "runtime/config/run_file.h"

#include <gtest/gtest.h>

#include "tests/runtime/config/error_of.h"

namespace plumb {
namespace {

std::string error_in(const std::string& text) {
    return error_of([&] { parse_run_file(text, "r.toml"); });
}

TEST(RunFile, FindsValuesInTheOrderOfTheFile) {
    const auto found = parse_run_file(
        "preset = \"tiny\"\n[train]\nlr = 6e-4\nsteps = 10  # a comment, 1.2.3.4.5.6.7.8.9.10.11\n"
        "[a.b]\nc = [1]\n[batch]\n[model]\ntie_word_embeddings = true\n",
        "r.toml");
    ASSERT_EQ(found.size(), 6u);
    EXPECT_EQ(found[0].key, "preset");
    EXPECT_EQ(found[0].where, "r.toml:1:1");
    EXPECT_EQ(std::get<std::string>(found[0].value), "tiny");
    EXPECT_EQ(found[1].key, "train.lr");
    EXPECT_EQ(std::get<double>(found[1].value), 6e-4);
    EXPECT_EQ(found[2].key, "train.steps");
    EXPECT_EQ(found[2].where, "r.toml:4:1");
    EXPECT_EQ(std::get<int64_t>(found[2].value), 10);
    EXPECT_EQ(found[3].key, "a.b");
    EXPECT_STREQ(std::get<ForeignValue>(found[3].value).type, "a table");
    EXPECT_EQ(found[4].key, "batch");
    EXPECT_STREQ(std::get<ForeignValue>(found[4].value).type, kEmptyTable);
    EXPECT_EQ(std::get<bool>(found[5].value), true);
}

TEST(RunFile, MalformedTomlHasItsPlace) {
    // Found by fuzzing: where a value is malformed, the parser takes a quote for a part of it.
    EXPECT_EQ(error_in("lr =+\\\"a\xd2\x92(0\n").substr(0, 20), "r.toml:1:6: not TOML");
    EXPECT_EQ(error_in("preset = \"tiny\"\nsteps = = 3\n").substr(0, 22), "r.toml:2:9: not TOML: ");
    EXPECT_EQ(error_in("a = 1\na = 2\n").substr(0, 9), "r.toml:2:");
    EXPECT_EQ(error_in("a = 9223372036854775808\n").substr(0, 9), "r.toml:1:");
}

TEST(RunFile, HostileNestingIsBounded) {
    std::string dotted = "a";
    for (int i = 0; i < 20000; ++i) dotted += ".a";
    EXPECT_NE(error_in(dotted + " = 1").find("r.toml:1:34: more than 16 dots"), std::string::npos);
    EXPECT_NE(error_in("x = " + std::string(20000, '[')).find("not TOML"), std::string::npos);
    std::string tables;
    for (int i = 0; i < 10000; ++i) tables += "a={";
    EXPECT_NE(error_in(tables).find("not TOML"), std::string::npos);
    EXPECT_NE(error_in("x = \"\"\"\n\"\"\"").find("several lines"), std::string::npos);
    EXPECT_NE(error_in(std::string(70000, '\n')).find("at most 65536"), std::string::npos);
}

// The parser underneath has undefined behaviour for these; they are refused before it sees them.
TEST(RunFile, NonAsciiBelongsInStringsAndComments) {
    EXPECT_EQ(error_in("a = 1\n\xc3\xa4 = 1"),
              "r.toml:2:1: not TOML: only strings and comments may have non-ASCII characters");
    EXPECT_EQ(error_in("[[[a]]]"), "r.toml: not TOML: malformed key or value");
    EXPECT_EQ(parse_run_file("\xef\xbb\xbf"
                             "a = \"\xc3\xa4\" # \xc3\xa4",
                             "r.toml")
                  .size(),
              1u);
}

// A quoted dot opens no table, and a hash in a string starts no comment.
TEST(RunFile, DotsAreCountedWhereTheyMatter) {
    parse_run_file("a = \"" + std::string(100, '.') + "\"", "r.toml");
    parse_run_file("# " + std::string(100, '.'), "r.toml");
    std::string hidden = "x = { a = \"#\", a";
    for (int i = 0; i < 20; ++i) hidden += ".b";
    EXPECT_NE(error_in(hidden + " = 1 }").find("more than 16 dots"), std::string::npos);
}

}  // namespace
}  // namespace plumb
