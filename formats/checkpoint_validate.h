// Judges the bytes of a checkpoint: pure functions of byte spans, allocation-free, safe for any
// input, so they can be fuzzed and every flipped bit can be tried. One pass of checked arithmetic
// over every structure comes before any tensor byte is looked at; every count is bounded by the
// bytes that remain and every size is compared with its second source. `file` names the bytes in
// messages. Tensor data is judged by verify_chunk, hash first, and only then decoded.
// Path: cold.
#pragma once

#include "formats/checkpoint_layout.h"
#include "formats/planes.h"

namespace plumb {

struct ConstBytes {
    const uint8_t* data = nullptr;
    int64_t size_bytes = 0;
};

// Pointers into the validated bytes (which must be 8-byte aligned and outlive the view).
struct ManifestView {
    const ManifestHeader* header = nullptr;
    const TensorRecord* tensors = nullptr;
    const FileRecord* files = nullptr;
    const char* settings = nullptr;
};

// Every record well-formed (at least 1 per dim, sizes fit 63 bits), no tensor twice, and each of a
// known stream with a dtype and a param beside it as that stream has.
Status validate_tensors(const char* file, const TensorRecord* tensors, int64_t count) noexcept;

// The first 512 bytes of a MANIFEST alone: magic, version, features, reserved bytes, own hash.
Status validate_manifest_header(const char* file, ConstBytes bytes) noexcept;

// A whole MANIFEST.
Status validate_manifest(const char* file, ConstBytes bytes, ManifestView* view) noexcept;

// The parts of data file `number` against the manifest. file_bytes is the size the file system
// reports. Order: header, footer, table, index; each
// needs those before.
Status validate_data_header(const char* file, ConstBytes bytes, const ManifestView& manifest,
                            uint32_t number) noexcept;
// The data file's copy of the tensor table (the header has vouched for its size).
Status validate_data_table(const char* file, const void* table,
                           const ManifestView& manifest) noexcept;
Status validate_data_footer(const char* file, ConstBytes bytes, int64_t file_bytes,
                            const ManifestView& manifest, uint32_t number) noexcept;
// *tiling accumulates tiling_sum over the file's chunks.
Status validate_index(const char* file, ConstBytes bytes, const ManifestView& manifest,
                      uint32_t number, Hash128* tiling) noexcept;
// After all files: the chunks tile every tensor.
Status validate_tiling(const char* directory, const ManifestView& manifest,
                       Hash128 tiling) noexcept;

// Hash of a chunk's stored bytes.
Status verify_chunk(const char* file, const ManifestView& manifest, const ChunkRecord& chunk,
                    const uint8_t* stored) noexcept;

// A whole data file in memory: all of the above with every chunk's hash, and the tensor table.
Status validate_data_file(const char* file, ConstBytes bytes, const ManifestView& manifest,
                          uint32_t number, Hash128* tiling) noexcept;

}  // namespace plumb
