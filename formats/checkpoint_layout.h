// The bytes of a checkpoint, as packed little-endian structs; formats/CHECKPOINT.md is the
// specification and the static_asserts below keep both honest. A data file is
//     DataHeader | TensorRecord[] | stored chunks | ChunkRecord[] | DataFooter
// and a MANIFEST is
//     ManifestHeader | TensorRecord[] | FileRecord[] | settings text.
// There is no padding between structures, every structure is covered by a hash, reserved bytes are
// zero and checked. The structs are for many writers (file number of file count) from the start.
// Path: hot.
#pragma once

#include <bit>
#include <string_view>

#include "formats/box.h"
#include "formats/checkpoint_status.h"
#include "runtime/base/dtype.h"
#include "runtime/base/hash.h"
#include "runtime/base/types.h"

namespace plumb {

static_assert(std::endian::native == std::endian::little, "checkpoints are little-endian");

inline constexpr uint8_t kDataMagic[8] = {0x89, 0x50, 0x43, 0x4B, 0x31, 0x0D, 0x0A, 0x1A};
inline constexpr uint8_t kTailMagic[8] = {0x1A, 0x0A, 0x0D, 0x31, 0x4B, 0x43, 0x50, 0x89};
inline constexpr uint8_t kManifestMagic[8] = {0x89, 0x50, 0x43, 0x4D, 0x31, 0x0D, 0x0A, 0x1A};
inline constexpr uint32_t kCheckpointVersion = 2;
// Feature bits: a reader refuses unknown incompatible bits and ignores unknown compatible ones.
// This one: the run record has a numerics hash, in bytes that were reserved and checked before.
inline constexpr uint64_t kHasNumericsHash = 1;
inline constexpr uint64_t kKnownIncompatible = kHasNumericsHash;
inline constexpr int64_t kChunkAlignBytes = 64;
inline constexpr int64_t kSettingsBytesMax = kMiB;
inline constexpr int64_t kTensorCountMax = 1 << 20;
inline constexpr uint32_t kFileCountMax = 1 << 20;
inline constexpr char kManifestName[] = "MANIFEST";
inline constexpr char kManifestTemporaryName[] = "MANIFEST.tmp";
inline constexpr char kLatestName[] = "LATEST";
inline constexpr char kLockName[] = "LOCK";
inline constexpr char kDamagedPrefix[] = "damaged-";

// Identity of a run, kept over resumes (RFC 9562 version 4).
struct Uuid {
    uint8_t byte[16] = {};
    bool operator==(const Uuid&) const = default;
};

// What a resume needs beside the tensors. All counts since the run began.
struct RunRecord {
    int64_t step = 0;
    int64_t sequences_consumed = 0;
    int64_t tokens_consumed = 0;
    int64_t skipped_steps = 0;
    double loss_scale = 0;  // 0: none (fp32, bf16)
    int64_t loss_scale_good_steps = 0;
    Hash128 model_hash;
    Hash128 training_hash;
    Hash128 layout_hash;
    Hash128 numerics_hash;  // runtime/engine/numerics.h; zeros: not known
    uint8_t reserved[16] = {};
};

// What the headers of a checkpoint with this record say, no more and no less.
constexpr uint64_t incompatible_bits(const RunRecord& record) noexcept {
    return record.numerics_hash == Hash128{} ? 0 : kHasNumericsHash;
}

struct TensorRecord {
    char name[112] = {};     // printable ASCII, zero-terminated and zero-filled
    char stream[16] = {};    // "param", "master_lo", "master", "moment1", "moment2", "state"
    uint8_t dtype_code = 0;  // f32 1, f64 2, i32 3, i64 4, u8 5, bf16 6, f16 7, u16 8
    uint8_t rank = 0;
    uint8_t reserved0[6] = {};
    int64_t dim[kMaxRank] = {1, 1, 1, 1};  // trailing dims 1
    uint8_t reserved1[24] = {};
};

struct DataHeader {
    uint8_t magic[8] = {};
    uint32_t version = 0;
    uint32_t header_bytes = 0;
    uint64_t incompatible = 0;
    uint64_t compatible = 0;
    Uuid run;
    uint32_t file_number = 0;
    uint32_t file_count = 0;
    int64_t chunk_bytes_max = 0;  // raw bytes of the largest chunk allowed in this save
    int64_t tensor_count = 0;
    uint64_t save_id = 0;  // fresh per save; its low half is the directory's 8 hex digits
    Hash128 tensor_table_hash;
    RunRecord record;
    uint8_t reserved[3856] = {};
    Hash128 own_hash;  // of all bytes before it
};

struct ChunkRecord {
    int64_t offset = 0;
    int64_t stored_bytes = 0;
    int64_t raw_bytes = 0;
    uint32_t tensor = 0;  // index into the tensor table
    uint8_t codec = 0;
    uint8_t transform = 0;
    uint8_t reserved0[2] = {};
    Box box;
    Hash128 hash;  // of the stored bytes, seeded by chunk_seed
    uint8_t reserved1[16] = {};
};

struct DataFooter {
    uint64_t save_id = 0;
    int64_t chunk_count = 0;
    int64_t index_offset = 0;
    Hash128 index_hash;
    int64_t file_bytes = 0;
    uint32_t file_number = 0;
    uint32_t reserved0 = 0;
    Uuid run;
    uint8_t reserved1[32] = {};
    Hash128 own_hash;  // of all bytes before it
    uint8_t tail_magic[8] = {};
};

struct ManifestHeader {
    uint8_t magic[8] = {};
    uint32_t version = 0;
    uint32_t header_bytes = 0;
    uint64_t incompatible = 0;
    uint64_t compatible = 0;
    Uuid run;
    uint64_t save_id = 0;
    int64_t created_ns = 0;  // since 1970, UTC; orders two saves of one step
    RunRecord record;
    Hash128 state_digest;
    int64_t tensor_count = 0;
    Hash128 tensor_table_hash;
    int64_t file_count = 0;
    Hash128 file_table_hash;
    int64_t settings_bytes = 0;
    Hash128 settings_hash;
    int64_t manifest_bytes = 0;
    int64_t chunk_bytes_max = 0;
    uint8_t reserved[200] = {};
    Hash128 own_hash;  // of all bytes before it
};

struct FileRecord {
    uint32_t number = 0;
    uint32_t reserved0 = 0;
    int64_t file_bytes = 0;
    int64_t chunk_count = 0;
    int64_t raw_bytes = 0;
    Hash128 index_hash;
    uint8_t reserved1[16] = {};
};

static_assert(sizeof(Uuid) == 16 && sizeof(Hash128) == 16 && sizeof(Box) == 64);
static_assert(sizeof(RunRecord) == 128 && offsetof(RunRecord, model_hash) == 48 &&
              offsetof(RunRecord, numerics_hash) == 96);
static_assert(sizeof(TensorRecord) == 192 && offsetof(TensorRecord, dim) == 136);
static_assert(sizeof(DataHeader) == 4096 && offsetof(DataHeader, record) == 96 &&
              offsetof(DataHeader, own_hash) == 4080);
static_assert(sizeof(ChunkRecord) == 128 && offsetof(ChunkRecord, box) == 32 &&
              offsetof(ChunkRecord, hash) == 96);
static_assert(sizeof(DataFooter) == 128 && offsetof(DataFooter, own_hash) == 104);
static_assert(sizeof(ManifestHeader) == 512 && offsetof(ManifestHeader, record) == 64 &&
              offsetof(ManifestHeader, own_hash) == 496);
static_assert(sizeof(FileRecord) == 64 && offsetof(FileRecord, index_hash) == 32);

uint8_t dtype_code(Dtype dtype) noexcept;
bool dtype_from_code(uint8_t code, Dtype* dtype) noexcept;

// A row of the tensor table. Throws Error for a name that does not fit or is not printable.
TensorRecord make_tensor_record(std::string_view stream, std::string_view name, Dtype dtype,
                                const Shape& shape);
// These expect a validated record.
Dtype tensor_dtype(const TensorRecord& tensor) noexcept;
Shape tensor_shape(const TensorRecord& tensor) noexcept;
// digest_key(stream, name): the tensor in seeds and tiling sums.
uint64_t tensor_key(const TensorRecord& tensor) noexcept;
// Its key in the state digest: masters count as the params that they are.
uint64_t state_key(const TensorRecord& tensor) noexcept;

// Seed of a chunk's hash: binds the bytes to run, tensor and box, so that stale or misdirected
// bytes cannot pass.
uint64_t chunk_seed(const Uuid& run, uint64_t tensor_key, const Box& box) noexcept;

// "data-00000.pck"; "step-000000000050-1a2b3c4d".
struct FileName {
    char text[48];
};
FileName data_file_name(uint32_t number) noexcept;
FileName step_directory_name(int64_t step, uint64_t save_id) noexcept;
// Parses a step directory's name; false when it is not one.
bool parse_step_name(const char* name, int64_t* step, uint32_t* save_id_low) noexcept;

// From the kernel's generator; no allocation.
Uuid fresh_uuid() noexcept;
uint64_t fresh_save_id() noexcept;

}  // namespace plumb
