// Runs plumb-data as a user would.
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "formats/tokens.h"

namespace plumb {
namespace {

namespace fs = std::filesystem;

std::string contents(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    EXPECT_TRUE(file) << path;
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
}

class PlumbData : public ::testing::Test {
  protected:
    void SetUp() override {
        folder_ = ::testing::TempDir() + "plumb_data_XXXXXX";
        ASSERT_NE(::mkdtemp(folder_.data()), nullptr);
    }
    void TearDown() override { fs::remove_all(folder_); }

    std::string put(const std::string& name, const std::string& bytes) const {
        std::ofstream(path(name), std::ios::binary) << bytes;
        return path(name);
    }
    std::string path(const std::string& name) const { return folder_ + "/" + name; }

    // Runs `before; plumb-data arguments`; keeps both outputs.
    int run(const std::string& arguments, const std::string& before = "true") {
        const std::string command = before + "; exec " PLUMB_BIN_DIR "/plumb-data " + arguments +
                                    " >" + path("stdout") + " 2>" + path("stderr");
        const int status = std::system(command.c_str());
        output_ = contents(path("stdout"));
        error_ = contents(path("stderr"));
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    }
    void expect_error(const std::string& part) const {
        EXPECT_EQ(error_.rfind("error: ", 0), 0u) << error_;
        EXPECT_EQ(error_.find('\n'), error_.size() - 1) << error_;
        EXPECT_NE(error_.find(part), std::string::npos) << error_;
    }
    size_t files_in(const std::string& name) const {
        size_t count = 0;
        for ([[maybe_unused]] const auto& entry : fs::directory_iterator(path(name))) ++count;
        return count;
    }

    std::string folder_, output_, error_;
};

TEST_F(PlumbData, SplitsTheConcatenatedTexts) {
    const std::string a = put("a.txt", "The first text, 27 letters.");
    const std::string b = put("b.txt", std::string("and\0then\xff", 9) + "the second.");
    ASSERT_EQ(run(a + " " + b + " --out " + path("new/data")), 0) << error_;
    const std::string all = contents(a) + contents(b);
    ASSERT_EQ(all.size(), 47u);
    EXPECT_EQ(contents(path("new/data/train.bin")), all.substr(0, 43));
    EXPECT_EQ(contents(path("new/data/valid.bin")), all.substr(43));
    EXPECT_EQ(
        nlohmann::json::parse(contents(path("new/data/train.bin.json"))),
        (nlohmann::json{{"width", 1}, {"count", 43}, {"largest", 255}, {"tokenizer", "bytes"}}));
    EXPECT_EQ(
        nlohmann::json::parse(contents(path("new/data/valid.bin.json"))),
        (nlohmann::json{{"width", 1}, {"count", 4}, {"largest", 'o'}, {"tokenizer", "bytes"}}));
    EXPECT_EQ(files_in("new/data"), 4u);
    EXPECT_NE(output_.find("train.bin: 43 tokens"), std::string::npos) << output_;
    EXPECT_NE(output_.find("valid.bin: 4 tokens"), std::string::npos) << output_;
    const TokenFile train(path("new/data/train.bin"));
    EXPECT_EQ(train.token(0), 'T');
    EXPECT_EQ(train.token(35), 0xff);
}

TEST_F(PlumbData, ReadsTextsOfManyPieces) {
    std::string text(3'000'001, ' ');
    for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(i % 251);
    ASSERT_EQ(run(put("t.txt", text) + " --valid-fraction 0.5 --out " + path("d")), 0) << error_;
    EXPECT_EQ(contents(path("d/train.bin")) + contents(path("d/valid.bin")), text);
    EXPECT_EQ(fs::file_size(path("d/valid.bin")), 1'500'000u);
}

TEST_F(PlumbData, TheShortestTextGivesOneTokenEach) {
    ASSERT_EQ(run(put("t.txt", "ab") + " --out " + path("d")), 0) << error_;
    EXPECT_EQ(contents(path("d/train.bin")), "a");
    EXPECT_EQ(contents(path("d/valid.bin")), "b");
}

TEST_F(PlumbData, ReplacesAnEarlierResult) {
    ASSERT_EQ(run(put("t.txt", "0123456789") + " --out " + path("d")), 0) << error_;
    ASSERT_EQ(run(put("u.txt", "abcdef") + " --valid-fraction 0.34 --out " + path("d")), 0)
        << error_;
    EXPECT_EQ(contents(path("d/train.bin")), "abcd");
    EXPECT_EQ(contents(path("d/valid.bin")), "ef");
    EXPECT_EQ(TokenFile(path("d/train.bin")).count(), 4);
}

TEST_F(PlumbData, DoesNotOverwriteItsOwnInput) {
    const std::string text = put("t.txt", "0123456789");
    ASSERT_EQ(run(text + " --out " + path("d")), 0) << error_;
    fs::create_symlink(path("d/valid.bin"), path("link"));
    fs::create_hard_link(text, path("d/train.bin.json.tmp"));
    for (const std::string& input : {path("d/train.bin"), path("d/../d/train.bin"),
                                     path("d/train.bin.json"), path("link"), text}) {
        EXPECT_EQ(run(put("u.txt", "abc") + " " + input + " --out " + path("d")), 2) << input;
        expect_error("text " + input + " is " + path("d/"));
        expect_error("--out");
    }
    EXPECT_EQ(contents(text), "0123456789");
    EXPECT_EQ(contents(path("d/train.bin")), "012345678");
    EXPECT_EQ(contents(path("d/valid.bin")), "9");
    EXPECT_EQ(TokenFile(path("d/train.bin")).count(), 9);
}

TEST_F(PlumbData, MakesAnewWhatAnInterruptedRunLeft) {
    const std::string arguments = put("t.txt", "0123456789") + " --out " + path("d");
    ASSERT_EQ(run(arguments), 0) << error_;
    // Killed after the tokens were renamed and before their sidecars were.
    for (const char* name : {"d/train.bin.json", "d/valid.bin.json"})
        fs::rename(path(name), path(name) + ".tmp");
    ASSERT_EQ(run(arguments), 0) << error_;
    EXPECT_EQ(TokenFile(path("d/train.bin")).count(), 9);
    EXPECT_FALSE(fs::exists(path("d/train.bin.json.tmp")));
}

TEST_F(PlumbData, DoesNotReplaceTokensOfAnotherMaker) {
    const std::string arguments = put("t.txt", "0123456789") + " --out " + path("d");
    ASSERT_EQ(run(arguments), 0) << error_;
    put("d/valid.bin", "abcd");
    for (const char* sidecar : {"", R"({"width": 2})", R"({"width": 2, "tokenizer": "gpt2"})"}) {
        put("d/valid.bin.json", sidecar);
        EXPECT_EQ(run(arguments), 2) << sidecar;
        expect_error(path("d/valid.bin") + " exists and was not made by this program");
        expect_error("move it away or name another folder");
    }
    fs::remove(path("d/valid.bin.json"));
    EXPECT_EQ(run(arguments), 2) << "no sidecar";
    EXPECT_EQ(contents(path("d/valid.bin")), "abcd");
    fs::remove(path("d/valid.bin"));
    EXPECT_EQ(run(arguments), 0) << error_;
}

TEST_F(PlumbData, HelpHasAnExample) {
    EXPECT_EQ(run("--help"), 0);
    EXPECT_NE(output_.find("Example:"), std::string::npos) << output_;
    EXPECT_NE(output_.find("--valid-fraction"), std::string::npos) << output_;
    EXPECT_EQ(error_, "");
}

TEST_F(PlumbData, BadInputExitsWithTwo) {
    const std::string good = put("good.txt", "some text");
    const std::string out = " --out " + path("d");
    const struct {
        std::string arguments, part;
    } cases[] = {
        {"", "required"},
        {good, "--out is required"},
        {good + out + " --colour red", "--colour"},
        {good + out + " --valid-fraction much", "much"},
        {good + out + " --valid-fraction 0", "0.000000 is not between"},
        {good + out + " --valid-fraction 1.5", "1.500000 is not between"},
        {good + out + " --valid-fraction nan", "nan is not between"},
        {good + " " + path("none.txt") + out, "none.txt: No such file"},
        {good + " " + put("empty.txt", "") + out, "empty.txt is empty"},
        {folder_ + out, "is a directory"},
        {"/dev/null" + out, "not a regular file"},
        {put("one.txt", "a") + out, "1 bytes; at least 2"},
        {good + " --out " + good, "is a file"},
    };
    for (const auto& c : cases) {
        EXPECT_EQ(run(c.arguments), 2) << c.arguments << ": " << error_;
        expect_error(c.part);
        EXPECT_EQ(output_, "");
        EXPECT_FALSE(fs::exists(path("d"))) << c.arguments;
    }
}

TEST_F(PlumbData, ADirectoryInTheWayIsFoundBeforeAnythingIsReplaced) {
    ASSERT_EQ(run(put("t.txt", "0123456789") + " --out " + path("d")), 0) << error_;
    fs::remove(path("d/valid.bin"));
    fs::create_directory(path("d/valid.bin"));
    EXPECT_EQ(run(put("u.txt", "another text") + " --out " + path("d")), 2);
    expect_error("valid.bin is a directory");
    EXPECT_EQ(contents(path("d/train.bin")), "012345678");
}

TEST_F(PlumbData, AFolderThatCannotBeMadeExitsWithFour) {
    EXPECT_EQ(run(put("t.txt", "0123456789") + " --out /proc/plumb"), 4);
    expect_error("/proc/plumb");
}

TEST_F(PlumbData, AnUnwritableFolderExitsWithFour) {
    if (::geteuid() == 0) GTEST_SKIP() << "root may write everywhere";
    put("t.txt", "0123456789");
    fs::create_directory(path("d"));
    fs::permissions(path("d"), fs::perms::owner_read | fs::perms::owner_exec);
    EXPECT_EQ(run(path("t.txt") + " --out " + path("d")), 4);
    expect_error("Permission denied");
}

TEST_F(PlumbData, AFailedWriteLeavesTheEarlierFilesAndNothingElse) {
    ASSERT_EQ(run(put("t.txt", "0123456789") + " --out " + path("d")), 0) << error_;
    put("big.txt", std::string(1'000'000, 'x'));
    // A file-size limit fails a write part way, as a full disk does.
    EXPECT_EQ(run(path("big.txt") + " --out " + path("d"), "trap '' XFSZ; ulimit -f 200"), 4);
    expect_error("File too large");
    EXPECT_EQ(contents(path("d/train.bin")), "012345678");
    EXPECT_EQ(TokenFile(path("d/train.bin")).count(), 9);
    EXPECT_EQ(files_in("d"), 4u);
}

TEST_F(PlumbData, FullDiskExitsWithFour) {
    const std::string disk = path("disk");
    fs::create_directory(disk);
    if (::mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=256k") != 0)
        GTEST_SKIP() << "mounting a small tmpfs needs root";
    put("big.txt", std::string(1'000'000, 'x'));
    EXPECT_EQ(run(path("big.txt") + " --out " + disk), 4);
    expect_error("No space left on device");
    EXPECT_EQ(files_in("disk"), 0u);
    EXPECT_EQ(::umount(disk.c_str()), 0);
}

}  // namespace
}  // namespace plumb
