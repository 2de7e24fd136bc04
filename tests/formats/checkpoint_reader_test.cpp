#include "formats/checkpoint_reader.h"

#include <gtest/gtest.h>

#include "tests/formats/checkpoint_fixture.h"

namespace plumb {
namespace {

namespace fs = std::filesystem;

struct Reader : ::testing::Test {
    TemporaryFolder folder;
    State state = small_state();
    Saver saver{state};

    std::string save(int64_t step) {
        const Status status = saver.save(folder.path(), step);
        EXPECT_TRUE(status.ok()) << status.message;
        return saver.step_directory;
    }
    static std::string data_of(const std::string& step) { return step + "/data-00000.pck"; }
    static void flip(const std::string& path, size_t byte) {
        std::vector<uint8_t> bytes = read_bytes(path);
        bytes.at(byte) ^= 0x10;
        write_bytes(path, bytes);
    }
};

TEST_F(Reader, AnyBoxAndAnySpanIsReadWhateverTheChunks) {
    state = State();
    state.chunk_bytes = 132;  // 33 elements: chunks end inside rows and planes
    state.add("param", "w", Dtype::f32, make_shape(5, 6, 7));
    state.fill(4);
    Saver odd(state);
    ASSERT_TRUE(odd.save(folder.path(), 1).ok());
    CheckpointReader reader(odd.step_directory);
    const OwnedStaging staging(reader.staging_bytes());
    const auto* all = reinterpret_cast<const float*>(state.data[0].data());
    const Box whole = whole_box(make_shape(5, 6, 7));
    for (uint64_t i = 0; i < 300; ++i) {
        const Philox4 r = philox(6, i, 0);
        Box box;
        for (int d = 0; d < 3; ++d) {
            box.start[d] = r.word[d] % whole.extent[d];
            box.extent[d] = 1 + (r.word[d] >> 16) % (whole.extent[d] - box.start[d]);
        }
        std::vector<float> expected(static_cast<size_t>(box_elements(box)));
        copy_region(box, whole, all, box, expected.data(), 4);
        std::vector<float> read(expected.size(), -1);
        reader.read_box(0, box, read.data(), staging.spans());
        ASSERT_EQ(read, expected);

        const int64_t first = r.word[3] % 210;
        const int64_t count = (r.word[3] >> 16) % (211 - first);
        std::vector<float> span(static_cast<size_t>(count), -1);
        reader.read_span(0, first, count, span.data(), staging.spans());
        ASSERT_TRUE(std::equal(span.begin(), span.end(), all + first));
    }
    EXPECT_THROW(reader.read_box(0, {{4, 0, 0, 0}, {2, 1, 1, 1}}, nullptr, staging.spans()), Error);
}

TEST_F(Reader, TensorsAreFoundByStreamAndName) {
    const CheckpointReader reader(save(1));
    EXPECT_EQ(reader.find("param", "wte"), 0);
    EXPECT_EQ(reader.find("moment1", "wte"), 1);
    EXPECT_EQ(reader.find("moment2", "wte"), -1);
    EXPECT_EQ(reader.find("param", "wt"), -1);
}

TEST_F(Reader, SmallStagingIsRefusedWithBothNumbers) {
    CheckpointReader reader(save(1));
    const OwnedStaging staging(codec_staging_bytes(1024));
    std::vector<uint8_t> destination(state.data[0].size());
    try {
        reader.read_tensor(0, destination.data(), staging.spans());
        FAIL();
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ExitCode::bad_input);
        EXPECT_NE(std::string(error.what()).find(std::to_string(reader.staging_bytes().total())),
                  std::string::npos);
        EXPECT_NE(std::string(error.what()).find(std::to_string(codec_staging_bytes(1024).total())),
                  std::string::npos);
    }
}

TEST_F(Reader, LoadingFallsBackToTheStepBeforeAndSaysWhy) {
    save(10);
    const std::string chunk_damaged = save(20);
    const std::string manifest_damaged = save(30);
    const std::string truncated = save(40);
    const std::string data_missing = save(50);
    flip(data_of(chunk_damaged), sizeof(DataHeader) + 6 * sizeof(TensorRecord) + 1500);
    flip(manifest_damaged + "/MANIFEST", 700);
    fs::resize_file(data_of(truncated), fs::file_size(data_of(truncated)) - 1);
    fs::remove(data_of(data_missing));

    std::vector<std::string> reasons;
    int64_t loaded = -1;
    const auto load = [&](CheckpointReader& reader) {
        expect_holds(reader, state);
        loaded = reader.record().step;
    };
    const auto skipped = [&](const std::string&, const CheckpointDamage& why) {
        reasons.push_back(why.what());
        EXPECT_TRUE(why.lasting());
    };
    EXPECT_TRUE(load_newest(folder.path(), load, skipped));
    EXPECT_EQ(loaded, 10);
    ASSERT_EQ(reasons.size(), 4u);
    EXPECT_NE(reasons[0].find("data-00000.pck: No such file"), std::string::npos) << reasons[0];
    EXPECT_NE(reasons[1].find("the MANIFEST says"), std::string::npos) << reasons[1];
    EXPECT_NE(reasons[2].find("tensor table"), std::string::npos) << reasons[2];
    EXPECT_NE(reasons[3].find("do not have their stored hash"), std::string::npos) << reasons[3];
    EXPECT_NE(reasons[3].find("at offset"), std::string::npos) << reasons[3];
}

TEST_F(Reader, NoneIsFalseAndOnlyDamagedOnesIsAnError) {
    const auto load = [](CheckpointReader&) { FAIL(); };
    int skips = 0;
    const auto skipped = [&](const std::string&, const CheckpointDamage&) { ++skips; };
    EXPECT_FALSE(load_newest(folder.path(), load, skipped));
    EXPECT_FALSE(load_newest(folder.path() + "/absent", load, skipped));
    fs::resize_file(save(1) + "/MANIFEST", 40);
    try {
        load_newest(folder.path(), load, skipped);
        FAIL();
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ExitCode::io);
        EXPECT_NE(std::string(error.what()).find("none of its 1 checkpoints"), std::string::npos);
    }
    EXPECT_EQ(skips, 1);
}

TEST_F(Reader, ErrorsOfTheCallerAreNotFallenBackFrom) {
    save(1);
    save(2);
    const auto skipped = [](const std::string&, const CheckpointDamage&) { FAIL(); };
    const auto wrong_model = [](CheckpointReader&) {
        throw Error(ExitCode::bad_input, "model differs");
    };
    EXPECT_THROW(load_newest(folder.path(), wrong_model, skipped), Error);
}

// Version 1 stored chunks in another way: to call them damaged would drop what is whole.
TEST_F(Reader, OtherVersionsAreRefusedAndNotFallenBackFrom) {
    save(1);
    const std::string newest = save(2);
    const std::string now = std::to_string(kCheckpointVersion);
    for (const uint32_t version : {1u, kCheckpointVersion + 1}) {
        set_version(newest, version);
        try {
            load_newest(
                folder.path(), [](CheckpointReader&) { FAIL(); },
                [](const std::string&, const CheckpointDamage&) { FAIL(); });
            FAIL();
        } catch (const Error& error) {
            const std::string text = error.what();
            EXPECT_EQ(error.code(), ExitCode::bad_input);
            EXPECT_NE(text.find("format version " + std::to_string(version)), std::string::npos);
            EXPECT_NE(text.find("reads version " + now), std::string::npos) << text;
        }
    }
}

// EMFILE and EACCES come from this process and its user: an older step would be loaded, and trained
// on from, for no fault of the newer one.
TEST_F(Reader, OnlyDamageMissingFilesAndReadErrorsAreFallenBackFrom) {
    save(1);
    save(2);
    for (const int error : {EIO, EACCES, EMFILE, ENOMEM}) {
        int errors = 0;
        int falls = 0;
        for (int64_t n = 0;; ++n) {
            FaultyFiles faulty;
            faulty.fault_at = n;
            faulty.error = error;
            int64_t loaded = 0;
            try {
                EXPECT_TRUE(load_newest(
                    folder.path(),
                    [&](CheckpointReader& reader) {
                        expect_holds(reader, state);
                        loaded = reader.record().step;
                    },
                    [&](const std::string&, const CheckpointDamage& why) {
                        EXPECT_FALSE(why.lasting()) << why.what();
                        ++falls;
                    },
                    faulty.layer));
            } catch (const Error& failed) {
                EXPECT_EQ(failed.code(), ExitCode::io) << failed.what();
                EXPECT_NE(std::string(failed.what()).find("errno"), std::string::npos);
                loaded = -1;
                ++errors;
            }
            EXPECT_TRUE(loaded == 2 || loaded == -1 || (loaded == 1 && error == EIO)) << n;
            if (faulty.calls <= n) break;
        }
        EXPECT_EQ(falls > 10, error == EIO) << error;
        EXPECT_EQ(errors > 10, error != EIO) << error;
    }
}

TEST_F(Reader, AStepCopiedUnderAnotherNameIsNotTaken) {
    const std::string step = save(1);
    fs::copy(step, folder.path() + "/step-000000000009-00000000");
    const auto steps = find_steps(folder.path());
    ASSERT_EQ(steps.size(), 2u);
    EXPECT_EQ(steps[0].state, StepState::damaged);
    EXPECT_EQ(steps[1].state, StepState::committed);
}

TEST_F(Reader, VerifyComparesTheStateDigest) {
    CheckpointWriter writer;
    ASSERT_TRUE(writer.begin(saver.request(folder.path(), 1), saver.memory()).ok());
    for (size_t t = 0; t < state.data.size(); ++t)
        ASSERT_TRUE(writer.write_tensor(static_cast<int64_t>(t), state.data[t].data()).ok());
    Hash128 wrong = state.digest();
    wrong.high ^= 1;
    ASSERT_TRUE(writer.commit(wrong).ok());
    CheckpointReader reader(writer.step_directory());
    const OwnedStaging staging(reader.staging_bytes());
    EXPECT_THROW(reader.verify(staging.spans()), CheckpointDamage);
}

// Flips and truncations through files as a program would meet them; the validator's own test tries
// every bit.
TEST_F(Reader, SampledDamageOfFilesIsAnErrorWithTheFilesName) {
    const std::string step = save(1);
    for (const std::string& path : {step + "/MANIFEST", data_of(step)}) {
        const std::vector<uint8_t> original = read_bytes(path);
        for (uint64_t i = 0; i < 150; ++i) {
            std::vector<uint8_t> bytes = original;
            const Philox4 r = philox(8, i, 0);
            if (i % 3 == 0)
                bytes.resize(r.word[0] % bytes.size());
            else
                bytes[r.word[0] % bytes.size()] ^= static_cast<uint8_t>(1u << r.word[1] % 8);
            write_bytes(path, bytes);
            try {
                CheckpointReader reader(step);
                const OwnedStaging staging(reader.staging_bytes());
                reader.verify(staging.spans());
                ADD_FAILURE() << path << " " << i;
            } catch (const CheckpointDamage& damage) {
                EXPECT_NE(std::string(damage.what()).find(path), std::string::npos)
                    << damage.what();
            }
        }
        write_bytes(path, original);
    }
    CheckpointReader reader(step);
    expect_holds(reader, state);
}

TEST_F(Reader, AnInputErrorAtAnyCallIsReportedAndShortReadsAreCarriedOn) {
    const std::string step = save(1);
    int64_t calls = 1;
    for (int64_t n = 0; n < calls; ++n) {
        for (const Fault fault : {Fault::error, Fault::interrupted, Fault::short_count}) {
            FaultyFiles files;
            files.fault_at = n;
            files.fault = fault;
            bool failed = false;
            try {
                CheckpointReader reader(step, files.layer);
                const OwnedStaging staging(reader.staging_bytes());
                reader.verify(staging.spans());
            } catch (const Error& error) {
                EXPECT_EQ(error.code(), ExitCode::io);
                failed = true;
            }
            calls = std::max(calls, files.calls);
            EXPECT_FALSE(failed && fault != Fault::error) << n;
        }
    }
    EXPECT_GT(calls, 15);
}

}  // namespace
}  // namespace plumb
