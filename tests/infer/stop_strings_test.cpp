// Where a text ends, and what of it may be written before.
#include "infer/stop_strings.h"

#include <gtest/gtest.h>

#include <string_view>

#include "runtime/base/error.h"

namespace plumb {
namespace {

// Feeds a text byte by byte: how much may be written after each byte, until it stops.
struct Fed {
    std::vector<int64_t> free;
    std::string written;
    bool stopped = false;
};
Fed feed(const StopStrings& stops, std::string_view text) {
    Fed fed;
    std::vector<int32_t> tokens;
    int64_t free_count = 0;
    for (const char character : text) {
        tokens.push_back(static_cast<uint8_t>(character));
        const StopStrings::Found found =
            stops.look(tokens.data(), static_cast<int64_t>(tokens.size()), free_count);
        EXPECT_GE(found.free_count, free_count) << "what is written stays";
        free_count = found.free_count;
        fed.free.push_back(free_count);
        fed.stopped = found.stopped;
        if (fed.stopped) break;
    }
    fed.written = text.substr(0, static_cast<size_t>(free_count));
    return fed;
}

using Free = std::vector<int64_t>;

TEST(StopStrings, WithoutAnyEverythingIsFree) {
    const Fed fed = feed(StopStrings(), "abc");
    EXPECT_EQ(fed.free, (Free{1, 2, 3}));
    EXPECT_FALSE(fed.stopped);
    EXPECT_EQ(feed(StopStrings({"xyz"}), "abc").free, (Free{1, 2, 3}));
}

TEST(StopStrings, ABeginningIsHeldUntilItIsNone) {
    const StopStrings stops({"END"});
    const Fed fed = feed(stops, "aENbEENDz");
    EXPECT_EQ(fed.free, (Free{1, 1, 1, 4, 4, 5, 5, 5}));
    EXPECT_TRUE(fed.stopped);
    EXPECT_EQ(fed.written, "aENbE");
    EXPECT_EQ(feed(stops, "aEN").free.back(), 1) << "still held; the end of the text frees it";
}

TEST(StopStrings, OverlappingBeginnings) {
    EXPECT_EQ(feed(StopStrings({"aab"}), "aaab").free, (Free{0, 0, 1, 1}));
    EXPECT_EQ(feed(StopStrings({"aab"}), "aaab").written, "a");
    EXPECT_EQ(feed(StopStrings({"abab!"}), "ababab!").written, "ab");
}

// The first to be complete ends the text, though another one's beginning stands before it.
TEST(StopStrings, OfSeveralTheFirstCompleteOne) {
    const Fed fed = feed(StopStrings({"abcX", "bc"}), "abcX");
    EXPECT_TRUE(fed.stopped);
    EXPECT_EQ(fed.free, (Free{0, 0, 1}));
    // Two complete at once: nothing of either is written.
    EXPECT_EQ(feed(StopStrings({"c", "abc"}), "zabc").written, "z");
    EXPECT_EQ(feed(StopStrings({"x"}), "x").written, "");
}

TEST(StopStrings, BytesAbove127) {
    EXPECT_EQ(feed(StopStrings({"\xE2\x82\xAC"}), "1\xE2\x82\xE2\x82\xAC").written, "1\xE2\x82");
}

TEST(StopStrings, AnEmptyOneIsRefused) {
    try {
        StopStrings({"a", ""});
        ADD_FAILURE();
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ExitCode::bad_input);
        EXPECT_STREQ(error.what(), "--stop: the text is empty; give at least one character");
    }
}

}  // namespace
}  // namespace plumb
