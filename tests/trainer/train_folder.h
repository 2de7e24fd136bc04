// A temporary folder with byte data and a run file for a very small model, and plumb-train run in
// it as a user would.
// Path: cold.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "formats/token_writer.h"
#include "tests/build_folder.h"

namespace plumb {

inline std::string contents_of(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
}

class TrainFolder : public ::testing::Test {
  protected:
    void SetUp() override {
        folder_ = ::testing::TempDir() + "plumb_train_XXXXXX";
        ASSERT_NE(::mkdtemp(folder_.data()), nullptr);
        std::string text;
        while (text.size() < 8000) text += "the quick brown fox jumps over the lazy dog.\n";
        put("text.txt", text);
        write_byte_tokens({path("text.txt")}, path("data"), 0.1);
        put("run.toml",
            "[model]\nmodel_type = \"gpt2\"\nvocab_size = 256\nhidden_size = 32\n"
            "num_hidden_layers = 2\nnum_attention_heads = 2\nmax_position_embeddings = 16\n"
            "[batch]\nmicro_batch = 2\nglobal_batch = 4\n"
            "[train]\nsteps = 100\nlr = 5e-3\nmin_lr = 5e-4\nwarmup_steps = 10\neval_every = 0\n"
            "[data]\ntrain = \"data/train.bin\"\nvalid = \"data/valid.bin\"\n"
            "[checkpoint]\nevery = 20\n[run]\nthreads = 1\n");
    }
    void TearDown() override { std::filesystem::remove_all(folder_); }

    std::string path(const std::string& name) const { return folder_ + "/" + name; }
    void put(const std::string& name, const std::string& bytes) const {
        std::ofstream(path(name), std::ios::binary) << bytes;
    }

    // Runs PROGRAM run.toml ARGUMENTS in the folder; returns its exit code and keeps both outputs.
    // `before` are shell commands of the same process. Threads that wait sleep, so that more of
    // them than free cores do not take turns spinning.
    int train(const std::string& arguments = "", const std::string& before = "true") {
        return run("plumb-train", arguments, before);
    }
    int plan(const std::string& arguments = "") { return run("plumb-plan", arguments, "true"); }
    int run(const std::string& program, const std::string& arguments, const std::string& before) {
        return run_in("bin", program, arguments, before);
    }
    // `programs` is a folder of the build's.
    int run_in(const std::string& programs, const std::string& program,
               const std::string& arguments, const std::string& before) {
        const std::string command = "cd " + folder_ + " && export OMP_WAIT_POLICY=passive; " +
                                    before + "; exec " + testing::in_build_folder(programs) + "/" +
                                    program + " run.toml " + arguments +
                                    " >stdout.txt 2>stderr.txt";
        const int status = std::system(command.c_str());
        output_ = contents_of(path("stdout.txt"));
        error_ = contents_of(path("stderr.txt"));
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    }

    // All objects of log.jsonl in a checkpoint folder that have `key`.
    std::vector<nlohmann::json> log(const std::string& key, const std::string& run = "run") const {
        std::vector<nlohmann::json> lines;
        std::ifstream file(path(run + "/log.jsonl"));
        for (std::string text; std::getline(file, text);) {
            nlohmann::json line = nlohmann::json::parse(text);
            if (line.contains(key)) lines.push_back(std::move(line));
        }
        return lines;
    }
    // State digests as "step digest".
    std::vector<std::string> digests(const std::string& run = "run") const {
        std::vector<std::string> all;
        for (const auto& line : log("state_digest", run))
            all.push_back(line["step"].dump() + " " + line["state_digest"].get<std::string>());
        return all;
    }
    // Names of the step directories, in order.
    std::vector<std::string> checkpoints(const std::string& run = "run") const {
        std::vector<std::string> names;
        for (const auto& entry : std::filesystem::directory_iterator(path(run)))
            if (entry.is_directory()) names.push_back(entry.path().filename());
        std::sort(names.begin(), names.end());
        return names;
    }

    std::string folder_, output_, error_;
};

}  // namespace plumb
