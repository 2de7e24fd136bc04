// Runs plumb-infer as a user would, on checkpoints saved as plumb-train saves them: bytes/ has
// steps 3 and 5 of a byte model with a context of 64 tokens.
// Path: cold.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "runtime/plan/plan.h"
#include "tests/build_folder.h"
#include "tests/infer/small_checkpoint.h"

namespace plumb {

namespace fs = std::filesystem;

inline std::string contents(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    EXPECT_TRUE(file) << path;
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
}

inline void flip_bit(const std::string& path, int64_t offset) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(offset);
    const int byte = file.get();
    file.seekp(offset);
    file.put(static_cast<char>(byte ^ 1));
    ASSERT_TRUE(file.good()) << path;
}

class PlumbInfer : public ::testing::Test {
  protected:
    static void SetUpTestSuite() {
        folder_ = ::testing::TempDir() + "plumb_infer_XXXXXX";
        ASSERT_NE(::mkdtemp(folder_.data()), nullptr);
        const RunConfig config = small_config(ModelType::gpt2, 256, 64, path("bytes"));
        step_3_ = save_checkpoint(config, 3);
        step_5_ = save_checkpoint(config, 5);
    }
    static void TearDownTestSuite() { fs::remove_all(folder_); }

    static std::string path(const std::string& name) { return folder_ + "/" + name; }

    // Runs `plumb-infer arguments`; keeps both outputs.
    int run(const std::string& arguments, const std::string& before = "") {
        return run_in("bin", arguments, before);
    }
    int run_in(const std::string& programs, const std::string& arguments,
               const std::string& before) {
        const std::string command = before + testing::in_build_folder(programs) + "/plumb-infer " +
                                    arguments + " >" + path("stdout") + " 2>" + path("stderr");
        const int status = std::system(command.c_str());
        output_ = contents(path("stdout"));
        error_ = contents(path("stderr"));
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    }
    int generate(const std::string& arguments) {
        return run("generate --checkpoint " + path("bytes") + " " + arguments);
    }
    void expect_in_error(const std::string& part) const {
        EXPECT_NE(error_.find(part), std::string::npos) << part << "\nin\n" << error_;
    }
    // The whole of standard error is one line.
    void expect_one_error(const std::string& part) const {
        EXPECT_EQ(error_.rfind("error: ", 0), 0u) << error_;
        EXPECT_EQ(error_.find('\n'), error_.size() - 1) << error_;
        expect_in_error(part);
        EXPECT_EQ(output_, "");
    }

    int perplexity(const std::string& arguments) {
        return run("perplexity --checkpoint " + path("bytes") + " " + arguments);
    }
    // The footprint that was printed is the plan made here, to the byte, with the zones between
    // tensors that the checked build plans.
    void expect_planned(const std::string& folder, Purpose purpose,
                        std::vector<std::string> overrides) const {
        for (const char* fresh :
             {"--run.threads=0", "--batch.sequence_length=1", "--batch.micro_batch=1",
              "--batch.global_batch=1", "--train.warmup_steps=0", "--train.loss_chunk=0"})
            overrides.insert(overrides.begin(), fresh);
        const RunConfig config = resolved(config_of_checkpoint(folder, overrides));
        const ProgramInputs inputs = program_inputs(config);
        const Plan plan =
            make_plan(build_program(config, inputs, purpose), inputs.device, {kBuildRedZoneBytes});
        expect_in_error(fmt::format("\nmemory: {} bytes (", plan.total_bytes));
        expect_in_error(fmt::format(") in arenas + {} bytes (", plan.outside_bytes));
        expect_in_error("\nplan: " + to_hex(plan.digest) + ",");
    }
    // What the process held at most beside the plan with what lies outside; both printed.
    void expect_peak_is_planned() const {
        long long peak = 0, planned = 0;
        const size_t at = error_.find("peak memory: ");
        ASSERT_NE(at, std::string::npos) << error_;
        ASSERT_EQ(std::sscanf(error_.c_str() + at, "peak memory: %lld bytes (%*[^)]) against %lld",
                              &peak, &planned),
                  2)
            << error_;
        EXPECT_GT(planned, 60'000'000);
        // Tolerance: 2 MiB for each of weights, scratch, io, cache and staging.
        EXPECT_NEAR(static_cast<double>(peak), static_cast<double>(planned),
                    static_cast<double>(std::max<long long>(planned / 100, (16 + 2 * 5) << 20)))
            << error_.substr(at);
        EXPECT_LT(peak, planned);
    }

    static inline std::string folder_, step_3_, step_5_;
    std::string output_, error_;
};

}  // namespace plumb
