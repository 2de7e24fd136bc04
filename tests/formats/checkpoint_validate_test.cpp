// Every damage to the bytes of a checkpoint must be found. The reference checkpoint is small, so
// every bit and every length is tried, in memory, through the validator that files go through.
#include "formats/checkpoint_validate.h"

#include <gtest/gtest.h>

#include <functional>
#include <memory>

#include "tests/formats/checkpoint_fixture.h"

namespace plumb {
namespace {

// The bytes of a saved checkpoint in aligned memory.
struct Saved {
    std::vector<uint64_t> manifest_words;
    std::vector<uint64_t> data_words;
    int64_t manifest_bytes = 0;
    int64_t data_bytes = 0;

    uint8_t* manifest() { return reinterpret_cast<uint8_t*>(manifest_words.data()); }
    uint8_t* data() { return reinterpret_cast<uint8_t*>(data_words.data()); }
    ManifestHeader& header() { return *reinterpret_cast<ManifestHeader*>(manifest()); }
    TensorRecord* tensors() {
        return reinterpret_cast<TensorRecord*>(manifest() + sizeof(ManifestHeader));
    }
    FileRecord& file() { return *reinterpret_cast<FileRecord*>(tensors() + header().tensor_count); }
    DataHeader& data_header() { return *reinterpret_cast<DataHeader*>(data()); }
    DataFooter& footer() {
        return *reinterpret_cast<DataFooter*>(data() + data_bytes - sizeof(DataFooter));
    }
    ChunkRecord* chunks() {
        return reinterpret_cast<ChunkRecord*>(data() + data_bytes - sizeof(DataFooter)) -
               file().chunk_count;
    }
    // Makes every hash right again after a forged change, the innermost first.
    void rehash() {
        const int64_t table_bytes =
            header().tensor_count * static_cast<int64_t>(sizeof(TensorRecord));
        std::memcpy(data() + sizeof(DataHeader), tensors(), static_cast<size_t>(table_bytes));
        header().tensor_table_hash = hash128(tensors(), table_bytes);
        data_header().tensor_table_hash = header().tensor_table_hash;
        data_header().own_hash = hash128(&data_header(), offsetof(DataHeader, own_hash));
        file().index_hash =
            hash128(chunks(), file().chunk_count * static_cast<int64_t>(sizeof(ChunkRecord)));
        footer().index_hash = file().index_hash;
        footer().own_hash = hash128(&footer(), offsetof(DataFooter, own_hash));
        header().file_table_hash = hash128(&file(), sizeof(FileRecord));
        header().own_hash = hash128(&header(), offsetof(ManifestHeader, own_hash));
    }
    Status judge_manifest(ManifestView* view) {
        return validate_manifest("MANIFEST", {manifest(), manifest_bytes}, view);
    }
    Status judge() {
        ManifestView view;
        Status status = judge_manifest(&view);
        Hash128 tiling;
        if (status.ok())
            status = validate_data_file("data", {data(), data_bytes}, view, 0, &tiling);
        return status.ok() ? validate_tiling("folder", view, tiling) : status;
    }
};

Saved save(const State& state) {
    const TemporaryFolder folder;
    Saver saver(state);
    const Status status = saver.save(folder.path(), 50);
    EXPECT_TRUE(status.ok()) << status.message;
    Saved saved;
    const auto take = [](const std::string& path, std::vector<uint64_t>* words, int64_t* size) {
        const std::vector<uint8_t> bytes = read_bytes(path);
        words->resize(bytes.size() / 8 + 1);
        std::memcpy(words->data(), bytes.data(), bytes.size());
        *size = static_cast<int64_t>(bytes.size());
    };
    take(saver.step_directory + "/MANIFEST", &saved.manifest_words, &saved.manifest_bytes);
    take(saver.step_directory + "/data-00000.pck", &saved.data_words, &saved.data_bytes);
    return saved;
}

TEST(Validate, EveryFlippedBitOfDataAndManifestIsFound) {
    Saved saved = save(small_state());
    ASSERT_LE(saved.data_bytes + saved.manifest_bytes, 64 * kKiB);
    ASSERT_TRUE(saved.judge().ok()) << saved.judge().message;
    bool planes = false;  // the reference must contain compressed chunks and raw ones
    bool raw = false;
    for (int64_t c = 0; c < saved.file().chunk_count; ++c)
        (saved.chunks()[c].codec == 1 ? planes : raw) = true;
    ASSERT_TRUE(planes && raw);

    ManifestView view;
    for (int64_t bit = 0; bit < saved.manifest_bytes * 8; ++bit) {
        saved.manifest()[bit / 8] ^= static_cast<uint8_t>(1u << bit % 8);
        ASSERT_EQ(saved.judge_manifest(&view).code, StatusCode::damaged) << "MANIFEST bit " << bit;
        saved.manifest()[bit / 8] ^= static_cast<uint8_t>(1u << bit % 8);
    }
    ASSERT_TRUE(saved.judge_manifest(&view).ok());
    Hash128 tiling;
    for (int64_t bit = 0; bit < saved.data_bytes * 8; ++bit) {
        saved.data()[bit / 8] ^= static_cast<uint8_t>(1u << bit % 8);
        const Status status =
            validate_data_file("data", {saved.data(), saved.data_bytes}, view, 0, &tiling);
        ASSERT_EQ(status.code, StatusCode::damaged) << "data bit " << bit;
        saved.data()[bit / 8] ^= static_cast<uint8_t>(1u << bit % 8);
    }
    EXPECT_TRUE(saved.judge().ok());
}

TEST(Validate, EveryTruncationAndExtensionIsFound) {
    Saved saved = save(small_state());
    ManifestView view;
    for (int64_t size = 0; size < saved.manifest_bytes; ++size) {
        // A copy of exactly that size, so that a read past the end is seen by a sanitizer.
        std::unique_ptr<uint64_t[]> copy(new uint64_t[static_cast<size_t>(size) / 8 + 1]);
        std::memcpy(copy.get(), saved.manifest(), static_cast<size_t>(size));
        const ConstBytes bytes = {reinterpret_cast<const uint8_t*>(copy.get()), size};
        ASSERT_EQ(validate_manifest("MANIFEST", bytes, &view).code, StatusCode::damaged) << size;
    }
    const ConstBytes longer = {saved.manifest(), saved.manifest_bytes + 1};
    EXPECT_EQ(validate_manifest("MANIFEST", longer, &view).code, StatusCode::damaged);

    ASSERT_TRUE(saved.judge_manifest(&view).ok());
    Hash128 tiling;
    for (int64_t size = 0; size <= saved.data_bytes + 1; ++size) {
        const Status status = validate_data_file("data", {saved.data(), size}, view, 0, &tiling);
        ASSERT_EQ(status.ok(), size == saved.data_bytes) << size;
    }
}

// A disk loses, swaps and repeats sectors, not bits.
TEST(Validate, EverySectorZeroedSwappedOrRepeatedIsFound) {
    Saved saved = save(small_state());
    constexpr int64_t sector = 512;
    const std::vector<uint64_t> original = saved.data_words;
    const auto at = [&](int64_t s) { return saved.data() + s * sector; };
    const int64_t sectors = saved.data_bytes / sector;
    int changed = 0;
    for (int64_t a = 0; a < sectors; ++a) {
        for (int64_t b = -1; b < sectors; ++b) {  // -1: zeroed; b < a: repeated; b > a: swapped
            std::vector<uint8_t> kept(at(a), at(a) + sector);
            if (b < 0)
                std::memset(at(a), 0, sector);
            else
                std::memcpy(at(a), at(b), sector);
            if (b > a) std::memcpy(at(b), kept.data(), sector);
            if (saved.data_words != original) {
                ++changed;
                ASSERT_EQ(saved.judge().code, StatusCode::damaged) << a << " " << b;
            }
            saved.data_words = original;
        }
    }
    EXPECT_GT(changed, sectors * sectors / 2);
    EXPECT_TRUE(saved.judge().ok());
}

// Changes that carry right hashes: what a wrong writer or an attacker makes.
void expect_refused(const char* message, StatusCode code,
                    const std::function<void(Saved&)>& change) {
    Saved saved = save(small_state());
    change(saved);
    saved.rehash();
    const Status status = saved.judge();
    EXPECT_EQ(status.code, code) << message;
    EXPECT_NE(std::string(status.message).find(message), std::string::npos) << status.message;
}

TEST(Validate, VersionAndFeaturesOfAnotherProgramAreUnsupportedNotDamaged) {
    expect_refused("version 1", StatusCode::unsupported, [](Saved& s) { s.header().version = 1; });
    expect_refused("version 3", StatusCode::unsupported, [](Saved& s) { s.header().version = 3; });
    expect_refused("version 1", StatusCode::unsupported,
                   [](Saved& s) { s.data_header().version = 1; });
    expect_refused("incompatible feature bits 0x8", StatusCode::unsupported,
                   [](Saved& s) { s.header().incompatible = 8; });
    expect_refused("version 9", StatusCode::unsupported,
                   [](Saved& s) { s.data_header().version = 9; });
    expect_refused("incompatible feature bits 0x3", StatusCode::unsupported,
                   [](Saved& s) { s.data_header().incompatible |= 2; });
    Saved saved = save(small_state());
    saved.header().compatible = 1u << 5;  // may be ignored
    saved.rehash();
    EXPECT_TRUE(saved.judge().ok());
}

// A program that does not know of the hash takes its bytes for reserved: it must refuse, not find
// them damaged.
TEST(Validate, ANumericsHashHasItsFeatureBit) {
    State state = small_state();
    Saved saved = save(state);
    EXPECT_EQ(saved.header().incompatible, kHasNumericsHash);
    EXPECT_EQ(saved.data_header().incompatible, kHasNumericsHash);
    const auto set = [&](const Hash128& hash, uint64_t bits) {
        saved.header().record.numerics_hash = saved.data_header().record.numerics_hash = hash;
        saved.header().incompatible = saved.data_header().incompatible = bits;
        saved.rehash();
        return saved.judge();
    };
    EXPECT_TRUE(set({3, 0}, kHasNumericsHash).ok());
    EXPECT_EQ(set({}, kHasNumericsHash).code, StatusCode::damaged);
    EXPECT_EQ(set({3, 0}, 0).code, StatusCode::damaged);
    // As all were before.
    EXPECT_TRUE(set({}, 0).ok());
    state.numerics_hash = {};
    saved = save(state);
    EXPECT_EQ(saved.header().incompatible, 0u);
    EXPECT_EQ(saved.data_header().incompatible, 0u);
    EXPECT_TRUE(saved.judge().ok());
}

TEST(Validate, FilesOfAnotherRunSaveOrNumberAreRefused) {
    expect_refused("another run or save", StatusCode::damaged,
                   [](Saved& s) { s.data_header().run.byte[3] ^= 1; });
    expect_refused("another run or save", StatusCode::damaged,
                   [](Saved& s) { s.data_header().save_id ^= 1; });
    expect_refused("is file 1 of 1, expected 0 of 1", StatusCode::damaged,
                   [](Saved& s) { s.data_header().file_number = 1; });
    expect_refused("run record (step 51)", StatusCode::damaged,
                   [](Saved& s) { s.data_header().record.step = 51; });
    // Another run's chunks under this run's index: the seed of their hashes differs.
    expect_refused("do not have their stored hash", StatusCode::damaged, [](Saved& s) {
        s.header().run.byte[3] ^= 1;
        s.data_header().run = s.header().run;
        s.footer().run = s.header().run;
    });
}

TEST(Validate, ForgedStructuresAreRefusedByTheField) {
    const auto refuse = [](const char* message, const std::function<void(Saved&)>& change) {
        expect_refused(message, StatusCode::damaged, change);
    };
    refuse("its box has", [](Saved& s) { s.chunks()[0].raw_bytes += 4; });
    refuse("lies outside param of wte", [](Saved& s) { s.chunks()[0].box.start[0] = -1; });
    refuse("lies outside param of wte", [](Saved& s) { s.chunks()[0].box.extent[0] = INT64_MAX; });
    refuse("is of tensor 10, there are 10", [](Saved& s) { s.chunks()[0].tensor = 10; });
    refuse("codec 7", [](Saved& s) { s.chunks()[0].codec = 7; });
    refuse("codec 1, transform 2", [](Saved& s) { s.chunks()[0].transform = 2; });
    refuse("codec 1, transform 4", [](Saved& s) { s.chunks()[0].transform = 4; });
    refuse("reserved bytes", [](Saved& s) { s.chunks()[0].reserved1[15] = 1; });
    refuse("expected offset", [](Saved& s) { s.chunks()[1].offset += 64; });
    refuse("expected offset", [](Saved& s) { s.chunks()[1].stored_bytes = int64_t{1} << 62; });
    refuse("chunks end at offset", [](Saved& s) { s.file().raw_bytes += 1; });
    refuse("leave a hole", [](Saved& s) {
        ChunkRecord& chunk = s.chunks()[1];
        chunk.box.start[0] -= 1;
        chunk.hash = hash128(s.data() + chunk.offset, chunk.stored_bytes,
                             chunk_seed(s.header().run, tensor_key(s.tensors()[0]), chunk.box));
    });
    refuse("stands twice", [](Saved& s) { s.tensors()[1] = s.tensors()[0]; });
    refuse("no valid name", [](Saved& s) { s.tensors()[0].name[0] = '\n'; });
    refuse("no valid name", [](Saved& s) { s.tensors()[0].name[100] = 'x'; });
    refuse("no valid name", [](Saved& s) { s.tensors()[0].dtype_code = 9; });
    refuse("no valid name", [](Saved& s) { s.tensors()[0].dim[1] = INT64_MAX / 8; });
    refuse("no valid name", [](Saved& s) { s.tensors()[0].dim[3] = 2; });
    refuse("reserved bytes of the header", [](Saved& s) { s.header().reserved[7] = 1; });
    refuse("reserved bytes of the header", [](Saved& s) { s.header().record.reserved[0] = 1; });
    refuse("reserved bytes of the header", [](Saved& s) { s.data_header().reserved[3000] = 1; });
    refuse("out of range", [](Saved& s) { s.header().chunk_bytes_max = kChunkBytesMax + 1; });
    refuse("does not agree with the MANIFEST", [](Saved& s) { s.footer().index_offset += 64; });
    refuse("does not agree with the MANIFEST", [](Saved& s) { s.footer().reserved1[0] = 1; });
    refuse("does not agree with the MANIFEST", [](Saved& s) {  // 8 bytes before the index
        s.data_words.push_back(0);
        uint8_t* index = s.data() + s.footer().index_offset;
        std::memmove(index + 8, index, static_cast<size_t>(s.data() + s.data_bytes - index));
        s.data_bytes += 8;
        s.file().file_bytes += 8;
        s.footer().file_bytes += 8;
        s.footer().index_offset += 8;
    });
    refuse("the MANIFEST says", [](Saved& s) { s.file().file_bytes += 64; });
}

// Records 0 to 9 are those of small_state; what readers take for a stream's dtype and shape.
TEST(Validate, StreamsThatBreakTheirRuleAreOfAnotherProgramAndNotDamage) {
    const auto refuse = [](const char* message, const std::function<void(Saved&)>& change) {
        expect_refused(message, StatusCode::unsupported, change);
    };
    refuse("moment3 of counts is of no stream",
           [](Saved& s) { std::strcpy(s.tensors()[3].stream, "moment3"); });
    const auto set_dtype = [](int t, Dtype dtype) {
        return [=](Saved& s) { s.tensors()[t].dtype_code = dtype_code(dtype); };
    };
    refuse("param of wte is u16; this program knows that stream in f32, bf16, f16",
           set_dtype(0, Dtype::u16));
    refuse("param of wte is f64", set_dtype(0, Dtype::f64));
    refuse("moment1 of wte is f64; this program knows that stream in f32",
           set_dtype(1, Dtype::f64));
    refuse("master_lo of h.0.w is f64", set_dtype(7, Dtype::f64));
    refuse("master_lo of h.0.w is bf16", set_dtype(7, Dtype::bf16));
    refuse("master of h.1.w is i64", set_dtype(9, Dtype::i64));
    refuse("master_lo of h.0.w stands beside a param in f16; this program knows it beside bf16",
           set_dtype(6, Dtype::f16));
    refuse("master of h.1.w stands beside a param in f32", set_dtype(8, Dtype::f32));
    refuse("moment1 of wte is 38 x 29, its param is 37 x 29",
           [](Saved& s) { s.tensors()[1].dim[0] = 38; });
    refuse("master_lo of h.0.w is 5 x 7 x 3, its param is 7 x 5 x 3", [](Saved& s) {
        s.tensors()[7].dim[0] = 5;  // as many elements
        s.tensors()[7].dim[1] = 7;
    });
    refuse("master of h.1.w is 101 x 1, its param is 101",
           [](Saved& s) { s.tensors()[9].rank = 2; });
    refuse("master of h.2.w stands beside no param of that name",
           [](Saved& s) { s.tensors()[9].name[2] = '2'; });
}

TEST(Validate, ForgedCountsAreRefusedBeforeTheyAreUsed) {
    const auto refuse = [](const std::function<void(Saved&)>& change) {
        Saved saved = save(small_state());
        change(saved);
        saved.header().own_hash = hash128(&saved.header(), offsetof(ManifestHeader, own_hash));
        EXPECT_EQ(saved.judge().code, StatusCode::damaged);
    };
    refuse([](Saved& s) { s.header().tensor_count = INT64_MAX / 8; });
    refuse([](Saved& s) { s.header().tensor_count = 11; });
    refuse([](Saved& s) { s.header().file_count = INT64_MAX; });
    refuse([](Saved& s) { s.header().file_count = 0; });
    refuse([](Saved& s) { s.header().settings_bytes = -1; });
    refuse([](Saved& s) { s.header().settings_bytes += 1; });
    refuse([](Saved& s) { s.header().manifest_bytes -= 1; });
}

// Random forged bytes in tables, index and data with all hashes made right again: nothing crashes
// (a sanitizer would speak), and nearly everything is refused by validator or decoder.
TEST(Validate, ForgedBytesNeverCrashTheValidatorOrTheDecoder) {
    Saved original = save(small_state());
    const ChunkRecord first = original.chunks()[0];
    const int64_t chunk_count = original.file().chunk_count;
    // Its zstd frame comes after three planes of mantissas.
    ASSERT_EQ(first.transform, static_cast<uint8_t>(ChunkTransform::planes_f32));
    const int64_t frame_offset = first.offset + first.raw_bytes / 4 * 3;
    const OwnedStaging staging(codec_staging_bytes(kChunkBytesMax));
    const auto decodes = [&](Saved& saved, const ChunkRecord& chunk) {
        std::memcpy(staging.spans().stored.data, saved.data() + chunk.offset,
                    static_cast<size_t>(chunk.stored_bytes));
        const StoredChunk stored = {chunk.stored_bytes, static_cast<ChunkCodec>(chunk.codec),
                                    static_cast<ChunkTransform>(chunk.transform)};
        return decode_chunk(stored, staging.spans().raw.data, chunk.raw_bytes, staging.spans())
            .ok();
    };
    int refused_structures = 0;
    int refused_data = 0;
    for (uint64_t round = 0; round < 6000; ++round) {
        Saved saved = original;
        for (uint64_t change = 0; change <= round % 3; ++change) {
            const Philox4 r = philox(11, round, change);
            const auto pick = [&](int64_t count) { return r.word[1] % count; };
            uint8_t* const places[] = {
                reinterpret_cast<uint8_t*>(saved.tensors() + pick(10)),
                reinterpret_cast<uint8_t*>(saved.chunks() + pick(chunk_count)),
                saved.data() + frame_offset};
            const size_t sizes[] = {sizeof(TensorRecord), sizeof(ChunkRecord), 40};
            const size_t which = r.word[0] % 3;
            places[which][r.word[2] % sizes[which]] = static_cast<uint8_t>(r.word[3]);
        }
        saved.chunks()[0].hash = hash128(
            saved.data() + first.offset, first.stored_bytes,
            chunk_seed(saved.header().run, tensor_key(saved.tensors()[0]), saved.chunks()[0].box));
        saved.rehash();
        if (!saved.judge().ok()) {
            ++refused_structures;
            continue;
        }
        for (int64_t c = 0; c < chunk_count; ++c)
            refused_data += decodes(saved, saved.chunks()[c]) ? 0 : 1;
    }
    EXPECT_GT(refused_structures, 3000);
    EXPECT_GT(refused_data, 500);
}

}  // namespace
}  // namespace plumb
