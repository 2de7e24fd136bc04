#include "formats/checkpoint_folder.h"

#include <gtest/gtest.h>

#include "tests/formats/checkpoint_fixture.h"

namespace plumb {
namespace {

namespace fs = std::filesystem;

std::vector<int64_t> steps_in(const std::string& folder) {
    std::vector<int64_t> steps;
    for (const StepEntry& entry : find_steps(folder)) steps.push_back(entry.step);
    return steps;
}

struct Folder : ::testing::Test {
    TemporaryFolder folder;
    State state = small_state();
    Saver saver{state};
    const FileLayer& files = posix_files();
    const char* path = folder.path().c_str();

    // Saves a step and returns its directory.
    std::string save(int64_t step) {
        const Status status = saver.save(folder.path(), step);
        EXPECT_TRUE(status.ok()) << status.message;
        return saver.step_directory;
    }
    int keep(int count, int64_t keep_every = 0) {
        int removed = 0;
        const Status status = keep_newest(files, path, state.run, count, keep_every, &removed);
        EXPECT_TRUE(status.ok()) << status.message;
        return removed;
    }
    int clean() {
        int removed = 0;
        const Status status = remove_uncommitted(files, path, state.run, &removed);
        EXPECT_TRUE(status.ok()) << status.message;
        return removed;
    }
};

TEST_F(Folder, StepNamesParseOnlyInTheirCanonicalForm) {
    int64_t step = 0;
    uint32_t id = 0;
    EXPECT_TRUE(parse_step_name("step-000000000050-1a2b3c4d", &step, &id));
    EXPECT_EQ(step, 50);
    EXPECT_EQ(id, 0x1A2B3C4Du);
    for (const char* name : {"step-50-1a2b3c4d", "step-000000000050-1A2B3C4D", "LATEST",
                             "step-000000000050-1a2b3c4d.bak", "step-000000000050-1a2b3c4",
                             "step--00000000050-1a2b3c4d", "step-000000000050"})
        EXPECT_FALSE(parse_step_name(name, &step, &id)) << name;
    const FileName wide = step_directory_name(123456789012345, 1);
    EXPECT_TRUE(parse_step_name(wide.text, &step, &id));
    EXPECT_EQ(step, 123456789012345);
}

TEST_F(Folder, TheNewestAreKeptAndEveryMth) {
    for (const int64_t step : {100, 10, 30, 20, 60, 40}) save(step);
    EXPECT_EQ(keep(6), 0);
    EXPECT_EQ(keep(3, 20), 2);
    EXPECT_EQ(steps_in(folder.path()), (std::vector<int64_t>{100, 60, 40, 20}));
    EXPECT_EQ(keep(2), 2);
    EXPECT_EQ(steps_in(folder.path()), (std::vector<int64_t>{100, 60}));
}

TEST_F(Folder, OfOneStepTheLaterSaveIsNewer) {
    save(10);
    const std::string second = save(10);
    save(5);
    EXPECT_EQ(folder.path() + "/" + find_steps(folder.path()).front().name, second);
    keep(2);
    EXPECT_EQ(steps_in(folder.path()), (std::vector<int64_t>{10, 10}));
}

TEST_F(Folder, OtherRunsDamagedStepsAndForeignNamesStay) {
    for (const int64_t step : {1, 2, 3}) save(step);
    State foreign = small_state();
    foreign.run.byte[0] = 99;
    ASSERT_TRUE(Saver(foreign).save(folder.path(), 1).ok());
    const std::string damaged = save(0);
    write_bytes(damaged + "/MANIFEST", std::vector<uint8_t>(600, 7));
    fs::create_directory(folder.path() + "/step-notes");
    write_bytes(folder.path() + "/log.jsonl", {'x'});
    EXPECT_EQ(keep(2), 1);
    EXPECT_EQ(steps_in(folder.path()), (std::vector<int64_t>{3, 2, 1, 0}));
    EXPECT_EQ(clean(), 0);
    EXPECT_TRUE(fs::exists(folder.path() + "/step-notes"));
    EXPECT_TRUE(fs::exists(folder.path() + "/log.jsonl"));
}

TEST_F(Folder, ADamagedCheckpointDoesNotCountAsKept) {
    for (const int64_t step : {1, 2, 3}) save(step);
    fs::resize_file(saver.step_directory + "/MANIFEST", 100);
    EXPECT_EQ(keep(2), 0);
    EXPECT_EQ(steps_in(folder.path()), (std::vector<int64_t>{3, 2, 1}));
}

TEST_F(Folder, StartUpRemovesOnlyWhatThisRunDidNotCommit) {
    save(1);
    const std::string ours = save(2);
    fs::rename(ours + "/MANIFEST", ours + "/MANIFEST.tmp");
    State foreign = small_state();
    foreign.run.byte[0] = 99;
    Saver other(foreign);
    ASSERT_TRUE(other.save(folder.path(), 3).ok());
    fs::remove(other.step_directory + "/MANIFEST");
    // Crashed before the header was on disk: reserved, but nobody's.
    const std::string nobody = folder.path() + "/step-000000000004-00000001";
    fs::create_directory(nobody);
    write_bytes(nobody + "/data-00000.pck", std::vector<uint8_t>(10000, 0));
    fs::create_directory(folder.path() + "/step-000000000005-00000001");
    EXPECT_EQ(clean(), 3);
    EXPECT_EQ(steps_in(folder.path()), (std::vector<int64_t>{1}));
    EXPECT_FALSE(fs::exists(ours));
    EXPECT_TRUE(fs::exists(other.step_directory + "/data-00000.pck"));
}

TEST_F(Folder, RemovalTakesTheManifestFirst) {
    for (int64_t n = 0;; ++n) {
        const std::string directory = save(7);
        FaultyFiles faulty;
        faulty.fault_at = n;
        faulty.for_ever = true;
        const std::string name = directory.substr(folder.path().size() + 1);
        const Status status = remove_step(faulty.layer, path, name.c_str());
        if (status.ok()) {
            EXPECT_GT(n, 5);
            break;
        }
        // Either nothing has happened yet, or it is no checkpoint any more.
        if (fs::exists(directory + "/MANIFEST")) {
            CheckpointReader reader(directory);
            expect_holds(reader, state);
            ASSERT_TRUE(remove_step(files, path, name.c_str()).ok());
        } else {
            clean();
        }
        EXPECT_FALSE(fs::exists(directory));
    }
}

TEST_F(Folder, AnUnreadableFolderIsAnErrorNotAnEmptyOne) {
    int removed = 0;
    EXPECT_EQ(remove_uncommitted(files, "/nonexistent/folder", state.run, &removed).code,
              StatusCode::io);
    FaultyFiles faulty;
    faulty.fault_at = 1;  // getdents
    EXPECT_THROW(find_steps(folder.path(), faulty.layer), CheckpointDamage);
}

}  // namespace
}  // namespace plumb
