#include "formats/checkpoint_writer.h"

#include <gtest/gtest.h>
#include <sys/mount.h>
#include <unistd.h>

#include <algorithm>

#include "tests/formats/checkpoint_fixture.h"

namespace plumb {
namespace {

// Entries of a folder, sorted.
std::vector<std::string> names_in(const std::string& folder) {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder))
        names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
}

TEST(Writer, WhatIsSavedIsWhatIsRead) {
    const TemporaryFolder folder(true);
    const State state = small_state();
    Saver saver(state);
    const Status status = saver.save(folder.path(), 123);
    ASSERT_TRUE(status.ok()) << status.message;
    CheckpointReader reader(saver.step_directory);
    EXPECT_EQ(reader.record().step, 123);
    EXPECT_EQ(reader.record().tokens_consumed, 123 * 32 * 256);
    EXPECT_EQ(reader.record().model_hash, (Hash128{1, 2}));
    EXPECT_EQ(reader.settings(), state.settings);
    EXPECT_EQ(reader.header().run, state.run);
    expect_holds(reader, state);
    const auto names = names_in(folder.path());
    ASSERT_EQ(names.size(), 2u);
    const auto latest = read_bytes(folder.path() + "/LATEST");
    EXPECT_EQ(std::string(latest.begin(), latest.end()), names[1] + "\n");
}

TEST(Writer, OddShapesAndChunkSizesRoundTrip) {
    for (const int64_t chunk_bytes : {int64_t{64}, int64_t{200}, int64_t{1000}, kMiB}) {
        const TemporaryFolder folder;
        State state;
        state.chunk_bytes = chunk_bytes;
        state.add("param", "a", Dtype::f32, make_shape(3, 1, 7, 11));
        state.add("param", "b", Dtype::f32, make_shape(1));
        state.add("param", "c", Dtype::f32, make_shape(257));
        state.add("state", "d", Dtype::f64, make_shape(2, 101));
        state.add("state", "e", Dtype::i32, make_shape(1, 1, 1, 127));
        state.fill(3);
        Saver saver(state);
        const Status status = saver.save(folder.path(), 1);
        ASSERT_TRUE(status.ok()) << status.message;
        CheckpointReader reader(saver.step_directory);
        EXPECT_EQ(reader.chunk_count(), planned_chunk_count(state.tensors.data(), 5, chunk_bytes));
        expect_holds(reader, state);
    }
}

// One tensor from many owners: flat slices in any order, as ZeRO ranks will write them.
TEST(Writer, FlatSpansInAnyOrderMakeTheSameState) {
    const TemporaryFolder folder;
    const State state = small_state();
    Saver saver(state);
    std::vector<ChunkRecord> index(400);
    SaveMemory memory = saver.memory();
    memory.index = {reinterpret_cast<uint8_t*>(index.data()),
                    static_cast<int64_t>(index.size() * sizeof(ChunkRecord))};
    CheckpointWriter writer;
    ASSERT_TRUE(writer.begin(saver.request(folder.path(), 4), memory).ok());
    for (size_t t = state.data.size(); t-- > 0;) {
        const Dtype dtype = tensor_dtype(state.tensors[t]);
        const int64_t n = tensor_shape(state.tensors[t]).elements();
        for (int64_t part = 2; part >= 0; --part) {
            const int64_t first = n * part / 3;
            const int64_t count = n * (part + 1) / 3 - first;
            ASSERT_TRUE(writer
                            .write_span(static_cast<int64_t>(t), first, count,
                                        state.data[t].data() + first * dtype_bytes(dtype))
                            .ok());
        }
    }
    const Status status = writer.commit(state.digest());
    ASSERT_TRUE(status.ok()) << status.message;
    CheckpointReader reader(writer.step_directory());
    expect_holds(reader, state);
}

TEST(Writer, PlannedBoundIsNeverExceededAndTightForNoise) {
    const TemporaryFolder folder;
    State state = small_state();
    for (auto& data : state.data)
        for (size_t i = 0; i < data.size(); ++i)
            data[i] = static_cast<uint8_t>(philox(5, i, 0).word[0]);
    Saver saver(state);
    ASSERT_TRUE(saver.save(folder.path(), 1).ok());
    const auto size =
        static_cast<int64_t>(std::filesystem::file_size(saver.step_directory + "/data-00000.pck"));
    const auto count = static_cast<int64_t>(state.tensors.size());
    EXPECT_EQ(size, planned_file_bytes(state.tensors.data(), count, state.chunk_bytes));
    state.fill(1);
    ASSERT_TRUE(saver.save(folder.path(), 2).ok());
    EXPECT_LT(std::filesystem::file_size(saver.step_directory + "/data-00000.pck"),
              static_cast<uint64_t>(size));
}

TEST(Writer, HolesOverlapsAndSmallBuffersFailWithNumbersAndLeaveNothing) {
    const TemporaryFolder folder;
    const State state = small_state();
    Saver saver(state);
    const SaveRequest request = saver.request(folder.path(), 9);
    const auto write_all_but_third = [&](CheckpointWriter& writer) {
        for (const size_t t : {0u, 1u, 3u, 4u, 5u}) {
            const Status status =
                writer.write_tensor(static_cast<int64_t>(t), state.data[t].data());
            ASSERT_TRUE(status.ok()) << status.message;
        }
    };
    {
        CheckpointWriter writer;
        ASSERT_TRUE(writer.begin(request, saver.memory()).ok());
        write_all_but_third(writer);
        const Status status = writer.commit({});
        EXPECT_EQ(status.code, StatusCode::bad_argument);
        EXPECT_STREQ(status.message,
                     "the boxes written of param of h.0.ln.weight leave a hole or overlap: 0 "
                     "elements written, it has 13");
    }
    {
        CheckpointWriter writer;  // the right number of elements, but one twice and one never
        std::vector<ChunkRecord> index(100);
        SaveMemory memory = saver.memory();
        memory.index = {reinterpret_cast<uint8_t*>(index.data()), 100 * sizeof(ChunkRecord)};
        ASSERT_TRUE(writer.begin(request, memory).ok());
        write_all_but_third(writer);
        ASSERT_TRUE(writer.write_span(2, 0, 12, state.data[2].data()).ok());
        ASSERT_TRUE(writer.write_span(2, 5, 1, state.data[2].data()).ok());
        const Status status = writer.commit({});
        EXPECT_NE(std::string(status.message).find("13 elements written, it has 13"),
                  std::string::npos)
            << status.message;
    }
    {
        CheckpointWriter writer;
        SaveMemory memory = saver.memory();
        memory.index.size_bytes = 2 * sizeof(ChunkRecord);
        ASSERT_TRUE(writer.begin(request, memory).ok());
        const Status status = writer.write_tensor(0, state.data[0].data());
        EXPECT_STREQ(status.message,
                     "the index buffer has 256 bytes, room for 2 chunks, and there are more");
        EXPECT_FALSE(writer.write_tensor(0, state.data[0].data()).ok());
        EXPECT_FALSE(writer.commit({}).ok());
    }
    {
        CheckpointWriter writer;
        SaveMemory memory = saver.memory();
        memory.staging.stored.size_bytes = 100;
        const Status status = writer.begin(request, memory);
        EXPECT_NE(std::string(status.message).find("+ 100 +"), std::string::npos) << status.message;
    }
    EXPECT_TRUE(names_in(folder.path()).empty());
}

TEST(Writer, AFolderThatCannotBeWrittenIsNamedWithTheReason) {
    const TemporaryFolder folder;
    const State state = small_state();
    Saver saver(state);
    const Status missing = saver.save(folder.path() + "/absent", 1);
    EXPECT_EQ(missing.code, StatusCode::io);
    EXPECT_NE(std::string(missing.message).find("cannot make directory " + folder.path()),
              std::string::npos)
        << missing.message;
    EXPECT_NE(std::string(missing.message).find("No such file or directory (errno 2)"),
              std::string::npos);
    FaultyFiles files;
    files.fault_at = 0;
    files.error = EACCES;
    const Status refused = saver.save(folder.path(), 1, files.layer);
    EXPECT_NE(std::string(refused.message).find("Permission denied"), std::string::npos);
    EXPECT_TRUE(names_in(folder.path()).empty());
}

TEST(Writer, AFileSystemThatCannotReserveIsWrittenUnreserved) {
    const TemporaryFolder folder;
    const State state = small_state();
    Saver saver(state);
    FaultyFiles files;
    files.layer.fallocate = [](void*, int, int64_t) {
        errno = EOPNOTSUPP;
        return -1;
    };
    CheckpointWriter writer(files.layer);
    ASSERT_TRUE(writer.begin(saver.request(folder.path(), 3), saver.memory()).ok());
    EXPECT_FALSE(writer.reserved());
    writer.abandon();
    ASSERT_TRUE(saver.save(folder.path(), 3, files.layer).ok());
    CheckpointReader reader(saver.step_directory);
    expect_holds(reader, state);
}

// A real full disk: a small tmpfs, when the test may mount one.
TEST(Writer, AFullDiskFailsAtOnceWithTheSizes) {
    const TemporaryFolder folder;
    if (::geteuid() != 0) GTEST_SKIP() << "mounting needs root";
    if (::mount("tmpfs", folder.path().c_str(), "tmpfs", 0, "size=96k") != 0)
        GTEST_SKIP() << "mounting is not permitted here";
    {
        const State small = small_state();
        EXPECT_TRUE(Saver(small).save(folder.path(), 1).ok());
        State large = small_state();
        large.add("param", "large", Dtype::f32, make_shape(40000));
        Saver saver(large);
        const Status status = saver.save(folder.path(), 2);
        EXPECT_EQ(status.code, StatusCode::io);
        EXPECT_EQ(status.system_errno, ENOSPC);
        EXPECT_NE(std::string(status.message).find("cannot reserve"), std::string::npos);
        const auto count = static_cast<int64_t>(large.tensors.size());
        EXPECT_NE(std::string(status.message)
                      .find(std::to_string(planned_file_bytes(large.tensors.data(), count, 2048))),
                  std::string::npos)
            << status.message;
        const auto steps = find_steps(folder.path());
        EXPECT_EQ(steps.size(), 1u);
        EXPECT_EQ(names_in(folder.path()).size(), 2u);  // LATEST and step 1
        CheckpointReader reader(folder.path() + "/" + steps.at(0).name);
        expect_holds(reader, small);
    }
    ::umount2(folder.path().c_str(), MNT_DETACH);
}

}  // namespace
}  // namespace plumb
