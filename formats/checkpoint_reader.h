// Reads checkpoints. Opening one reads and validates every structure (manifest, headers, indexes,
// tiling) before any tensor byte; reading a box verifies each chunk's hash over its stored bytes
// and only then decodes it, in the caller's staging. Damage throws CheckpointDamage, which
// load_newest answers by taking the step before, as other I/O errors do not; whether the model is
// the right one is for the caller to decide from record() and settings(). Allocates its index: use
// before seal.
// Path: cold.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/checkpoint_folder.h"
#include "formats/checkpoint_validate.h"

namespace plumb {

class CheckpointReader {
  public:
    // Opens PATH/MANIFEST and all data files.
    explicit CheckpointReader(const std::string& path, const FileLayer& files = posix_files());
    ~CheckpointReader();
    CheckpointReader(const CheckpointReader&) = delete;
    CheckpointReader& operator=(const CheckpointReader&) = delete;

    const std::string& path() const { return path_; }
    const ManifestHeader& header() const { return *manifest_.header; }
    const RunRecord& record() const { return manifest_.header->record; }
    std::string_view settings() const;
    int64_t tensor_count() const { return manifest_.header->tensor_count; }
    const TensorRecord& tensor(int64_t index) const { return manifest_.tensors[index]; }
    // Index of a tensor, or -1.
    int64_t find(std::string_view stream, std::string_view name) const;
    // Staging that the read functions need for this checkpoint's chunks.
    CodecStagingBytes staging_bytes() const;

    // Chunks over all files.
    int64_t chunk_count() const { return static_cast<int64_t>(chunks_.size()); }
    int64_t stored_bytes() const;  // of the chunks

    // A box, a flat span, or the whole of a tensor, dense, into `destination`.
    void read_box(int64_t tensor, const Box& box, void* destination, const CodecStaging& staging);
    void read_span(int64_t tensor, int64_t first, int64_t count, void* destination,
                   const CodecStaging& staging);
    void read_tensor(int64_t tensor, void* destination, const CodecStaging& staging);

    // Reads, verifies and decodes all of a tensor; what it adds to the state digest.
    Hash128 digest(int64_t tensor, const CodecStaging& staging);

    // Reads, verifies and decodes every chunk and compares the state digest of what was decoded
    // with the MANIFEST's.
    void verify(const CodecStaging& staging);

  private:
    struct ChunkPlace {
        const ChunkRecord* record;
        uint32_t file;
    };
    struct DataFile {
        std::string path;
        int fd = -1;
        std::vector<ChunkRecord> index;
    };
    void open_data_file(uint32_t number, Hash128* tiling);
    void decode(const ChunkPlace& place, void* raw, const CodecStaging& staging);
    void close_all() noexcept;

    std::string path_;
    const FileLayer& files_;
    std::vector<uint64_t> manifest_bytes_;
    ManifestView manifest_;
    std::vector<DataFile> data_;
    std::vector<ChunkPlace> chunks_;    // by tensor, then by place on disk
    std::vector<int64_t> first_chunk_;  // per tensor, index into chunks_; one more at the end
};

// Step directories that claim to be checkpoints (committed or damaged), newest first. Empty when
// the directory does not exist or holds none.
std::vector<StepEntry> find_steps(const std::string& directory,
                                  const FileLayer& files = posix_files());

// Opens the newest checkpoint and hands it to `load`; when opening or loading throws
// CheckpointDamage, calls `skipped` (which checkpoint, why) and takes the one before. Other errors
// (wrong model, no permission) pass through. Returns false when there is none at all; throws when
// there are some but none is readable.
bool load_newest(
    const std::string& directory, const std::function<void(CheckpointReader&)>& load,
    const std::function<void(const std::string& path, const CheckpointDamage& why)>& skipped,
    const FileLayer& files = posix_files());

// Memory for a reader's or writer's staging, for cold callers and tools.
class OwnedStaging {
  public:
    explicit OwnedStaging(const CodecStagingBytes& bytes);
    const CodecStaging& spans() const { return spans_; }

  private:
    std::vector<uint8_t> memory_;
    CodecStaging spans_;
};

}  // namespace plumb
