// Power fails, or the process dies, at any moment. Whatever then looks like a checkpoint must be
// one, and nothing that was reported may be lost; see crash_campaign.h. The same search must find
// the loss when the disk ignores any kind of sync: that is the proof that it searches.
#include <gtest/gtest.h>

#include "tests/formats/crash_campaign.h"
#include "tests/formats/simulated_disk.h"

namespace plumb {
namespace {

std::string text_of(const CampaignResult& result) {
    std::string text;
    for (const std::string& violation : result.first_violations) text += violation + "\n";
    return text;
}

TEST(Crash, AtAnyMomentEveryCheckpointIsWholeAndNoneThatWasReportedIsLost) {
    CampaignRequest request;
    request.states = 10000;
    const CampaignResult result = explore_crashes(request);
    EXPECT_EQ(result.states, request.states);
    EXPECT_EQ(result.violations, 0) << text_of(result);
    EXPECT_GT(result.operations, 100);
    EXPECT_GT(result.with_unfinished, 10);
}

TEST(Crash, ADiskThatIgnoresAnyKindOfSyncIsFoundToLoseCheckpoints) {
    const auto ends_with = [](const std::string& path, const std::string& end) {
        return path.size() >= end.size() &&
               path.compare(path.size() - end.size(), end.size(), end) == 0;
    };
    const struct {
        const char* what;
        std::function<bool(const std::string&)> loses_sync;
    } lies[] = {
        {"everything", [](const std::string&) { return true; }},
        {"data files", [&](const std::string& path) { return ends_with(path, ".pck"); }},
        {"MANIFEST", [&](const std::string& path) { return ends_with(path, "MANIFEST.tmp"); }},
        {"the folder", [&](const std::string& path) { return ends_with(path, "/run"); }},
        {"step directories",
         [](const std::string& path) { return path.find("/step-") == path.rfind('/'); }},
    };
    for (const auto& lie : lies) {
        CampaignRequest request;
        request.states = 1500;
        request.loses_sync = lie.loses_sync;
        EXPECT_GT(explore_crashes(request).violations, 0) << lie.what;
    }
}

TEST(Crash, FoldersMadeAreThereAfterwards) {
    SimulatedDisk disk;
    const char path[] = "/disk//a/b///c/";
    ASSERT_TRUE(make_directories(disk.layer(), path).ok());
    const std::vector<std::string> made = {"/disk/a/b/c"};
    EXPECT_EQ(disk.now().paths(), made);
    uint64_t choices = 0;
    for (uint64_t seed = 0; seed < 24; ++seed)
        EXPECT_EQ(disk.power_failure(disk.operations(), seed, &choices).paths(), made);
}

// Also those that a process made which then died, at any place.
TEST(Crash, FoldersFoundAreThereAfterwards) {
    SimulatedDisk first;
    const char path[] = "/disk/a/b";
    ASSERT_TRUE(make_directories(first.layer(), path).ok());
    for (size_t end = 0; end <= first.operations(); ++end) {
        SimulatedDisk disk;
        disk.restart_from(first, end);
        ASSERT_TRUE(make_directories(disk.layer(), path).ok());
        uint64_t choices = 0;
        for (uint64_t seed = 0; seed < 24; ++seed)
            EXPECT_EQ(disk.power_failure(disk.operations(), seed, &choices).paths(),
                      first.now().paths())
                << end;
    }
}

}  // namespace
}  // namespace plumb
