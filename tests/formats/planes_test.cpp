#include "formats/planes.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "tests/formats/checkpoint_fixture.h"

namespace plumb {
namespace {

constexpr int64_t kChunk = 64 * kKiB;
// Normal values without their signs.
std::vector<uint8_t> unsigned_chunk(int64_t count) {
    std::vector<uint8_t> raw = normal_words(Dtype::f32, count * 4, 5);
    for (size_t i = 3; i < raw.size(); i += 4) raw[i] &= 0x7F;
    return raw;
}

constexpr Dtype kPlaned[] = {Dtype::f32, Dtype::bf16, Dtype::f16};

// Encodes, decodes and compares; returns the stored form.
StoredChunk round_trip(Dtype dtype, const std::vector<uint8_t>& raw) {
    const OwnedStaging staging(codec_staging_bytes(kChunk));
    const auto size = static_cast<int64_t>(raw.size());
    const StoredChunk chunk = encode_chunk(dtype, raw.data(), size, staging.spans());
    EXPECT_LE(chunk.stored_bytes, stored_bound(size));
    EXPECT_EQ(chunk.stored_bytes % 64, 0);
    std::vector<uint8_t> back(raw.size(), 0xEE);
    const Status status = decode_chunk(chunk, back.data(), size, staging.spans());
    EXPECT_TRUE(status.ok()) << status.message;
    EXPECT_EQ(back, raw);
    return chunk;
}

std::vector<uint8_t> normal_chunk(Dtype dtype, int64_t count) {
    return normal_words(dtype, count * dtype_bytes(dtype), 5);
}

template <typename Word>
std::vector<uint8_t> bytes_of_words(const std::vector<Word>& words) {
    std::vector<uint8_t> raw(words.size() * sizeof(Word));
    std::memcpy(raw.data(), words.data(), raw.size());
    return raw;
}

TEST(Planes, ContextConstantsCoverWhatZstdNeeds) {
    const Status status = check_codec_contexts();
    EXPECT_TRUE(status.ok()) << status.message;
}

TEST(Planes, NormalValuesShrinkAsMuchAsTheirExponentsAllow) {
    // The bits of normal values but for the exponent are noise: more than `most` would mean that
    // bits were lost.
    const struct {
        Dtype dtype;
        ChunkTransform transform;
        double least, most;
    } rows[] = {{Dtype::f32, ChunkTransform::planes_f32, 1.18, 1.21},
                {Dtype::bf16, ChunkTransform::planes_16, 1.48, 1.52},
                {Dtype::f16, ChunkTransform::planes_16, 1.15, 1.20}};
    const OwnedStaging staging(codec_staging_bytes(kMiB));
    for (const auto& row : rows) {
        const std::vector<uint8_t> raw = normal_words(row.dtype, kMiB, 5);
        const StoredChunk chunk = encode_chunk(row.dtype, raw.data(), kMiB, staging.spans());
        EXPECT_EQ(chunk.transform, row.transform);
        const double ratio = static_cast<double>(kMiB) / static_cast<double>(chunk.stored_bytes);
        EXPECT_GE(ratio, row.least) << dtype_name(row.dtype);
        EXPECT_LE(ratio, row.most) << dtype_name(row.dtype);
        std::vector<uint8_t> back(raw.size());
        ASSERT_TRUE(decode_chunk(chunk, back.data(), kMiB, staging.spans()).ok());
        EXPECT_EQ(back, raw);
    }
}

TEST(Planes, WordsWithoutASignSaveItsBit) {
    const OwnedStaging staging(codec_staging_bytes(kMiB));
    std::vector<uint8_t> raw = unsigned_chunk(kMiB / 4);
    const StoredChunk chunk = encode_chunk(Dtype::f32, raw.data(), kMiB, staging.spans());
    EXPECT_EQ(chunk.transform, ChunkTransform::planes_f32_unsigned);
    EXPECT_GE(static_cast<double>(kMiB) / static_cast<double>(chunk.stored_bytes), 1.24);
    std::vector<uint8_t> back(raw.size());
    ASSERT_TRUE(decode_chunk(chunk, back.data(), kMiB, staging.spans()).ok());
    EXPECT_EQ(back, raw);
    raw[kMiB - 1] |= 0x80;  // one sign
    EXPECT_EQ(encode_chunk(Dtype::f32, raw.data(), kMiB, staging.spans()).transform,
              ChunkTransform::planes_f32);
    for (const int64_t count : {1, 63, 64, 65, 255, 257, 1023, 1026, 4093, 16384}) {
        const StoredChunk small = round_trip(Dtype::f32, unsigned_chunk(count));
        // Of few words, plane 0 does not get smaller.
        EXPECT_EQ(small.transform == ChunkTransform::planes_f32_unsigned, count > 64) << count;
    }
}

// The bytes as formats/CHECKPOINT.md tells them.
TEST(Planes, StoredBytesAreTheDocuments) {
    std::vector<uint32_t> words(100, 0x3F800000u);
    words[7] = 0xC0123456u;
    const OwnedStaging staging(codec_staging_bytes(kChunk));
    StoredChunk chunk = encode_chunk(Dtype::f32, words.data(), 400, staging.spans());
    ASSERT_EQ(chunk.transform, ChunkTransform::planes_f32);
    const uint8_t* stored = staging.spans().stored.data;
    for (size_t i = 0; i < words.size(); ++i) {
        const uint32_t rotated = words[i] << 1 | words[i] >> 31;
        for (size_t p = 1; p < 4; ++p)
            ASSERT_EQ(stored[(p - 1) * 100 + i], static_cast<uint8_t>(rotated >> (24 - 8 * p)));
    }
    const uint8_t magic[] = {0x28, 0xB5, 0x2F, 0xFD};
    EXPECT_EQ(std::memcmp(stored + 300, magic, 4), 0);

    // Without a sign: planes 1 and 2, then seven bits of each word.
    const std::vector<uint8_t> raw = unsigned_chunk(2003);
    chunk = encode_chunk(Dtype::f32, raw.data(), 8012, staging.spans());
    ASSERT_EQ(chunk.transform, ChunkTransform::planes_f32_unsigned);
    for (size_t i = 0; i < 2003; ++i) {
        ASSERT_EQ(stored[i], static_cast<uint8_t>(raw[4 * i + 2] << 1 | raw[4 * i + 1] >> 7));
        ASSERT_EQ(stored[2003 + i], static_cast<uint8_t>(raw[4 * i + 1] << 1 | raw[4 * i] >> 7));
        for (size_t b = 0; b < 7; ++b) {
            const size_t bit = i % 8 * 7 + b;
            ASSERT_EQ(stored[4006 + i / 8 * 7 + bit / 8] >> bit % 8 & 1, raw[4 * i] >> b & 1) << i;
        }
    }
    EXPECT_EQ(std::memcmp(stored + 4006 + 251 * 7, magic, 4), 0);
    EXPECT_EQ(stored[4006 + 250 * 7 + 2] >> 5 | stored[4006 + 250 * 7 + 3], 0);

    std::vector<uint16_t> halves(100, 0x3F80u);
    halves[7] = 0xC012u;
    chunk = encode_chunk(Dtype::bf16, halves.data(), 200, staging.spans());
    ASSERT_EQ(chunk.transform, ChunkTransform::planes_16);
    EXPECT_EQ(stored[6], 0);
    EXPECT_EQ(stored[7], 0x25);
    EXPECT_EQ(std::memcmp(stored + 100, magic, 4), 0);
}

TEST(Planes, EverySizeRoundTrips) {
    for (const Dtype dtype : kPlaned) {
        for (int64_t count = 1; count <= 300; ++count)
            round_trip(dtype, normal_chunk(dtype, count));
        for (const int64_t count : {1021, 4093, 16381, 16384})
            round_trip(dtype, normal_chunk(dtype, count));
    }
    for (int64_t size = 1; size <= 130; ++size)
        round_trip(Dtype::u8, std::vector<uint8_t>(static_cast<size_t>(size), 3));
}

TEST(Planes, EveryClassOfFloatKeepsItsBits) {
    // Every exponent and sign with three mantissas: zeros, denormals, infinities, quiet and
    // signalling NaNs with payloads among them.
    std::vector<uint32_t> bits;
    for (uint32_t top = 0; top < 512; ++top)
        for (const uint32_t mantissa : {0u, 1u, 0x2ABCDEu, 0x400001u, 0x7FFFFFu})
            bits.push_back(top << 23 | mantissa);
    for (int copies = 0; copies < 2; ++copies) {
        round_trip(Dtype::f32, bytes_of_words(bits));
        bits.resize(bits.size() + 3000, 0x3F800000u);  // then compressible, so planes are used
    }
}

TEST(Planes, EveryPatternOf16BitsKeepsItsBits) {
    std::vector<uint16_t> bits;
    for (uint32_t pattern = 0; pattern < 0x10000; ++pattern) {
        bits.push_back(static_cast<uint16_t>(pattern));
        if (bits.size() < 8192) continue;
        // Alone, and among many of one value, so that planes are used.
        for (const size_t more : {size_t{0}, size_t{20000}}) {
            bits.resize(8192 + more, uint16_t{0x3F80});
            for (const Dtype dtype : {Dtype::bf16, Dtype::f16, Dtype::u16}) {
                const StoredChunk chunk = round_trip(dtype, bytes_of_words(bits));
                if (more > 0) {
                    EXPECT_EQ(chunk.codec == ChunkCodec::zstd, dtype != Dtype::u16);
                }
            }
        }
        bits.clear();
    }
}

TEST(Planes, ConstantDataShrinksAndNoiseIsStoredRaw) {
    const std::vector<uint8_t> zeros(4096, 0);
    std::vector<uint8_t> noise(4096);
    for (size_t i = 0; i < noise.size(); ++i)
        noise[i] = static_cast<uint8_t>(philox(1, i, 0).word[0]);
    for (const Dtype dtype : kPlaned) {
        EXPECT_EQ(round_trip(dtype, zeros).codec, ChunkCodec::zstd);
        EXPECT_EQ(round_trip(dtype, noise).codec, ChunkCodec::raw);
    }
    for (const Dtype dtype : {Dtype::i32, Dtype::u16, Dtype::u8, Dtype::f64})
        EXPECT_EQ(round_trip(dtype, zeros).codec, ChunkCodec::raw);
}

TEST(Planes, DamagedStoredBytesNeverCrashTheDecoder) {
    const OwnedStaging staging(codec_staging_bytes(kChunk));
    const struct {
        Dtype dtype;
        ChunkTransform transform;
        std::vector<uint8_t> raw;
        uint64_t frame;  // where the first one begins
    } rows[] = {
        {Dtype::f32, ChunkTransform::planes_f32, normal_chunk(Dtype::f32, 1000), 3000},
        {Dtype::f32, ChunkTransform::planes_f32_unsigned, unsigned_chunk(1100), 2200 + 138 * 7},
        {Dtype::bf16, ChunkTransform::planes_16, normal_chunk(Dtype::bf16, 1000), 1000},
        {Dtype::f16, ChunkTransform::planes_16, normal_chunk(Dtype::f16, 1000), 1000}};
    for (const auto& [dtype, transform, raw, frame] : rows) {
        const auto size = static_cast<int64_t>(raw.size());
        const StoredChunk chunk = encode_chunk(dtype, raw.data(), size, staging.spans());
        ASSERT_EQ(chunk.transform, transform);
        const std::vector<uint8_t> stored(staging.spans().stored.data,
                                          staging.spans().stored.data + chunk.stored_bytes);
        std::vector<uint8_t> back(raw.size());
        int refused = 0;
        for (uint64_t round = 0; round < 10000; ++round) {
            const Philox4 r = philox(3, round, 0);
            uint8_t* at = staging.spans().stored.data;
            std::memcpy(at, stored.data(), stored.size());
            // The frame's header in half of the rounds, all of the frame in the others.
            const uint64_t span = round % 2 == 0 ? 24 : stored.size() - frame;
            at[frame + r.word[0] % span] = static_cast<uint8_t>(r.word[1]);
            at[frame + r.word[2] % span] ^= static_cast<uint8_t>(1u << r.word[3] % 8);
            StoredChunk damaged = chunk;
            if (round % 5 == 0)
                damaged.stored_bytes = 64 * (1 + r.word[1] % (chunk.stored_bytes / 64));
            refused += decode_chunk(damaged, back.data(), size, staging.spans()).ok() ? 0 : 1;
        }
        EXPECT_GT(refused, 3000) << dtype_name(dtype);
    }
}

// One refusal per rule of the stored form.
TEST(Planes, StoredFormsThatBreakARuleAreRefused) {
    const OwnedStaging staging(codec_staging_bytes(kChunk));
    const std::vector<uint8_t> raw = normal_chunk(Dtype::bf16, 1000);
    std::vector<uint8_t> back(4000);
    const auto refuse = [&](const char* message, int64_t raw_bytes, auto change) {
        StoredChunk chunk = encode_chunk(Dtype::bf16, raw.data(), 2000, staging.spans());
        ASSERT_EQ(chunk.codec, ChunkCodec::zstd);
        change(chunk, staging.spans().stored.data);
        const Status status = decode_chunk(chunk, back.data(), raw_bytes, staging.spans());
        EXPECT_EQ(status.code, StatusCode::damaged) << message;
        EXPECT_NE(std::string(status.message).find(message), std::string::npos) << status.message;
    };
    refuse("are no byte planes", 2000, [](StoredChunk& c, uint8_t*) { c.stored_bytes = 960; });
    refuse("are no byte planes", 1999, [](StoredChunk&, uint8_t*) {});
    refuse("do not begin a zstd frame", 1000, [](StoredChunk&, uint8_t*) {});
    refuse("do not begin a zstd frame", 2000,
           [](StoredChunk& c, uint8_t*) { c.stored_bytes -= 64; });
    refuse("do not begin a zstd frame", 2000, [](StoredChunk&, uint8_t* at) {
        const uint8_t skippable[] = {0x50, 0x2A, 0x4D, 0x18, 8, 0, 0, 0};
        std::memcpy(at + 1000, skippable, sizeof skippable);
    });
    refuse("are not zero", 2000, [](StoredChunk& c, uint8_t* at) { at[c.stored_bytes - 1] = 1; });
    refuse("are not zero", 2000, [](StoredChunk& c, uint8_t* at) {
        std::memset(at + c.stored_bytes, 0, 64);
        c.stored_bytes += 64;
    });
    // A whole frame of another length.
    refuse("does not decode to 1000 bytes", 2000, [&](StoredChunk& c, uint8_t* at) {
        const std::vector<uint8_t> longer = normal_chunk(Dtype::bf16, 1001);
        c = encode_chunk(Dtype::bf16, longer.data(), 2002, staging.spans());
        std::memmove(at + 1000, at + 1001, static_cast<size_t>(c.stored_bytes - 1001));
    });
}

TEST(Planes, UnknownCodecsAreRefused) {
    const OwnedStaging staging(codec_staging_bytes(kChunk));
    uint8_t back[64];
    for (const StoredChunk& odd : {StoredChunk{64, ChunkCodec::zstd, ChunkTransform::none},
                                   StoredChunk{64, ChunkCodec::raw, ChunkTransform::planes_16},
                                   StoredChunk{64, ChunkCodec::zstd, ChunkTransform{4}}})
        EXPECT_EQ(decode_chunk(odd, back, 64, staging.spans()).code, StatusCode::unsupported);
}

}  // namespace
}  // namespace plumb
