// Saves the training state of a session to a checkpoint and loads it back, in the staging the plan
// holds for it. Saving runs after seal, on any thread: no allocation, failures as a Status, the run
// goes on; the state may change behind it (SaveProgress), unit by unit.
// Path: cold.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "formats/checkpoint_reader.h"
#include "formats/checkpoint_writer.h"
#include "runtime/engine/save_progress.h"
#include "runtime/engine/session.h"

namespace plumb {

struct SaveReport {
    Hash128 digest;
    int64_t raw_bytes = 0;
    int64_t file_bytes = 0;
    double seconds = 0;
    Path directory = {};
    bool reserved = true;  // false: the file system cannot reserve the file's size beforehand
    // Of a save beside training (BackgroundSave):
    double stall_s = 0;        // updates waited until it had passed their units
    double waited_s = 0;       // training waited for the save before this one
    int64_t waited_count = 0;  // saves so far that were due while another ran, this one included
};

struct LoadReport {
    bool found = false;
    RunRecord record;
    Hash128 digest;
    std::string path;
    std::vector<std::string> notes;  // checkpoints that were passed over, and why
    // A line for each training setting that differs, and one for other numerics.
    std::vector<std::string> differences;
};

class StateIo {
  public:
    // Saves go to config.checkpoint.dir, through `files`.
    explicit StateIo(Session& session, const FileLayer& files = posix_files());
    ~StateIo();
    StateIo(const StateIo&) = delete;
    StateIo& operator=(const StateIo&) = delete;

    // Makes the folder and locks it for the life of this object: of two that save there, each would
    // take the other's save in progress for one that was interrupted. Throws Error: bad_input when
    // it is another's, a file, or too long a name for the files of a step; io when it cannot be
    // made or written. Call before load and save; inference, which changes nothing there, does not.
    void prepare_folder();

    // Removes what an interrupted save of this run left in the prepared folder. Call after load,
    // which tells which run this is.
    void remove_unfinished();

    // Throws Error (bad_input) when the folder holds checkpoints beyond `step`, where this run
    // starts: they are of another run, or of a continuation given up, and a later resume would
    // take them for this one.
    void refuse_later_steps(int64_t step) const;

    // Reads the newest valid checkpoint of `directory` (or the one that `directory` itself is).
    // Throws Error when the model differs (bad_input), when the chunks are larger than this run's
    // checkpoint.chunk_bytes (does_not_fit), or when there are checkpoints but none is valid (io).
    // Parameters alone when the session does not train. Those found damaged on the way to a valid
    // one get other names when the folder is the prepared one, so that retention does not count
    // them as kept.
    LoadReport load(const std::string& directory);

    // The state digest of what is in the arenas now.
    Hash128 digest() noexcept;

    // `record` without its hashes, which are filled in here. The digest is made on the way, of the
    // bytes that are written. `progress` (may be absent) says what may change again.
    Status save(const RunRecord& record, SaveReport* report,
                SaveProgress* progress = nullptr) noexcept;
    // Whose state save reads first: kNoUnit only where there is state of no unit.
    UnitId first_unit() const noexcept { return places_.front().unit; }
    // Removes old checkpoints of this run beyond checkpoint.keep.
    Status prune(int* removed) noexcept;

    const Session& session() const { return session_; }
    const Uuid& run() const { return run_; }

  private:
    // A logical tensor of a checkpoint, where it lies in the arenas.
    // The digest is over 32-bit words under `digest_key`: masters, under the key of their params,
    // whatever their dtype, and the rest of the state as it is.
    struct Place {
        int64_t record;  // index in records_
        UnitId unit;
        TensorId tensor;
        TensorId low;  // completes bf16 params to masters; kNoTensor: none
        bool in_digest;
        uint64_t digest_key;
    };
    Hash128 digest_span(const Place& place, int64_t first, int64_t count, const uint8_t* data,
                        const uint16_t* low) const noexcept;
    void read_elements(CheckpointReader& reader, int64_t tensor, TensorId to,
                       const CodecStaging& staging);
    void add_place(UnitId unit, TensorId id, TensorId master);
    void lock_folder();
    int64_t find_tensor(const CheckpointReader& reader, const char* stream, const std::string& name,
                        const Shape& shape) const;
    void load_weights(CheckpointReader& reader, const Param& param, const CodecStaging& staging);
    Hash128 digest_of_new_state(const CheckpointReader& reader) const;
    Hash128 digest_of_unknown_state(CheckpointReader& reader, const CodecStaging& staging);
    void load_tensors(CheckpointReader& reader, LoadReport* report);
    std::string set_aside(const std::string& path);
    CodecStaging staging(OpKind kind, ByteSpan* index) const;
    Status write_state(CheckpointWriter& writer, const ByteSpan& room, SaveProgress& progress,
                       Hash128* digest) noexcept;

    Session& session_;
    const FileLayer& files_;
    std::string directory_;
    std::string settings_;
    std::vector<TensorRecord> records_;
    std::vector<Place> places_;  // in the order of writing: by unit
    Hash128 model_hash_;
    Hash128 training_hash_;
    Hash128 layout_hash_;
    Hash128 numerics_hash_;
    Uuid run_;
    int lock_fd_ = -1;
    int unreadable_count_ = 0;  // passed over by load, still under a checkpoint's name
};

// A configuration able to run a checkpoint's model, from its settings alone.
RunConfig config_of_checkpoint(const std::string& directory,
                               const std::vector<std::string>& overrides);

}  // namespace plumb
