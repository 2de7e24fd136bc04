// The chunk codec. Words of an f32, bf16 or f16 chunk are rotated left by one bit and parted into
// byte planes: plane 0 begins with the exponent (about 2.6 bits of information, whatever its width)
// and the sign joins the mantissa. Plane 0 is coded by zstd with matching switched off (Huffman
// only); the rest is noise and is stored as it is, without the sign when none is set, as in AdamW's
// second moment. A chunk that does not shrink, or is of another dtype, is stored raw, so a stored
// chunk is never larger than align_up(raw, 64). Works only on the caller's buffers and allocates
// nothing: zstd runs in a static context. The stored bytes are in formats/CHECKPOINT.md, ratios and
// speeds beside their limits in perf/README.md.
// Path: hot.
#pragma once

#include "formats/checkpoint_status.h"
#include "runtime/base/dtype.h"
#include "runtime/base/types.h"

namespace plumb {

inline constexpr int64_t kChunkBytesDefault = kMiB;
inline constexpr int64_t kChunkBytesMin = 64;
inline constexpr int64_t kChunkBytesMax = 16 * kMiB;

// Context sizes for planning; check_codec_contexts compares them with zstd's own estimates.
inline constexpr int64_t kCompressContextBytes = 640 * kKiB;
inline constexpr int64_t kDecompressContextBytes = 128 * kKiB;

enum class ChunkCodec : uint8_t { raw = 0, zstd = 1 };
enum class ChunkTransform : uint8_t {
    none = 0,
    planes_f32 = 1,
    planes_16 = 2,            // bf16, f16
    planes_f32_unsigned = 3,  // f32 without a sign set
};

// Whether a stored chunk of this dtype may have this codec and transform.
bool codec_fits(Dtype dtype, ChunkCodec codec, ChunkTransform transform) noexcept;

struct ByteSpan {
    uint8_t* data = nullptr;
    int64_t size_bytes = 0;
};

// Buffers of the codec, 64-byte aligned; `planes` holds planes that change their form: half a
// chunk. Writing uses planes, stored and context; reading uses all.
struct CodecStaging {
    ByteSpan raw;
    ByteSpan planes;
    ByteSpan stored;
    ByteSpan context;
};

struct CodecStagingBytes {
    int64_t raw = 0;
    int64_t planes = 0;
    int64_t stored = 0;
    int64_t context = 0;
    int64_t total() const { return raw + planes + stored + context; }
};

// What a save or a load with chunks of at most chunk_bytes needs; all multiples of 64.
CodecStagingBytes codec_staging_bytes(int64_t chunk_bytes) noexcept;

// Upper bound of a stored chunk.
constexpr int64_t stored_bound(int64_t raw_bytes) {
    return align_up(raw_bytes, 64);
}

// Fails when the linked zstd needs larger contexts than the constants above. Call at start
// (allocates and frees inside zstd).
Status check_codec_contexts();

struct StoredChunk {
    int64_t stored_bytes = 0;  // in staging.stored; a multiple of 64, zero-padded
    ChunkCodec codec = ChunkCodec::raw;
    ChunkTransform transform = ChunkTransform::none;
};

// Codes raw_bytes of `raw` into staging.stored. The spans must be as large as
// codec_staging_bytes says for a chunk of raw_bytes (CHECKed).
StoredChunk encode_chunk(Dtype dtype, const void* raw, int64_t raw_bytes,
                         const CodecStaging& staging) noexcept;

// Decodes staging.stored into `raw`. Every size inside the stored bytes is checked, and that its
// padding is zero and no longer than it must be. `raw` may be staging.raw.
Status decode_chunk(const StoredChunk& chunk, void* raw, int64_t raw_bytes,
                    const CodecStaging& staging) noexcept;

}  // namespace plumb
