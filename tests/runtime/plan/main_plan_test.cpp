// Runs plumb-plan as a user would.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "runtime/base/types.h"
#include "runtime/config/presets.h"

namespace plumb {
namespace {

struct Outcome {
    int code = -1;
    std::string output;  // stdout, or with "2>&1" in the arguments both
};

Outcome run_plan(const std::string& arguments, const std::string& before = "true") {
    const std::string command = before + "; exec " PLUMB_BIN_DIR "/plumb-plan " + arguments;
    Outcome outcome;
    FILE* pipe = popen(command.c_str(), "r");
    if (pipe == nullptr) return outcome;
    char text[4096];
    for (size_t got; (got = fread(text, 1, sizeof text, pipe)) > 0;)
        outcome.output.append(text, got);
    const int status = pclose(pipe);
    outcome.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    return outcome;
}

nlohmann::json plan_json(const std::string& arguments) {
    const Outcome outcome = run_plan(arguments + " --json");
    EXPECT_EQ(outcome.code, 0) << arguments;
    return nlohmann::json::parse(outcome.output);
}

constexpr const char* kDevice = " --run.device=cpu-avx512 --run.threads=2 ";
// Computes in bf16 unless told otherwise.
constexpr const char* kBf16Device = " --run.device=cpu-avx512_bf16 --run.threads=2 ";

constexpr const char* kCudaDevice = " --run.device=cuda-sm90 ";

// Bytes of each arena in use, total and both bounds: one line of the golden file.
std::string golden_line(const std::string& preset, const std::string& program, const char* device) {
    const auto json = plan_json(preset + device + "--program " + program);
    const auto& rank = json.at("ranks").at(0);
    std::ostringstream line;
    line << preset << ' ' << program
         << (device == kBf16Device   ? " bf16"
             : device == kCudaDevice ? " cuda-sm90"
                                     : "");
    int64_t sum = 0;
    for (const auto& [arena, value] : rank.at("arenas").items()) {
        const int64_t bytes = value.get<int64_t>();
        sum += bytes;
        if (bytes > 0) line << ' ' << arena << '=' << bytes;
    }
    const int64_t total = rank.at("total_bytes").get<int64_t>();
    const int64_t bound = rank.at("lower_bound_bytes").get<int64_t>();
    const int64_t unrolled = rank.at("lower_bound_unrolled_bytes").get<int64_t>();
    EXPECT_EQ(sum, total) << preset;
    EXPECT_GE(total, bound) << preset;
    EXPECT_GE(bound, unrolled) << preset;
    // The structure of a training step lets the packer do its work perfectly, or nearly.
    EXPECT_LE(total - bound, bound / 1000) << preset;
    line << " total=" << total << " slots=" << bound << " unrolled=" << unrolled;
    return line.str() + "\n";
}

// Every preset's bytes on one fixed device, and some on one of bf16: what changes them shows up in
// review.
TEST(PlumbPlan, BytesOfEveryPreset) {
    std::string now;
    for (const Preset& preset : presets())
        for (const char* program : {"train", "generate"})
            now += golden_line(preset.name, program, kDevice);
    for (const char* preset : {"tiny", "gpt2-124m", "llama3-8b"})
        for (const char* program : {"train", "generate"}) {
            now += golden_line(preset, program, kBf16Device);
            now += golden_line(preset, program, kCudaDevice);
        }
    const std::string path = PLUMB_SOURCE_DIR "/tests/runtime/plan/golden_plans.txt";
    std::ifstream file(path);
    std::stringstream golden;
    golden << file.rdbuf();
    const std::string written = testing::TempDir() + "golden_plans.txt";
    if (now != golden.str()) std::ofstream(written) << now;
    EXPECT_EQ(now, golden.str()) << "if the change is meant: cp " << written << " " << path;
}

TEST(PlumbPlan, FitsToTheByte) {
    const auto json = plan_json(std::string("tiny") + kDevice);
    EXPECT_EQ(json.at("fits"), true);
    const auto& rank = json.at("ranks").at(0);
    const int64_t needed =
        rank.at("total_bytes").get<int64_t>() + rank.at("outside_bytes").get<int64_t>();
    const std::string tiny = std::string("tiny") + kDevice + "--memory ";
    EXPECT_EQ(run_plan(tiny + std::to_string(needed)).code, 0);
    const Outcome over = run_plan(tiny + std::to_string(needed - 1));
    EXPECT_EQ(over.code, 3);
    EXPECT_NE(over.output.find("does not fit"), std::string::npos) << over.output;
    const Outcome over_json = run_plan(tiny + std::to_string(needed - 1) + " --json");
    EXPECT_EQ(over_json.code, 3);
    EXPECT_EQ(nlohmann::json::parse(over_json.output).at("fits"), false);
    // The setting means the same as the flag.
    EXPECT_EQ(run_plan(std::string("tiny --run.memory=1MiB") + kDevice).code, 3);
}

// What a GPU has to hold stands apart from what lies on the host beside it, and is what has to fit.
TEST(PlumbPlan, APlanForAGpuFitsItsMemoryToTheByte) {
    const std::string tiny = "tiny --run.device=cuda-sm90 ";
    const auto json = plan_json(tiny);
    const auto& rank = json.at("ranks").at(0);
    int64_t gpu = rank.at("total_bytes").get<int64_t>(), host = 0;
    const auto staging = rank.at("arenas").at("staging").get<int64_t>();
    EXPECT_GT(staging, 0);
    gpu -= staging;
    host += staging;
    for (const auto& row : rank.at("outside"))
        (row.at("space") == "gpu" ? gpu : host) += row.at("bytes").get<int64_t>();
    EXPECT_EQ(rank.at("space_bytes").at("gpu").get<int64_t>(), gpu);
    EXPECT_EQ(rank.at("space_bytes").at("host").get<int64_t>(), host);
    EXPECT_EQ(run_plan(tiny + "--memory " + std::to_string(gpu)).code, 0);
    const Outcome over = run_plan(tiny + "--memory " + std::to_string(gpu - 1));
    EXPECT_EQ(over.code, 3);
    EXPECT_EQ(over.output.find("checkpoint.chunk_bytes"), std::string::npos)
        << "host memory is no advice for a GPU\n"
        << over.output;
    EXPECT_FALSE(plan_json(std::string("tiny") + kDevice)
                     .at("ranks")
                     .at(0)
                     .at("space_bytes")
                     .contains("gpu"));
}

// The advice printed is a setting that plumb-plan takes, and with it the plan fits, to the byte.
TEST(PlumbPlan, AdviceThatFitsFits) {
    const std::string run = std::string("llama3-8b") + kDevice + "--memory 200GiB";
    const Outcome outcome = run_plan(run + " --json");
    EXPECT_EQ(outcome.code, 3);
    int fitting = 0;
    const auto advised = nlohmann::json::parse(outcome.output);
    for (const auto& change : advised.at("changes")) {
        const std::string setting = change.at("setting");
        const Outcome changed = run_plan(run + " " + setting + " --json");
        EXPECT_EQ(changed.code, change.at("fits").get<bool>() ? 0 : 3) << setting;
        fitting += change.at("fits").get<bool>() ? 1 : 0;
        const auto rank = nlohmann::json::parse(changed.output).at("ranks").at(0);
        EXPECT_EQ(rank.at("total_bytes").get<int64_t>() + rank.at("outside_bytes").get<int64_t>(),
                  change.at("needed_bytes").get<int64_t>())
            << setting;
    }
    EXPECT_GE(fitting, 3);
    const std::string text = run_plan(run).output;
    EXPECT_NE(text.find("--layout.recompute=block:1 "), std::string::npos) << text;
    EXPECT_EQ(text.find("no single change"), std::string::npos) << text;
    const Outcome hopeless = run_plan(std::string("tiny --memory 1MiB") + kDevice);
    EXPECT_EQ(hopeless.code, 3);
    EXPECT_NE(hopeless.output.find("no single change fits; the best, --"), std::string::npos)
        << hopeless.output;
    EXPECT_TRUE(plan_json(std::string("tiny") + kDevice).at("changes").empty());
}

// So do two settings where a single one would mean another training.
TEST(PlumbPlan, APairThatFitsFits) {
    const std::string run = std::string("gpt2-124m") + kBf16Device + "--memory 2GiB";
    const auto advised = nlohmann::json::parse(run_plan(run + " --json").output);
    EXPECT_EQ(advised.at("changes").at(0).at("setting"), "--batch.sequence_length=64");
    const auto& pair = advised.at("pair");
    const std::string first = pair.at("settings").at(0), second = pair.at("settings").at(1);
    const Outcome changed = run_plan(run + " " + first + " " + second + " --json");
    EXPECT_EQ(changed.code, 0);
    const auto rank = nlohmann::json::parse(changed.output).at("ranks").at(0);
    EXPECT_EQ(rank.at("total_bytes").get<int64_t>() + rank.at("outside_bytes").get<int64_t>(),
              pair.at("needed_bytes").get<int64_t>());
    EXPECT_EQ(run_plan(run + " " + first).code, 3);
    EXPECT_EQ(run_plan(run + " " + second).code, 3);
    const std::string text = run_plan(run).output;
    EXPECT_NE(text.find("  fits with " + first + " " + second + ": needs "), std::string::npos)
        << text;
}

TEST(PlumbPlan, EachKindOfRecomputationIsPlanned) {
    const auto json = plan_json(std::string("gpt2-124m") + kDevice);
    int64_t none = 0;
    for (const auto& row : json.at("recompute")) {
        const std::string kind = row.at("recompute");
        const auto planned =
            plan_json("gpt2-124m" + std::string(kDevice) + "--layout.recompute=" + kind);
        const auto& rank = planned.at("ranks").at(0);
        EXPECT_EQ(row.at("stash_bytes"), rank.at("arenas").at("stash")) << kind;
        EXPECT_EQ(row.at("total_bytes"), rank.at("total_bytes")) << kind;
        if (kind == "none")
            none = rank.at("total_bytes").get<int64_t>();
        else
            EXPECT_LT(rank.at("total_bytes").get<int64_t>(), none) << kind;
    }
    EXPECT_EQ(json.at("recompute").size(), 7u);
    EXPECT_TRUE(
        plan_json("gpt2-124m --program generate" + std::string(kDevice)).at("recompute").empty());
}

TEST(PlumbPlan, RecomputeTakesLessAndExactReductionMore) {
    const auto total = [](const std::string& settings) {
        return plan_json("gpt2-124m " + settings + kDevice)
            .at("ranks")
            .at(0)
            .at("total_bytes")
            .get<int64_t>();
    };
    EXPECT_LT(total("--layout.recompute=block:1"), total("") / 2 + total("") / 4);
    EXPECT_GT(total("--layout.reduction=exact"), total(""));
}

TEST(PlumbPlan, DigestSeesSettingsThatChangeBytes) {
    const auto digest = [](const std::string& settings) {
        return plan_json("tiny --run.device=cpu-avx2 " + settings).at("digest").get<std::string>();
    };
    EXPECT_EQ(digest("--run.threads=2"), digest("--run.threads=2 --run.memory=1TiB"));
    EXPECT_NE(digest("--run.threads=2"), digest("--run.threads=3"));
    EXPECT_NE(digest("--run.threads=2"), digest("--run.threads=2 --batch.micro_batch=2"));
}

TEST(PlumbPlan, ListingShowsEveryOpWithAddresses) {
    const Outcome outcome = run_plan(std::string("tiny --listing") + kDevice);
    EXPECT_EQ(outcome.code, 0);
    for (const char* part : {"section forward", "section backward", "@weights+",
                             "@slot[forward_backward]+", "@io_row+", "@scratch+"})
        EXPECT_NE(outcome.output.find(part), std::string::npos) << part;
}

// A GPU of the machine is not shown to the program.
constexpr const char* kNoGpu = "export CUDA_VISIBLE_DEVICES=";

TEST(PlumbPlan, BadInput) {
    const std::pair<const char*, const char*> cases[] = {
        {"", "NAME|FILE"},
        {"tinny", "tiny"},
        {"tiny --memory lots", "lots"},
        {"tiny --program serve", "serve"},
        {"tiny --batch.micro_batch=0", "batch.micro_batch"},
        {"tiny --batch.micro_bach=1", "batch.micro_batch"},
        {"tiny --run.device=abacus",
         "unknown device \"abacus\"; known are cpu, cuda, cpu-portable, cpu-avx2, "
         "cpu-avx512, cpu-avx512_bf16, cuda-sm80 and cuda-sm90"},
        {"tiny --run.device=cuda",
         "; to plan for a GPU on a machine without one, name it: cuda-sm80 or cuda-sm90\n"},
        {"tiny --json --listing", "--listing"},
    };
    for (const auto& [arguments, part] : cases) {
        const Outcome outcome = run_plan(std::string(arguments) + " 2>&1 >/dev/null", kNoGpu);
        EXPECT_EQ(outcome.code, 2) << arguments;
        EXPECT_EQ(outcome.output.rfind("error: ", 0), 0u) << outcome.output;
        EXPECT_NE(outcome.output.find(part), std::string::npos) << outcome.output;
    }
}

TEST(PlumbPlan, HelpListsPresetsAndSettings) {
    const Outcome outcome = run_plan("--help");
    EXPECT_EQ(outcome.code, 0);
    for (const Preset& preset : presets())
        EXPECT_NE(outcome.output.find(preset.name), std::string::npos) << preset.name;
    EXPECT_NE(outcome.output.find("--layout.recompute"), std::string::npos);
}

#ifndef PLUMB_SANITIZE
// Terabytes are planned in 256 MiB of address space, as is every preset.
TEST(PlumbPlan, PlansWhatThisMachineDoesNotHave) {
    int64_t largest = 0;
    for (const Preset& preset : presets()) {
        const Outcome outcome =
            run_plan(std::string(preset.name) + " --json" + kDevice, "ulimit -v 262144");
        ASSERT_EQ(outcome.code, 0) << preset.name;
        const auto json = nlohmann::json::parse(outcome.output);
        largest = std::max(largest, json.at("ranks").at(0).at("total_bytes").get<int64_t>());
    }
    EXPECT_GT(largest, 2'700'000'000'000);
}
#endif

}  // namespace
}  // namespace plumb
