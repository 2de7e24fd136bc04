// plumb-ckpt as a user runs it: what it prints and how it exits.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdio>

#include "tests/formats/checkpoint_fixture.h"

namespace plumb {
namespace {

struct Result {
    int exit_code = -1;
    std::string output;  // stdout and stderr
};

Result plumb_ckpt(const std::string& arguments) {
    Result result;
    std::FILE* pipe = ::popen((PLUMB_BIN_DIR "/plumb-ckpt " + arguments + " 2>&1").c_str(), "r");
    if (pipe == nullptr) return result;
    char text[4096];
    for (size_t got; (got = std::fread(text, 1, sizeof text, pipe)) > 0;)
        result.output.append(text, got);
    result.exit_code = WEXITSTATUS(::pclose(pipe));
    return result;
}

bool contains(const Result& result, const std::string& text) {
    return result.output.find(text) != std::string::npos;
}

TEST(PlumbCkpt, InspectsTheNewestAndVerifiesAll) {
    const TemporaryFolder folder;
    State state = small_state();
    state.numerics_hash = {};
    Saver saver(state);
    ASSERT_TRUE(saver.save(folder.path(), 7).ok());
    state.numerics_hash = {0xabc, 1};
    const std::string older_step = saver.step_directory;
    ASSERT_TRUE(saver.save(folder.path(), 8).ok());

    const Result inspected = plumb_ckpt("inspect --tensors " + folder.path());
    EXPECT_EQ(inspected.exit_code, 0) << inspected.output;
    EXPECT_TRUE(contains(inspected, saver.step_directory)) << inspected.output;
    EXPECT_TRUE(contains(inspected, "state digest  " + to_hex(state.digest())));
    EXPECT_TRUE(contains(inspected, "\nnumerics hash 00000000000000010000000000000abc\n"));
    EXPECT_TRUE(contains(plumb_ckpt("inspect " + older_step), "\nnumerics hash not known\n"));
    EXPECT_TRUE(contains(inspected, "h.0.ln.weight")) << inspected.output;
    EXPECT_TRUE(contains(inspected, "[37, 29]"));
    EXPECT_EQ(plumb_ckpt("inspect --settings " + older_step).output, state.settings + "\n");

    const Result whole = plumb_ckpt("verify " + folder.path());
    EXPECT_EQ(whole.exit_code, 0) << whole.output;
    EXPECT_TRUE(contains(whole, "step 7") && contains(whole, "step 8")) << whole.output;

    const std::string data = saver.step_directory + "/data-00000.pck";
    std::vector<uint8_t> bytes = read_bytes(data);
    bytes[6000] ^= 4;
    write_bytes(data, bytes);
    const Result damaged = plumb_ckpt("verify " + folder.path());
    EXPECT_EQ(damaged.exit_code, 4);
    EXPECT_TRUE(contains(damaged, "error: " + data)) << damaged.output;
    EXPECT_TRUE(contains(damaged, "step 7"));
    EXPECT_EQ(plumb_ckpt("verify " + older_step).exit_code, 0);
    const std::string name = saver.step_directory.substr(folder.path().size() + 1);
    ASSERT_TRUE(set_aside_step(posix_files(), folder.path().c_str(), name.c_str()).ok());
    EXPECT_EQ(plumb_ckpt("verify " + folder.path()).exit_code, 0) << "only step 7 is left";
    const std::string aside = folder.path() + "/" + kDamagedPrefix + name;
    EXPECT_TRUE(contains(plumb_ckpt("verify " + aside), "error: " + aside + "/data-00000.pck"));
}

// Of a folder, each is verified, whatever is wrong with those before it; the worst exit code
// counts.
TEST(PlumbCkpt, VerifiesBeyondAnotherVersion) {
    const TemporaryFolder folder;
    const State state = small_state();
    Saver saver(state);
    std::string steps[3];
    for (int i = 0; i < 3; ++i) {
        ASSERT_TRUE(saver.save(folder.path(), 7 + i).ok());
        steps[i] = saver.step_directory;
    }
    set_version(steps[1], 1);
    const Result result = plumb_ckpt("verify " + folder.path());
    EXPECT_EQ(result.exit_code, 2) << result.output;
    EXPECT_TRUE(contains(result, "error: " + steps[1] + "/MANIFEST: format version 1"));
    EXPECT_TRUE(contains(result, steps[0] + ": step 7, ") && contains(result, ": step 9, "))
        << result.output;
    std::vector<uint8_t> bytes = read_bytes(steps[2] + "/data-00000.pck");
    bytes[6000] ^= 4;
    write_bytes(steps[2] + "/data-00000.pck", bytes);
    EXPECT_EQ(plumb_ckpt("verify " + folder.path()).exit_code, 4);
}

TEST(PlumbCkpt, WrongUseExitsWithTwo) {
    const TemporaryFolder folder;
    for (const std::string& arguments :
         {std::string(), std::string("verify"), std::string("destroy x"), "verify " + folder.path(),
          "inspect " + folder.path() + "/absent"}) {
        const Result result = plumb_ckpt(arguments);
        EXPECT_EQ(result.exit_code, 2) << arguments << ": " << result.output;
        EXPECT_EQ(result.output.rfind("error: ", 0), 0u) << result.output;
    }
    const Result help = plumb_ckpt("--help");
    EXPECT_EQ(help.exit_code, 0);
    EXPECT_TRUE(contains(help, "inspect") && contains(help, "verify"));
    EXPECT_TRUE(contains(help, "\n  plumb-ckpt verify run/step-")) << help.output;
}

}  // namespace
}  // namespace plumb
