// Saving, resuming and retention as a training does them: what is damaged, whose folder it is, and
// what a checkpoint must have in common with the run that loads it.
#include "runtime/engine/state_io.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <functional>

#include "runtime/engine/numerics.h"
#include "tests/formats/checkpoint_fixture.h"
#include "tests/infer/small_checkpoint.h"

namespace plumb {
namespace {

namespace fs = std::filesystem;

struct StateIoTest : ::testing::Test {
    TemporaryFolder temporary;
    std::string folder = temporary.path() + "/run";
    RunConfig config = small_config(ModelType::gpt2, 64, 16, folder);

    // Saves the initial weights as each of `steps`, by one run.
    void save(const std::vector<int64_t>& steps) {
        Session session(config, Purpose::train);
        session.run_phase(PhaseKind::initialise);
        StateIo state(session);
        state.prepare_folder();
        for (const int64_t step : steps) save_step(state, step);
    }
    static std::string save_step(StateIo& state, int64_t step) {
        RunRecord record;
        record.step = step;
        SaveReport report;
        const Status status = state.save(record, &report);
        EXPECT_TRUE(status.ok()) << status.message;
        return report.directory.text;
    }
    std::string step_path(int64_t step) const {
        for (const StepEntry& entry : find_steps(folder))
            if (entry.step == step) return folder + "/" + entry.name;
        ADD_FAILURE() << "no step " << step;
        return "";
    }
    std::vector<int64_t> steps() const {
        std::vector<int64_t> found;
        for (const StepEntry& entry : find_steps(folder)) found.push_back(entry.step);
        return found;
    }
    // Flips a bit of the first chunk, which only reading tensors finds: of a param, which inference
    // reads too.
    std::string damage(int64_t step) const {
        const std::string path = step_path(step);
        const std::string data = path + "/data-00000.pck";
        std::vector<uint8_t> bytes = read_bytes(data);
        DataHeader header;
        std::memcpy(&header, bytes.data(), sizeof header);
        const size_t first =
            sizeof header + static_cast<size_t>(header.tensor_count) * sizeof(TensorRecord);
        bytes[first + 16] ^= 1;
        write_bytes(data, bytes);
        return path;
    }
    static std::string renamed(const std::string& path) {
        return fs::path(path).parent_path() / ("damaged-" + fs::path(path).filename().string());
    }
};

std::string error_of(ExitCode code, const std::function<void()>& body) {
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

TEST_F(StateIoTest, WhatWasFoundDamagedIsNotAmongTheKept) {
    save({40, 55});
    const std::string damaged = damage(55);
    Session session(config, Purpose::train);
    StateIo state(session);
    state.prepare_folder();
    const LoadReport report = state.load(folder);
    ASSERT_TRUE(report.found);
    EXPECT_EQ(report.record.step, 40);
    ASSERT_EQ(report.notes.size(), 1u);
    EXPECT_HAS(report.notes[0], "passed over " + damaged);
    EXPECT_HAS(report.notes[0], "it is now " + renamed(damaged));
    EXPECT_TRUE(fs::exists(renamed(damaged) + "/MANIFEST")) << "can be looked at";
    save_step(state, 56);
    int removed = -1;
    ASSERT_TRUE(state.prune(&removed).ok());
    EXPECT_EQ(removed, 0);
    EXPECT_EQ(steps(), (std::vector<int64_t>{56, 40}));
    EXPECT_EQ(state.load(step_path(40)).digest, report.digest) << "the good one is still good";
    save_step(state, 57);
    ASSERT_TRUE(state.prune(&removed).ok());
    EXPECT_EQ(steps(), (std::vector<int64_t>{57, 56})) << "not kept for ever";
}

TEST_F(StateIoTest, TheDigestMadeOnTheWayIsThatOfTheOps) {
    for (const int64_t chunk_bytes : {int64_t{64}, int64_t{4096}, kChunkBytesDefault}) {
        config.run.checkpoint.chunk_bytes = chunk_bytes;
        Session session(config, Purpose::train);
        session.run_phase(PhaseKind::initialise);
        for (const Unit& unit : session.program().units)  // moments that are not all zero
            for (int64_t i = 0; i < unit.elements; ++i)
                session.executor().data<float>(unit.moment1)[i] = 0.1f * static_cast<float>(i % 7);
        StateIo state(session);
        state.prepare_folder();
        SaveReport report;
        ASSERT_TRUE(state.save({}, &report).ok());
        EXPECT_EQ(to_hex(report.digest), to_hex(state.digest())) << chunk_bytes;
    }
}

TEST_F(StateIoTest, MultiplesOfKeepEveryStay) {
    config.run.checkpoint.keep_every = 20;
    Session session(config, Purpose::train);
    session.run_phase(PhaseKind::initialise);
    StateIo state(session);
    state.prepare_folder();
    for (const int64_t step : {10, 20, 30, 40, 50, 60, 70}) {
        save_step(state, step);
        int removed = 0;
        ASSERT_TRUE(state.prune(&removed).ok());
    }
    EXPECT_EQ(steps(), (std::vector<int64_t>{70, 60, 40, 20}));
}

TEST_F(StateIoTest, WhatCannotBeRenamedIsKeptBesideTheOthers) {
    save({40, 55});
    const std::string damaged = damage(55);
    fs::create_directories(renamed(damaged) + "/in the way");
    Session session(config, Purpose::train);
    StateIo state(session);
    state.prepare_folder();
    const LoadReport report = state.load(folder);
    ASSERT_EQ(report.notes.size(), 1u);
    EXPECT_HAS(report.notes[0], "cannot rename " + damaged);
    save_step(state, 56);
    int removed = -1;
    ASSERT_TRUE(state.prune(&removed).ok());
    EXPECT_EQ(steps(), (std::vector<int64_t>{56, 55, 40}));
}

TEST_F(StateIoTest, AReaderWithoutTheFolderRenamesNothing) {
    save({40, 55});
    damage(55);
    Session session(config, Purpose::generate);
    StateIo state(session);
    const LoadReport report = state.load(folder);
    EXPECT_EQ(report.record.step, 40);
    EXPECT_EQ(report.notes.size(), 1u);
    EXPECT_EQ(steps(), (std::vector<int64_t>{55, 40}));
    RunConfig other = config;
    other.run.checkpoint.dir = temporary.path() + "/other";
    Session training(other, Purpose::train);
    StateIo elsewhere(training);
    elsewhere.prepare_folder();
    EXPECT_EQ(elsewhere.load(folder).record.step, 40);
    EXPECT_EQ(steps(), (std::vector<int64_t>{55, 40})) << "another run's folder";
}

// Else the second start would find no checkpoint and begin anew.
TEST_F(StateIoTest, WhenAllAreDamagedAllKeepTheirNames) {
    save({40, 55});
    damage(40);
    const std::string newest = damage(55);
    Session session(config, Purpose::train);
    StateIo state(session);
    state.prepare_folder();
    for (int start = 0; start < 2; ++start) {
        const std::string text = error_of(ExitCode::io, [&] { state.load(folder); });
        EXPECT_HAS(text, "none of its 2 checkpoints can be read; the newest: " + newest);
    }
}

TEST_F(StateIoTest, AFolderHasOneTraining) {
    save({40});
    Session session(config, Purpose::train);
    const std::string unfinished = folder + "/step-000000000041-00000001";
    {
        StateIo first(session);
        first.prepare_folder();
        fs::create_directory(unfinished);
        StateIo second(session);
        const std::string text = error_of(ExitCode::bad_input, [&] { second.prepare_folder(); });
        EXPECT_HAS(text, "checkpoint.dir: " + folder + " is in use");
        EXPECT_TRUE(fs::exists(unfinished)) << "the first's save in progress";
        EXPECT_EQ(second.load(folder).record.step, 40) << "reading needs no lock";
    }
    StateIo third(session);
    third.prepare_folder();
    third.remove_unfinished();
    EXPECT_FALSE(fs::exists(unfinished));
}

TEST_F(StateIoTest, AFolderThatCannotHoldARunIsFoundBeforeIt) {
    write_bytes(temporary.path() + "/file", {'x'});
    const struct {
        std::string folder, part;
    } cases[] = {
        {temporary.path() + "/file", "is a file"},
        {temporary.path() + "/file/run", "Not a directory"},
        {temporary.path() + "/" + std::string(300, 'x'), "File name too long"},
        {temporary.path() + std::string(480, '/') + std::string(480, '/'), "bytes, at most 1023"},
    };
    for (const auto& c : cases) {
        config.run.checkpoint.dir = c.folder;
        Session session(config, Purpose::train);
        StateIo state(session);
        const std::string text = error_of(ExitCode::bad_input, [&] { state.prepare_folder(); });
        EXPECT_HAS(text, "checkpoint.dir: ");
        EXPECT_HAS(text, c.part);
    }
    // The longest folder that is taken can be saved to.
    config.run.checkpoint.dir = temporary.path() + "/";
    const auto room =
        static_cast<size_t>(kPathBytesMax - 1 - 49) - config.run.checkpoint.dir.size();
    for (size_t i = 0; i < room; ++i)
        config.run.checkpoint.dir += i % 100 == 99 && i + 1 < room ? '/' : 'x';
    Session session(config, Purpose::train);
    session.run_phase(PhaseKind::initialise);
    StateIo state(session);
    state.prepare_folder();
    save_step(state, std::numeric_limits<int64_t>::max());
}

// Replaces the model hash in a checkpoint's two records and the hashes over them, as a program that
// hashes the same settings otherwise would have written them.
void set_model_hash(const std::string& step, Hash128 model_hash) {
    change_header<ManifestHeader>(
        step + "/MANIFEST", [&](ManifestHeader& header) { header.record.model_hash = model_hash; });
    change_header<DataHeader>(step + "/data-00000.pck",
                              [&](DataHeader& header) { header.record.model_hash = model_hash; });
}

// It is whole, so it must neither be passed over nor renamed, nor trained past from below.
TEST_F(StateIoTest, ACheckpointOfAnotherVersionIsRefused) {
    save({40, 55});
    const std::string older_format = step_path(55);
    set_version(older_format, 1);
    Session session(config, Purpose::train);
    StateIo state(session);
    state.prepare_folder();
    const std::string text = error_of(ExitCode::bad_input, [&] { state.load(folder); });
    EXPECT_HAS(text, older_format + "/MANIFEST: format version 1");
    EXPECT_HAS(text, "reads version " + std::to_string(kCheckpointVersion));
    EXPECT_TRUE(fs::exists(older_format)) << "keeps its name";
    EXPECT_HAS(error_of(ExitCode::bad_input, [&] { state.refuse_later_steps(0); }), "of step 55");
}

TEST_F(StateIoTest, RetentionRemovesNoCheckpointOfAnotherVersion) {
    save({10, 20, 40, 55});
    set_version(step_path(20), 1);
    Session session(config, Purpose::train);
    StateIo state(session);
    state.prepare_folder();
    EXPECT_EQ(state.load(folder).record.step, 55) << "whose run these are";
    int removed = -1;
    ASSERT_TRUE(state.prune(&removed).ok());
    EXPECT_EQ(removed, 1) << "step 10";
    EXPECT_EQ(steps(), (std::vector<int64_t>{55, 40, 20}));
}

// Which says nothing of why that older one was tried.
TEST_F(StateIoTest, ARefusalNamesTheDamageThatLedToIt) {
    save({40, 55});
    set_version(step_path(40), 1);
    const std::string damaged = damage(55);
    Session session(config, Purpose::train);
    StateIo state(session);
    state.prepare_folder();
    const std::string text = error_of(ExitCode::bad_input, [&] { state.load(folder); });
    EXPECT_HAS(text, "format version 1");
    EXPECT_HAS(text, "it was tried because of " + damaged + ": ");
    EXPECT_TRUE(fs::exists(damaged)) << "keeps its name";
}

TEST_F(StateIoTest, ModelsAreComparedByTheirSettings) {
    save({40});
    set_model_hash(step_path(40), {1, 2});
    {
        Session session(config, Purpose::train);
        StateIo state(session);
        const LoadReport report = state.load(folder);
        EXPECT_EQ(report.record.step, 40);
        EXPECT_EQ(report.record.model_hash, (Hash128{1, 2})) << "the file was changed";
        EXPECT_TRUE(report.differences.empty());
    }
    config = small_config(ModelType::gpt2, 65, 16, folder);
    set_model_hash(step_path(40), model_hash(config));
    Session session(config, Purpose::train);
    StateIo state(session);
    EXPECT_HAS(error_of(ExitCode::bad_input, [&] { state.load(folder); }),
               "vocab_size: 64 in the checkpoint, 65 now");
}

TEST_F(StateIoTest, OtherNumericsAreALineAndNoError) {
    config.run.batch.global_batch = 2;
    save({40});
    const auto load = [&](Purpose purpose, Hash128* now) {
        Session session(config, purpose);
        *now = numerics_hash(session);
        return StateIo(session).load(folder);
    };
    Hash128 saved, other;
    const LoadReport same = load(Purpose::train, &saved);
    EXPECT_EQ(same.record.numerics_hash, saved);
    EXPECT_TRUE(same.differences.empty()) << same.differences[0];
    config.run.batch.micro_batch = 2;
    const LoadReport changed = load(Purpose::train, &other);
    EXPECT_NE(other, saved);
    EXPECT_EQ(changed.differences, std::vector<std::string>{numerics_difference(saved, other)});
    EXPECT_TRUE(load(Purpose::generate, &other).differences.empty()) << "nothing is trained";
    // A checkpoint from before there was a hash.
    const auto forget = [](auto& header) {
        header.record.numerics_hash = {};
        header.incompatible = 0;
    };
    change_header<ManifestHeader>(step_path(40) + "/MANIFEST", forget);
    change_header<DataHeader>(step_path(40) + "/data-00000.pck", forget);
    const LoadReport old = load(Purpose::train, &other);
    EXPECT_EQ(old.record.step, 40);
    EXPECT_TRUE(old.differences.empty()) << old.differences[0];
}

// Rules about training that became stricter after a save must not keep it from being loaded.
TEST_F(StateIoTest, StoredTrainingSettingsAreNotJudged) {
    config.run.train.steps = 12;
    config.run.train.warmup_steps = 20;  // complete_run would refuse it
    save({3});
    config.run.train.warmup_steps = 5;
    Session session(config, Purpose::train);
    StateIo state(session);
    const LoadReport report = state.load(folder);
    ASSERT_TRUE(report.found);
    EXPECT_EQ(report.differences,
              std::vector<std::string>{"train.warmup_steps: 20 in the checkpoint, 5 now"});
}

TEST_F(StateIoTest, LargerChunksThanPlannedAreRefused) {
    config.run.checkpoint.chunk_bytes = 8192;
    save({40});
    config.run.checkpoint.chunk_bytes = 4096;
    {
        Session session(config, Purpose::train);
        StateIo state(session);
        const std::string text = error_of(ExitCode::does_not_fit, [&] { state.load(folder); });
        EXPECT_HAS(text, step_path(40) + " has chunks of 8192 bytes");
        EXPECT_HAS(text, "checkpoint.chunk_bytes = 4096: set it to 8192");
    }
    config.run.checkpoint.chunk_bytes = 16384;
    Session session(config, Purpose::train);
    StateIo state(session);
    EXPECT_EQ(state.load(folder).record.step, 40);
}

}  // namespace
}  // namespace plumb
