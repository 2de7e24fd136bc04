#define ZSTD_STATIC_LINKING_ONLY
#include "formats/planes.h"

#include <zstd.h>

#include <bit>
#include <cstring>

#include "runtime/base/check.h"

namespace plumb {

namespace {

constexpr int kPlaneCount = 4;
// Below this the plane table and zstd's frame cost more than the exponents save.
constexpr int64_t kPlaneWordsMin = 64;

// In front of a planes_f32 chunk: stored bytes of each plane, most significant first. A plane of
// its full size is stored as it is, a smaller one is a zstd frame.
struct PlaneTable {
    uint32_t stored_bytes[kPlaneCount];
};
static_assert(sizeof(PlaneTable) == 16);

// Matching is switched off by the most negative level, literals are Huffman-coded all the same.
void set_codec_parameters(ZSTD_CCtx* context) noexcept {
    CHECK(
        !ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, ZSTD_minCLevel())));
    CHECK(!ZSTD_isError(
        ZSTD_CCtx_setParameter(context, ZSTD_c_literalCompressionMode, ZSTD_lcm_huffman)));
}

// Shrinks `size_bytes` bytes into at most size_bytes - 1; 0 when they do not shrink.
int64_t code_plane(const uint8_t* plane, int64_t size_bytes, uint8_t* out,
                   ByteSpan context_bytes) noexcept {
    ZSTD_CCtx* context =
        ZSTD_initStaticCCtx(context_bytes.data, static_cast<size_t>(context_bytes.size_bytes));
    CHECK_NOTE(context != nullptr, "codec context is too small or not aligned to 8 bytes");
    set_codec_parameters(context);
    const size_t coded = ZSTD_compress2(context, out, static_cast<size_t>(size_bytes) - 1, plane,
                                        static_cast<size_t>(size_bytes));
    return ZSTD_isError(coded) ? 0 : static_cast<int64_t>(coded);
}

// Both loops are what the compiler turns into vector shuffles at -O3 (see CMakeLists.txt).
void split_planes(const uint8_t* raw, int64_t count,
                  uint8_t* const (&plane)[kPlaneCount]) noexcept {
    uint8_t* __restrict p0 = plane[0];
    uint8_t* __restrict p1 = plane[1];
    uint8_t* __restrict p2 = plane[2];
    uint8_t* __restrict p3 = plane[3];
    for (int64_t i = 0; i < count; ++i) {
        uint32_t word;
        std::memcpy(&word, raw + i * 4, 4);
        const uint32_t w = std::rotl(word, 1);
        p0[i] = static_cast<uint8_t>(w >> 24);
        p1[i] = static_cast<uint8_t>(w >> 16);
        p2[i] = static_cast<uint8_t>(w >> 8);
        p3[i] = static_cast<uint8_t>(w);
    }
}

void merge_planes(const uint8_t* const (&plane)[kPlaneCount], int64_t count,
                  uint8_t* raw) noexcept {
    for (int64_t i = 0; i < count; ++i) {
        const uint32_t w = uint32_t{plane[0][i]} << 24 | uint32_t{plane[1][i]} << 16 |
                           uint32_t{plane[2][i]} << 8 | uint32_t{plane[3][i]};
        const uint32_t word = std::rotr(w, 1);
        std::memcpy(raw + i * 4, &word, 4);
    }
}

StoredChunk store_raw(const void* raw, int64_t raw_bytes, const CodecStaging& staging) noexcept {
    StoredChunk chunk;
    chunk.stored_bytes = stored_bound(raw_bytes);
    std::memcpy(staging.stored.data, raw, static_cast<size_t>(raw_bytes));
    std::memset(staging.stored.data + raw_bytes, 0,
                static_cast<size_t>(chunk.stored_bytes - raw_bytes));
    return chunk;
}

bool zero_tail(const uint8_t* stored, int64_t used, int64_t stored_bytes) noexcept {
    for (int64_t i = used; i < stored_bytes; ++i)
        if (stored[i] != 0) return false;
    return stored_bytes - used < 64;
}

Status decode_planes(const StoredChunk& chunk, uint8_t* raw, int64_t raw_bytes,
                     const CodecStaging& staging) noexcept {
    const int64_t count = raw_bytes / kPlaneCount;
    PlaneTable table;
    if (chunk.stored_bytes < static_cast<int64_t>(sizeof table) || raw_bytes % kPlaneCount != 0)
        return failure(StatusCode::damaged, "%lld stored bytes for %lld raw are no byte planes",
                       static_cast<long long>(chunk.stored_bytes),
                       static_cast<long long>(raw_bytes));
    std::memcpy(&table, staging.stored.data, sizeof table);
    const uint8_t* plane[kPlaneCount];
    int64_t at = sizeof table;
    for (int p = 0; p < kPlaneCount; ++p) {
        const int64_t bytes = table.stored_bytes[p];
        if (bytes < 1 || bytes > count || bytes > chunk.stored_bytes - at)
            return failure(StatusCode::damaged,
                           "plane %d says %lld bytes, at most %lld (%lld remain)", p,
                           static_cast<long long>(bytes), static_cast<long long>(count),
                           static_cast<long long>(chunk.stored_bytes - at));
        plane[p] = staging.stored.data + at;
        at += bytes;
        if (bytes == count) continue;
        ZSTD_DCtx* context = ZSTD_initStaticDCtx(staging.context.data,
                                                 static_cast<size_t>(staging.context.size_bytes));
        CHECK_NOTE(context != nullptr, "codec context is too small or not aligned to 8 bytes");
        uint8_t* out = staging.planes.data + p * count;
        const size_t got = ZSTD_decompressDCtx(context, out, static_cast<size_t>(count), plane[p],
                                               static_cast<size_t>(bytes));
        if (ZSTD_isError(got) || static_cast<int64_t>(got) != count)
            return failure(StatusCode::damaged, "plane %d does not decode to %lld bytes (%s)", p,
                           static_cast<long long>(count),
                           ZSTD_isError(got) ? ZSTD_getErrorName(got) : "too short");
        plane[p] = out;
    }
    if (!zero_tail(staging.stored.data, at, chunk.stored_bytes))
        return failure(StatusCode::damaged, "bytes after the %lld of the planes are not zero",
                       static_cast<long long>(at));
    merge_planes(plane, count, raw);
    return {};
}

}  // namespace

CodecStagingBytes codec_staging_bytes(int64_t chunk_bytes) noexcept {
    CodecStagingBytes bytes;
    bytes.raw = align_up(chunk_bytes, 64);
    bytes.planes = align_up(chunk_bytes, 64);  // the decoder accepts any plane coded
    bytes.stored = stored_bound(chunk_bytes);
    bytes.context = kCompressContextBytes > kDecompressContextBytes ? kCompressContextBytes
                                                                    : kDecompressContextBytes;
    return bytes;
}

Status check_codec_contexts() {
    ZSTD_CCtx_params* parameters = ZSTD_createCCtxParams();
    CHECK(parameters != nullptr);
    CHECK(!ZSTD_isError(
        ZSTD_CCtxParams_setParameter(parameters, ZSTD_c_compressionLevel, ZSTD_minCLevel())));
    CHECK(!ZSTD_isError(
        ZSTD_CCtxParams_setParameter(parameters, ZSTD_c_literalCompressionMode, ZSTD_lcm_huffman)));
    const auto compress = static_cast<int64_t>(ZSTD_estimateCCtxSize_usingCCtxParams(parameters));
    ZSTD_freeCCtxParams(parameters);
    const auto decompress = static_cast<int64_t>(ZSTD_estimateDCtxSize());
    if (compress > kCompressContextBytes || decompress > kDecompressContextBytes)
        return failure(StatusCode::unsupported,
                       "zstd %s needs contexts of %lld and %lld bytes, planned are %lld and %lld",
                       ZSTD_versionString(), static_cast<long long>(compress),
                       static_cast<long long>(decompress),
                       static_cast<long long>(kCompressContextBytes),
                       static_cast<long long>(kDecompressContextBytes));
    return {};
}

StoredChunk encode_chunk(Dtype dtype, const void* raw, int64_t raw_bytes,
                         const CodecStaging& staging) noexcept {
    CHECK(raw_bytes >= 1 && raw_bytes <= kChunkBytesMax);
    CHECK(staging.stored.size_bytes >= stored_bound(raw_bytes));
    const int64_t count = raw_bytes / kPlaneCount;
    if (dtype != Dtype::f32 || count < kPlaneWordsMin) return store_raw(raw, raw_bytes, staging);

    CHECK(raw_bytes % kPlaneCount == 0 && staging.planes.size_bytes >= raw_bytes);
    uint8_t* const plane[kPlaneCount] = {staging.planes.data, staging.planes.data + count,
                                         staging.planes.data + 2 * count,
                                         staging.planes.data + 3 * count};
    split_planes(static_cast<const uint8_t*>(raw), count, plane);
    PlaneTable table;
    int64_t at = sizeof table;
    const int64_t coded = code_plane(plane[0], count, staging.stored.data + at, staging.context);
    const int64_t mantissa_bytes = (kPlaneCount - 1) * count;
    // Worth it only when padding included it is smaller than the raw chunk.
    const int64_t stored_bytes = align_up(at + coded + mantissa_bytes, 64);
    if (coded == 0 || stored_bytes >= stored_bound(raw_bytes))
        return store_raw(raw, raw_bytes, staging);

    table.stored_bytes[0] = static_cast<uint32_t>(coded);
    for (int p = 1; p < kPlaneCount; ++p) table.stored_bytes[p] = static_cast<uint32_t>(count);
    std::memcpy(staging.stored.data, &table, sizeof table);
    at += coded;
    std::memcpy(staging.stored.data + at, plane[1], static_cast<size_t>(mantissa_bytes));
    at += mantissa_bytes;
    std::memset(staging.stored.data + at, 0, static_cast<size_t>(stored_bytes - at));
    return {stored_bytes, ChunkCodec::zstd, ChunkTransform::planes_f32};
}

Status decode_chunk(const StoredChunk& chunk, void* raw, int64_t raw_bytes,
                    const CodecStaging& staging) noexcept {
    CHECK(raw_bytes >= 1 && chunk.stored_bytes <= staging.stored.size_bytes);
    if (chunk.codec == ChunkCodec::zstd && chunk.transform == ChunkTransform::planes_f32) {
        CHECK(staging.planes.size_bytes >= raw_bytes);
        return decode_planes(chunk, static_cast<uint8_t*>(raw), raw_bytes, staging);
    }
    if (chunk.codec != ChunkCodec::raw || chunk.transform != ChunkTransform::none)
        return failure(StatusCode::unsupported, "codec %d with transform %d is unknown",
                       static_cast<int>(chunk.codec), static_cast<int>(chunk.transform));
    if (chunk.stored_bytes != stored_bound(raw_bytes) ||
        !zero_tail(staging.stored.data, raw_bytes, chunk.stored_bytes))
        return failure(StatusCode::damaged, "raw chunk of %lld bytes is stored in %lld, not %lld",
                       static_cast<long long>(raw_bytes),
                       static_cast<long long>(chunk.stored_bytes),
                       static_cast<long long>(stored_bound(raw_bytes)));
    std::memcpy(raw, staging.stored.data, static_cast<size_t>(raw_bytes));
    return {};
}

}  // namespace plumb
