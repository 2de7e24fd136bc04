#define ZSTD_STATIC_LINKING_ONLY
#include "formats/planes.h"

#include <zstd.h>

#include <bit>
#include <cstring>

#include "runtime/base/check.h"

namespace plumb {

namespace {

// Below this zstd's frame and the padding cost more than the exponents save.
constexpr int64_t kPlaneWordsMin = 64;

// Bytes of the words that a transform parts; 0 when it parts none.
int64_t word_bytes(ChunkTransform transform) noexcept {
    switch (transform) {
        case ChunkTransform::none:
            return 0;
        case ChunkTransform::planes_16:
            return 2;
        case ChunkTransform::planes_f32:
        case ChunkTransform::planes_f32_unsigned:
            return 4;
    }
    return 0;
}

// Bytes of the planes from 1 on. Without signs the last one has seven bits a word.
int64_t rest_bytes(ChunkTransform transform, int64_t count) noexcept {
    return transform == ChunkTransform::planes_f32_unsigned ? 2 * count + 7 * ceil_div(count, 8)
                                                            : (word_bytes(transform) - 1) * count;
}

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

// Both loops are what the compiler turns into vector shuffles at -O3 (see CMakeLists.txt). `rest`
// holds planes 1, 2, ... one after another. Returns whether any sign is set.
template <typename Word>
bool split_planes(const uint8_t* __restrict raw, int64_t count, uint8_t* __restrict plane0,
                  uint8_t* __restrict rest) noexcept {
    Word any = 0;
    for (int64_t i = 0; i < count; ++i) {
        Word word;
        std::memcpy(&word, raw + i * int64_t{sizeof word}, sizeof word);
        word = std::rotl(word, 1);
        any |= word;
        plane0[i] = static_cast<uint8_t>(word >> (8 * (sizeof word - 1)));
        for (size_t p = 1; p < sizeof word; ++p)
            rest[static_cast<int64_t>(p - 1) * count + i] =
                static_cast<uint8_t>(word >> (8 * (sizeof word - 1 - p)));
    }
    return (any & 1) != 0;
}

// `between` holds the planes between the first and the last.
template <typename Word>
void merge_planes(const uint8_t* __restrict plane0, const uint8_t* __restrict between,
                  const uint8_t* __restrict last, int64_t count, uint8_t* __restrict raw) noexcept {
    for (int64_t i = 0; i < count; ++i) {
        Word word = plane0[i];
        for (size_t p = 1; p + 1 < sizeof word; ++p)
            word = static_cast<Word>(word << 8 | between[static_cast<int64_t>(p - 1) * count + i]);
        word = std::rotr(static_cast<Word>(word << 8 | last[i]), 1);
        std::memcpy(raw + i * int64_t{sizeof word}, &word, sizeof word);
    }
}

// The upper seven bits of each byte of `plane` move together, in place: those of eight bytes into
// seven, the first lowest. Bytes up to the next multiple of eight are there to be used.
void pack_sevens(uint8_t* plane, int64_t count) noexcept {
    const int64_t groups = ceil_div(count, 8);
    std::memset(plane + count, 0, static_cast<size_t>(groups * 8 - count));
    for (int64_t g = 0; g < groups; ++g) {
        uint64_t x;
        std::memcpy(&x, plane + g * 8, 8);
        x = x >> 1 & 0x7F7F7F7F7F7F7F7Fu;
        x = (x & 0x007F007F007F007Fu) | (x & 0x7F007F007F007F00u) >> 1;
        x = (x & 0x00003FFF00003FFFu) | (x & 0x3FFF00003FFF0000u) >> 2;
        x = (x & 0x000000000FFFFFFFu) | (x & 0x0FFFFFFF00000000u) >> 4;
        std::memcpy(plane + g * 7, &x, 8);  // its last byte is zero and gives way to the next group
    }
}

// Back, into whole groups of eight; reads one byte more than `packed` has.
void spread_sevens(const uint8_t* packed, int64_t count, uint8_t* plane) noexcept {
    for (int64_t g = 0; g < ceil_div(count, 8); ++g) {
        uint64_t x;
        std::memcpy(&x, packed + g * 7, 8);
        x = (x & 0x000000000FFFFFFFu) | (x << 4 & 0x0FFFFFFF00000000u);
        x = (x & 0x00003FFF00003FFFu) | (x << 2 & 0x3FFF00003FFF0000u);
        x = (x & 0x007F007F007F007Fu) | (x << 1 & 0x7F007F007F007F00u);
        x <<= 1;
        std::memcpy(plane + g * 8, &x, 8);
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
    const int64_t word = word_bytes(chunk.transform);
    const int64_t count = raw_bytes / word;
    const int64_t rest = rest_bytes(chunk.transform, count);
    if (raw_bytes % word != 0 || chunk.stored_bytes <= rest)
        return failure(StatusCode::damaged, "%lld stored bytes for %lld raw are no byte planes",
                       static_cast<long long>(chunk.stored_bytes),
                       static_cast<long long>(raw_bytes));
    CHECK(staging.planes.size_bytes >= codec_staging_bytes(raw_bytes).planes);
    const uint8_t* stored = staging.stored.data;
    const uint8_t* frame = stored + rest;
    const auto remain = static_cast<size_t>(chunk.stored_bytes - rest);
    // Zstd knows frames of other kinds too; they have no place here.
    uint32_t magic = 0;
    if (remain >= sizeof magic) std::memcpy(&magic, frame, sizeof magic);
    const size_t frame_bytes =
        magic == ZSTD_MAGICNUMBER ? ZSTD_findFrameCompressedSize(frame, remain) : 0;
    if (frame_bytes == 0 || ZSTD_isError(frame_bytes))
        return failure(StatusCode::damaged, "the last %lld stored bytes do not begin a zstd frame",
                       static_cast<long long>(remain));
    uint8_t* plane0 = staging.planes.data;
    ZSTD_DCtx* context =
        ZSTD_initStaticDCtx(staging.context.data, static_cast<size_t>(staging.context.size_bytes));
    CHECK_NOTE(context != nullptr, "codec context is too small or not aligned to 8 bytes");
    const size_t got =
        ZSTD_decompressDCtx(context, plane0, static_cast<size_t>(count), frame, frame_bytes);
    if (ZSTD_isError(got) || static_cast<int64_t>(got) != count)
        return failure(StatusCode::damaged, "plane 0 does not decode to %lld bytes (%s)",
                       static_cast<long long>(count),
                       ZSTD_isError(got) ? ZSTD_getErrorName(got) : "too short");
    const int64_t used = rest + static_cast<int64_t>(frame_bytes);
    if (!zero_tail(stored, used, chunk.stored_bytes))
        return failure(StatusCode::damaged, "bytes after the %lld of the planes are not zero",
                       static_cast<long long>(used));
    const uint8_t* last = stored + (word - 2) * count;
    if (chunk.transform == ChunkTransform::planes_f32_unsigned) {
        spread_sevens(last, count, plane0 + count);
        last = plane0 + count;
    }
    if (word == 4)
        merge_planes<uint32_t>(plane0, stored, last, count, raw);
    else
        merge_planes<uint16_t>(plane0, stored, last, count, raw);
    return {};
}

}  // namespace

CodecStagingBytes codec_staging_bytes(int64_t chunk_bytes) noexcept {
    CodecStagingBytes bytes;
    bytes.raw = align_up(chunk_bytes, 64);
    bytes.planes = align_up(ceil_div(chunk_bytes, 2), 64);
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

bool codec_fits(Dtype dtype, ChunkCodec codec, ChunkTransform transform) noexcept {
    const bool half = dtype == Dtype::bf16 || dtype == Dtype::f16;
    switch (transform) {
        case ChunkTransform::none:
            return codec == ChunkCodec::raw;
        case ChunkTransform::planes_f32:
        case ChunkTransform::planes_f32_unsigned:
            return codec == ChunkCodec::zstd && dtype == Dtype::f32;
        case ChunkTransform::planes_16:
            return codec == ChunkCodec::zstd && half;
    }
    return false;
}

StoredChunk encode_chunk(Dtype dtype, const void* raw, int64_t raw_bytes,
                         const CodecStaging& staging) noexcept {
    CHECK(raw_bytes >= 1 && raw_bytes <= kChunkBytesMax);
    CHECK(staging.stored.size_bytes >= stored_bound(raw_bytes));
    const int64_t word = dtype_bytes(dtype);
    const int64_t count = raw_bytes / word;
    ChunkTransform transform = word == 4 ? ChunkTransform::planes_f32 : ChunkTransform::planes_16;
    if (!codec_fits(dtype, ChunkCodec::zstd, transform) || count < kPlaneWordsMin)
        return store_raw(raw, raw_bytes, staging);

    CHECK(raw_bytes % word == 0);
    CHECK(staging.planes.size_bytes >= codec_staging_bytes(raw_bytes).planes);
    const auto* words = static_cast<const uint8_t*>(raw);
    uint8_t* stored = staging.stored.data;
    uint8_t* plane0 = staging.planes.data;
    if (word == 2) {
        split_planes<uint16_t>(words, count, plane0, stored);
    } else if (!split_planes<uint32_t>(words, count, plane0, stored)) {
        transform = ChunkTransform::planes_f32_unsigned;
        pack_sevens(stored + 2 * count, count);
    }
    const int64_t rest = rest_bytes(transform, count);
    const int64_t coded = code_plane(plane0, count, stored + rest, staging.context);
    const int64_t used = rest + coded;
    const int64_t stored_bytes = align_up(used, 64);
    // Worth it only when padding included it is smaller than the raw chunk.
    if (coded == 0 || stored_bytes >= stored_bound(raw_bytes))
        return store_raw(raw, raw_bytes, staging);
    std::memset(stored + used, 0, static_cast<size_t>(stored_bytes - used));
    return {stored_bytes, ChunkCodec::zstd, transform};
}

Status decode_chunk(const StoredChunk& chunk, void* raw, int64_t raw_bytes,
                    const CodecStaging& staging) noexcept {
    CHECK(raw_bytes >= 1 && chunk.stored_bytes <= staging.stored.size_bytes);
    if (chunk.codec == ChunkCodec::zstd && word_bytes(chunk.transform) > 0)
        return decode_planes(chunk, static_cast<uint8_t*>(raw), raw_bytes, staging);
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
