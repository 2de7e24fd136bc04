#include "formats/planes.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "formats/checkpoint_reader.h"
#include "runtime/base/random.h"

namespace plumb {
namespace {

constexpr int64_t kChunk = 64 * kKiB;

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

std::vector<uint8_t> normal_floats(int64_t count, double scale = 0.02) {
    std::vector<uint8_t> raw(static_cast<size_t>(count) * 4);
    for (int64_t i = 0; i < count; ++i) {
        const auto value = static_cast<float>(scale * random_normal(5, static_cast<uint64_t>(i)));
        std::memcpy(raw.data() + i * 4, &value, 4);
    }
    return raw;
}

TEST(Planes, ContextConstantsCoverWhatZstdNeeds) {
    const Status status = check_codec_contexts();
    EXPECT_TRUE(status.ok()) << status.message;
}

TEST(Planes, NormalFloatsShrinkAsMuchAsTheirExponentsAllow) {
    const int64_t count = 256 * kKiB;
    const std::vector<uint8_t> raw = normal_floats(count);
    const OwnedStaging staging(codec_staging_bytes(kMiB));
    const StoredChunk chunk = encode_chunk(Dtype::f32, raw.data(), kMiB, staging.spans());
    EXPECT_EQ(chunk.transform, ChunkTransform::planes_f32);
    const double ratio = static_cast<double>(kMiB) / static_cast<double>(chunk.stored_bytes);
    EXPECT_GE(ratio, 1.15);
    EXPECT_LE(ratio, 1.25);  // the mantissa is noise: more would mean that bits were lost
    std::vector<uint8_t> back(raw.size());
    ASSERT_TRUE(decode_chunk(chunk, back.data(), kMiB, staging.spans()).ok());
    EXPECT_EQ(back, raw);
}

TEST(Planes, EverySizeRoundTrips) {
    for (int64_t count = 1; count <= 300; ++count) round_trip(Dtype::f32, normal_floats(count));
    for (const int64_t count : {1021, 4093, 16381, 16384})
        round_trip(Dtype::f32, normal_floats(count));
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
        std::vector<uint8_t> raw(bits.size() * 4);
        std::memcpy(raw.data(), bits.data(), raw.size());
        round_trip(Dtype::f32, raw);
        bits.resize(bits.size() + 3000, 0x3F800000u);  // then compressible, so planes are used
    }
}

TEST(Planes, ConstantDataShrinksAndNoiseIsStoredRaw) {
    const std::vector<uint8_t> zeros(4096, 0);
    EXPECT_EQ(round_trip(Dtype::f32, zeros).codec, ChunkCodec::zstd);
    std::vector<uint8_t> noise(4096);
    for (size_t i = 0; i < noise.size(); ++i)
        noise[i] = static_cast<uint8_t>(philox(1, i, 0).word[0]);
    EXPECT_EQ(round_trip(Dtype::f32, noise).codec, ChunkCodec::raw);
    EXPECT_EQ(round_trip(Dtype::i32, zeros).codec, ChunkCodec::raw);
}

TEST(Planes, DamagedStoredBytesNeverCrashTheDecoder) {
    const OwnedStaging staging(codec_staging_bytes(kChunk));
    const std::vector<uint8_t> raw = normal_floats(1000);
    const auto size = static_cast<int64_t>(raw.size());
    const StoredChunk chunk = encode_chunk(Dtype::f32, raw.data(), size, staging.spans());
    ASSERT_EQ(chunk.codec, ChunkCodec::zstd);
    const std::vector<uint8_t> stored(staging.spans().stored.data,
                                      staging.spans().stored.data + chunk.stored_bytes);
    std::vector<uint8_t> back(raw.size());
    int refused = 0;
    for (uint64_t round = 0; round < 20000; ++round) {
        const Philox4 r = philox(3, round, 0);
        std::memcpy(staging.spans().stored.data, stored.data(), stored.size());
        // Half of the rounds hit the plane table and the zstd frame's header.
        const uint64_t span = round % 2 == 0 ? 32 : stored.size();
        staging.spans().stored.data[r.word[0] % span] = static_cast<uint8_t>(r.word[1]);
        staging.spans().stored.data[r.word[2] % span] ^= static_cast<uint8_t>(1u << r.word[3] % 8);
        StoredChunk damaged = chunk;
        if (round % 5 == 0) damaged.stored_bytes = 64 * (1 + r.word[1] % (chunk.stored_bytes / 64));
        refused += decode_chunk(damaged, back.data(), size, staging.spans()).ok() ? 0 : 1;
    }
    EXPECT_GT(refused, 1000);
}

TEST(Planes, UnknownCodecsAreRefused) {
    const OwnedStaging staging(codec_staging_bytes(kChunk));
    uint8_t back[64];
    const StoredChunk odd = {64, ChunkCodec::zstd, ChunkTransform::none};
    EXPECT_EQ(decode_chunk(odd, back, 64, staging.spans()).code, StatusCode::unsupported);
}

}  // namespace
}  // namespace plumb
