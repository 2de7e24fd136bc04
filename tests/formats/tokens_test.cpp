#include "formats/tokens.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <vector>

#include "runtime/base/error.h"

namespace plumb {
namespace {

class Tokens : public ::testing::Test {
  protected:
    void SetUp() override {
        folder_ = ::testing::TempDir() + "plumb_tokens_XXXXXX";
        ASSERT_NE(::mkdtemp(folder_.data()), nullptr);
    }
    void TearDown() override { std::filesystem::remove_all(folder_); }

    std::string path(const std::string& name) const { return folder_ + "/" + name; }
    std::string put(const std::string& name, const std::string& bytes) const {
        std::ofstream(path(name), std::ios::binary) << bytes;
        return path(name);
    }
    template <typename Id>
    std::string put_ids(const std::string& name, const std::vector<Id>& ids) const {
        return put(name,
                   std::string(reinterpret_cast<const char*>(ids.data()), ids.size() * sizeof(Id)));
    }

    std::string folder_;
};

template <typename Body>
std::string error_of(Body body, ExitCode code = ExitCode::bad_input) {
    try {
        body();
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), code) << error.what();
        return error.what();
    }
    ADD_FAILURE() << "no error";
    return "";
}

#define EXPECT_HAS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

TEST_F(Tokens, ReadsEveryWidth) {
    const std::string narrow = put_ids<uint8_t>("a.bin", {0, 200, 255, 7});
    const std::string middle = put_ids<uint16_t>("b.bin", {0, 200, 65535, 7});
    const std::string wide = put_ids<uint32_t>("c.bin", {0, 200, 0x7fffffff, 7});
    const struct {
        std::string path;
        int32_t width;
        int32_t largest;
    } cases[] = {{narrow, 1, 255}, {middle, 2, 65535}, {wide, 4, 0x7fffffff}};
    for (const auto& c : cases) {
        const TokenFile file(c.path, c.width);
        EXPECT_EQ(file.count(), 4);
        EXPECT_EQ(file.info().largest, c.largest);
        const std::vector<int32_t> expected = {0, 200, c.largest, 7};
        std::vector<int32_t> ids(4);
        file.will_need(0, 4);
        file.read(0, 4, ids.data());
        EXPECT_EQ(ids, expected);
        for (int64_t i = 0; i < 4; ++i)
            EXPECT_EQ(file.token(i), expected[static_cast<size_t>(i)]) << i;
        file.read(2, 2, ids.data());
        EXPECT_EQ(ids[0], c.largest);
        EXPECT_EQ(ids[1], 7);
    }
}

TEST_F(Tokens, SidecarSaysWidthAndLargest) {
    const std::string bin = put_ids<uint16_t>("t.bin", {1, 2, 300});
    put("t.bin.json", format_token_sidecar({2, 3, 300, "bytes"}));
    const TokenFile file(bin);
    EXPECT_EQ(file.info().width, 2);
    EXPECT_EQ(file.info().tokenizer, "bytes");
    EXPECT_EQ(file.token(2), 300);
    file.check_vocabulary(301);
    EXPECT_EQ(error_of([&] { file.check_vocabulary(256); }),
              "token id 300 in " + bin + " is not below vocab_size 256");
    EXPECT_EQ(error_of([&] { file.check_vocabulary(300); }),
              "token id 300 in " + bin + " is not below vocab_size 300");
}

TEST_F(Tokens, SizeIsComparedWithTheSidecar) {
    const std::string bin = put_ids<uint16_t>("t.bin", {1, 2, 3});
    put("t.bin.json", format_token_sidecar({2, 4, 3, "bytes"}));
    const std::string text = error_of([&] { TokenFile file(bin); });
    EXPECT_HAS(text, "has 6 bytes, 3 tokens of 2 bytes");
    EXPECT_HAS(text, "says 4");
    put("t.bin.json", R"({"width": 2, "count": 4611686018427387904, "largest": 3})");
    EXPECT_HAS(error_of([&] { TokenFile file(bin); }), "says 4611686018427387904");
    put("t.bin.json", R"({"width": 4, "count": 1, "largest": 3})");
    EXPECT_HAS(error_of([&] { TokenFile file(bin); }), "6 bytes, not a multiple");
}

TEST_F(Tokens, WidthIsComparedWithTheSidecar) {
    const std::string bin = put_ids<uint16_t>("t.bin", {1, 2, 3});
    put("t.bin.json", format_token_sidecar({2, 3, 3, "bytes"}));
    EXPECT_EQ(TokenFile(bin, 2).count(), 3);
    const std::string text = error_of([&] { TokenFile file(bin, 1); });
    EXPECT_HAS(text, "width 1");
    EXPECT_HAS(text, "says 2");
}

TEST_F(Tokens, RejectsWhatIsNoTokenFile) {
    EXPECT_HAS(error_of([&] { TokenFile file(path("none.bin"), 1); }), "No such file");
    EXPECT_HAS(error_of([&] { TokenFile file(folder_, 1); }), "not a regular file");
    EXPECT_HAS(error_of([&] { TokenFile file(put("e.bin", ""), 1); }), "is empty (0 bytes)");
    const std::string odd = put("odd.bin", "12345");
    EXPECT_HAS(
        error_of([&] { TokenFile file(odd); }),
        odd + " has no sidecar " + odd + ".json: write that file, with the text {\"width\": 2}");
    EXPECT_HAS(error_of([&] { TokenFile file(odd, 2); }), "5 bytes, not a multiple");
    EXPECT_HAS(error_of([&] { TokenFile file(odd, 3); }), "token width 3");
    const std::string huge = put_ids<uint32_t>("huge.bin", {1, 0x80000000u});
    EXPECT_HAS(error_of([&] { TokenFile file(huge, 4); }), "2147483648");
}

TEST_F(Tokens, AHandWrittenWidthSuffices) {
    const std::string bin = put_ids<uint16_t>("t.bin", {1, 50256, 3});
    put("t.bin.json", "{\"width\": 2}");
    const TokenFile file(bin);
    EXPECT_EQ(file.count(), 3);
    EXPECT_EQ(file.info().largest, 50256);
    EXPECT_EQ(file.token(1), 50256);
    EXPECT_EQ(error_of([&] { file.check_vocabulary(50256); }),
              "token id 50256 in " + bin + " is not below vocab_size 50256");
    put("t.bin.json", R"({"width": 2, "count": 3, "largest": 60000})");
    EXPECT_EQ(TokenFile(bin).info().largest, 50256) << "what is there, not the bound";
}

TEST_F(Tokens, ALyingLargestIsFoundAtOpen) {
    const std::string bin = put_ids<uint16_t>("t.bin", {1, 2, 50256, 3});
    put("t.bin.json", R"({"width": 2, "count": 4, "largest": 255})");
    EXPECT_EQ(error_of([&] { TokenFile file(bin); }),
              "token id 50256 in " + bin + " is above 255, the \"largest\" in " + bin + ".json");
}

TEST_F(Tokens, RejectsBadSidecars) {
    const struct {
        const char* text;
        const char* part;
    } cases[] = {
        {"", "not a JSON object"},
        {"[1, 2]", "not a JSON object"},
        {R"({"width": 1, "count": 3)", "not a JSON object"},
        {R"({"count": 3, "largest": 3})", "no \"width\""},
        {R"({"width": 3, "count": 3, "largest": 3})", "is 3, not 1, 2 or 4"},
        {R"({"width": 1, "count": -3, "largest": 3})", "is -3"},
        {R"({"width": 1, "count": 3.5, "largest": 3})", "is 3.5"},
        {R"({"width": 1, "count": "3", "largest": 3})", "is \"3\""},
        {R"({"width": 1, "count": 18446744073709551615, "largest": 3})", "18446744073709551615"},
        {R"({"width": 1, "count": 3, "largest": 256})", "256, above"},
        {R"({"width": 4, "count": 3, "largest": 2147483648})", "2147483648, above"},
        {R"({"width": 1, "count": 3, "largest": 3, "tokenizer": 1})", "\"tokenizer\" is 1"},
    };
    const std::string bin = put("t.bin", "abc");
    for (const auto& c : cases) {
        put("t.bin.json", c.text);
        const std::string text = error_of([&] { TokenFile file(bin); });
        EXPECT_HAS(text, c.part);
        EXPECT_HAS(text, "t.bin.json");
    }
}

TEST_F(Tokens, SidecarRoundTrip) {
    const TokenFileInfo info = parse_token_sidecar(
        format_token_sidecar({4, int64_t{1} << 40, 128255, "llama3"}), "x.json");
    EXPECT_EQ(info.width, 4);
    EXPECT_EQ(info.count, int64_t{1} << 40);
    EXPECT_EQ(info.largest, 128255);
    EXPECT_EQ(info.tokenizer, "llama3");
}

using TokensDeathTest = Tokens;

TEST_F(TokensDeathTest, AbortsOnWhatWouldCorruptTheModel) {
    const std::string bin = put("t.bin", "abb");
    const TokenFile file(bin, 1);
    std::fstream(bin, std::ios::binary | std::ios::in | std::ios::out).seekp(2).put('c');
    EXPECT_EQ(file.token(1), 'b');
    EXPECT_DEATH(file.token(2), "the file was changed");
    EXPECT_DEATH(file.token(3), "count");
    EXPECT_DEATH(file.token(-1), "count");
}

}  // namespace
}  // namespace plumb
