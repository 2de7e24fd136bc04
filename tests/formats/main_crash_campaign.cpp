// crash_campaign STATES [SEED]: explores that many crash states and prints what it found; exit 1
// when a checkpoint was lost. The test of formats/ explores 10,000 in every build. Path: cold.
#include <fmt/format.h>

#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstring>

#include "runtime/base/error.h"
#include "tests/formats/crash_campaign.h"

namespace plumb {
namespace {

int64_t whole_number(const char* what, const char* text) {
    int64_t value = 0;
    const char* end = text + std::strlen(text);
    if (const auto read = std::from_chars(text, end, value);
        read.ec != std::errc() || read.ptr != end || value < 1)
        throw Error(ExitCode::bad_input,
                    fmt::format("{} is \"{}\"; it must be a whole number, 1 or more", what, text));
    return value;
}

int run(int argc, char** argv) {
    if (argc != 2 && argc != 3)
        throw Error(ExitCode::bad_input, "usage: crash_campaign STATES [SEED]");
    CampaignRequest request;
    request.states = whole_number("STATES", argv[1]);
    if (argc == 3) request.seed = static_cast<uint64_t>(whole_number("SEED", argv[2]));
    const auto begin = std::chrono::steady_clock::now();
    const auto seconds = [&] {
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    };
    request.progress = [&](int64_t done) {
        fmt::print("{} states, {:.0f} s\n", done, seconds());
        std::fflush(stdout);
    };
    const CampaignResult result = explore_crashes(request);
    for (const std::string& violation : result.first_violations) print_error(violation.c_str());
    fmt::print(
        "crash campaign: {} different states, seed {}, after every one of {} operations; {} "
        "unfinished saves survived whole; {} violations; {:.0f} s\n",
        result.states, request.seed, result.operations, result.with_unfinished, result.violations,
        seconds());
    if (result.states < request.states)
        fmt::print("there are not more different states than these\n");
    return result.violations == 0 ? 0 : 1;
}

}  // namespace
}  // namespace plumb

int main(int argc, char** argv) {
    return plumb::run_main([&] { return plumb::run(argc, argv); });
}
