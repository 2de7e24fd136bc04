// Saves a checkpoint: reserve, write in one pass, fdatasync, commit by renaming MANIFEST. It runs
// inside the training loop after seal, so it allocates nothing, throws nothing and works in the
// caller's planned memory; every step is a plain system call through a FileLayer. A failure
// condemns the new directory, which is removed as far as possible; earlier checkpoints are never
// touched. Only after commit() has returned ok may a save be reported.
// Use: begin, then write_* until every tensor is covered, then commit; abandon() otherwise.
// Path: hot.
#pragma once

#include "formats/checkpoint_layout.h"
#include "formats/file_layer.h"
#include "formats/planes.h"

namespace plumb {

// What is saved. Pointers must stay valid until commit or abandon.
struct SaveRequest {
    const char* directory = nullptr;  // checkpoint.dir; must exist
    Uuid run;
    RunRecord record;
    const TensorRecord* tensors = nullptr;  // made once, before seal (make_tensor_record)
    int64_t tensor_count = 0;
    const char* settings = nullptr;  // the run's settings as text, at most 1 MiB
    int64_t settings_bytes = 0;
    int64_t chunk_bytes = kChunkBytesDefault;
};

// Chunks that whole tensors give, and bytes of the chunk index they need (SaveMemory::index).
int64_t planned_chunk_count(const TensorRecord* tensors, int64_t tensor_count, int64_t chunk_bytes);
int64_t planned_index_bytes(const TensorRecord* tensors, int64_t tensor_count, int64_t chunk_bytes);
// Upper bound of the data file: what is reserved on disk before the first byte is written.
int64_t planned_file_bytes(const TensorRecord* tensors, int64_t tensor_count, int64_t chunk_bytes);

struct SaveMemory {
    CodecStaging staging;  // planes, stored, context
    ByteSpan index;        // 64-byte aligned
};

class CheckpointWriter {
  public:
    explicit CheckpointWriter(const FileLayer& files = posix_files()) noexcept : files_(files) {}
    ~CheckpointWriter() { abandon(); }
    CheckpointWriter(const CheckpointWriter&) = delete;
    CheckpointWriter& operator=(const CheckpointWriter&) = delete;

    // Makes the step's directory and data file, reserves the planned bound and writes the header.
    Status begin(const SaveRequest& request, const SaveMemory& memory) noexcept;

    // A whole tensor; a dense box of it; a flat span of it. `data` is dense, of the tensor's dtype.
    Status write_tensor(int64_t tensor, const void* data) noexcept;
    Status write_box(int64_t tensor, const Box& box, const void* data) noexcept;
    Status write_span(int64_t tensor, int64_t first, int64_t count, const void* data) noexcept;

    // Checks that the boxes tile every tensor, then publishes. ok means durable.
    Status commit(Hash128 state_digest) noexcept;

    // Gives up: removes what was written. Called by every failure; may be called at any time.
    void abandon() noexcept;

    // False when the file system cannot reserve (worth a line to the user).
    bool reserved() const { return reserved_; }
    int64_t file_bytes() const { return offset_; }
    int64_t raw_bytes() const { return raw_bytes_; }
    const char* step_directory() const { return step_path_.text; }

  private:
    Status make_step() noexcept;
    Status check_request() noexcept;
    Status write_header() noexcept;
    Status write_one_chunk(int64_t tensor, const Box& box, const void* data) noexcept;
    Status finish_data() noexcept;
    Status write_manifest(Hash128 state_digest) noexcept;
    Status check_tiling() noexcept;
    void write_latest() noexcept;
    Status fail(const Status& status) noexcept;

    const FileLayer& files_;
    SaveRequest request_;
    SaveMemory memory_;
    uint64_t save_id_ = 0;
    int fd_ = -1;
    bool active_ = false;     // between begin and commit or abandon
    bool made_step_ = false;  // the directory is ours to remove
    bool reserved_ = false;
    int64_t offset_ = 0;
    int64_t raw_bytes_ = 0;
    int64_t chunk_count_ = 0;
    Hash128 tiling_;
    Hash128 table_hash_;
    Hash128 index_hash_;
    FileName step_name_ = {};
    Path step_path_ = {};
    Path data_path_ = {};
};

}  // namespace plumb
