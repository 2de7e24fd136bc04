#include "formats/checkpoint_writer.h"

#include <fcntl.h>
#include <time.h>

#include <cstring>

#include "formats/checkpoint_folder.h"
#include "formats/checkpoint_validate.h"
#include "runtime/base/check.h"
#include "runtime/base/digest.h"

namespace plumb {

namespace {

template <typename Visit>
void for_each_chunk(const TensorRecord& tensor, int64_t chunk_bytes, Visit visit) {
    const int64_t element_bytes = dtype_bytes(tensor_dtype(tensor));
    ChunkCursor cursor(whole_box(tensor_shape(tensor)), chunk_bytes / element_bytes);
    Box box;
    for (int64_t offset = 0; cursor.next(&box, &offset);) visit(box_elements(box) * element_bytes);
}

template <typename Record>
Hash128 own_hash(const Record& record) noexcept {
    return hash128(&record, offsetof(Record, own_hash));
}

Hash128 table_hash(const TensorRecord* tensors, int64_t count) noexcept {
    return hash128(tensors, count * static_cast<int64_t>(sizeof(TensorRecord)));
}

}  // namespace

int64_t planned_chunk_count(const TensorRecord* tensors, int64_t tensor_count,
                            int64_t chunk_bytes) {
    int64_t count = 0;
    for (int64_t t = 0; t < tensor_count; ++t)
        for_each_chunk(tensors[t], chunk_bytes, [&](int64_t) { ++count; });
    return count;
}

int64_t planned_index_bytes(const TensorRecord* tensors, int64_t tensor_count,
                            int64_t chunk_bytes) {
    return planned_chunk_count(tensors, tensor_count, chunk_bytes) *
           static_cast<int64_t>(sizeof(ChunkRecord));
}

int64_t planned_file_bytes(const TensorRecord* tensors, int64_t tensor_count, int64_t chunk_bytes) {
    int64_t bytes = static_cast<int64_t>(sizeof(DataHeader) + sizeof(DataFooter)) +
                    tensor_count * static_cast<int64_t>(sizeof(TensorRecord));
    for (int64_t t = 0; t < tensor_count; ++t)
        for_each_chunk(tensors[t], chunk_bytes, [&](int64_t raw_bytes) {
            bytes += stored_bound(raw_bytes) + static_cast<int64_t>(sizeof(ChunkRecord));
        });
    return bytes;
}

Status CheckpointWriter::begin(const SaveRequest& request, const SaveMemory& memory) noexcept {
    CHECK_NOTE(!active_, "begin of a save while another is in progress");
    request_ = request;
    memory_ = memory;
    made_step_ = false;
    offset_ = raw_bytes_ = chunk_count_ = 0;
    tiling_ = {};
    Status status = check_request();
    if (!status.ok()) return status;
    active_ = true;
    status = make_step();
    if (status.ok()) status = write_header();
    return status.ok() ? status : fail(status);
}

Status CheckpointWriter::check_request() noexcept {
    const CodecStagingBytes needed = codec_staging_bytes(request_.chunk_bytes);
    if (request_.chunk_bytes < kChunkBytesMin || request_.chunk_bytes > kChunkBytesMax)
        return failure(StatusCode::bad_argument, "chunk_bytes is %lld, expected %lld to %lld",
                       static_cast<long long>(request_.chunk_bytes),
                       static_cast<long long>(kChunkBytesMin),
                       static_cast<long long>(kChunkBytesMax));
    if (request_.settings_bytes < 0 || request_.settings_bytes > kSettingsBytesMax)
        return failure(StatusCode::bad_argument, "settings have %lld bytes, at most %lld fit",
                       static_cast<long long>(request_.settings_bytes),
                       static_cast<long long>(kSettingsBytesMax));
    if (request_.tensor_count < 1 || request_.tensor_count > kTensorCountMax)
        return failure(StatusCode::bad_argument, "%lld tensors, expected 1 to %lld",
                       static_cast<long long>(request_.tensor_count),
                       static_cast<long long>(kTensorCountMax));
    const CodecStaging& staging = memory_.staging;
    if (staging.planes.size_bytes < needed.planes || staging.stored.size_bytes < needed.stored ||
        staging.context.size_bytes < needed.context)
        return failure(StatusCode::bad_argument,
                       "staging has %lld + %lld + %lld bytes (planes, stored, context), chunks of "
                       "%lld need %lld + %lld + %lld",
                       static_cast<long long>(staging.planes.size_bytes),
                       static_cast<long long>(staging.stored.size_bytes),
                       static_cast<long long>(staging.context.size_bytes),
                       static_cast<long long>(request_.chunk_bytes),
                       static_cast<long long>(needed.planes), static_cast<long long>(needed.stored),
                       static_cast<long long>(needed.context));
    Status status = validate_tensors("save", request_.tensors, request_.tensor_count);
    if (!status.ok()) status.code = StatusCode::bad_argument;
    return status;
}

// Directory, data file and its reservation: all that can fail because of the folder or the disk.
Status CheckpointWriter::make_step() noexcept {
    save_id_ = fresh_save_id();
    step_name_ = step_directory_name(request_.record.step, save_id_);
    Status status = join_path(request_.directory, step_name_.text, &step_path_);
    if (status.ok()) status = join_path(step_path_.text, data_file_name(0).text, &data_path_);
    if (status.ok()) status = make_directory(files_, step_path_.text);
    if (!status.ok()) return status;
    made_step_ = true;
    status = sync_directory(files_, request_.directory);
    if (status.ok()) status = open_file(files_, data_path_.text, O_WRONLY | O_CREAT | O_EXCL, &fd_);
    if (!status.ok()) return status;
    const int64_t bound =
        planned_file_bytes(request_.tensors, request_.tensor_count, request_.chunk_bytes);
    return reserve_file(files_, fd_, data_path_.text, bound, &reserved_);
}

Status CheckpointWriter::write_header() noexcept {
    table_hash_ = table_hash(request_.tensors, request_.tensor_count);
    DataHeader header;
    std::memcpy(header.magic, kDataMagic, sizeof kDataMagic);
    header.version = kCheckpointVersion;
    header.header_bytes = sizeof header;
    header.incompatible = incompatible_bits(request_.record);
    header.run = request_.run;
    header.file_number = 0;
    header.file_count = 1;
    header.chunk_bytes_max = request_.chunk_bytes;
    header.tensor_count = request_.tensor_count;
    header.save_id = save_id_;
    header.tensor_table_hash = table_hash_;
    header.record = request_.record;
    header.own_hash = own_hash(header);
    Status status = write_fully(files_, fd_, data_path_.text, &header, sizeof header, 0);
    if (!status.ok()) return status;
    const int64_t table_bytes = request_.tensor_count * static_cast<int64_t>(sizeof(TensorRecord));
    offset_ = static_cast<int64_t>(sizeof header) + table_bytes;
    return write_fully(files_, fd_, data_path_.text, request_.tensors, table_bytes, sizeof header);
}

Status CheckpointWriter::write_tensor(int64_t tensor, const void* data) noexcept {
    CHECK(tensor >= 0 && tensor < request_.tensor_count);
    return write_box(tensor, whole_box(tensor_shape(request_.tensors[tensor])), data);
}

Status CheckpointWriter::write_span(int64_t tensor, int64_t first, int64_t count,
                                    const void* data) noexcept {
    CHECK(tensor >= 0 && tensor < request_.tensor_count);
    const TensorRecord& record = request_.tensors[tensor];
    const int64_t element_bytes = dtype_bytes(tensor_dtype(record));
    Box boxes[kMaxSpanBoxes];
    const int box_count = span_boxes(tensor_shape(record), first, count, boxes);
    const auto* at = static_cast<const uint8_t*>(data);
    for (int b = 0; b < box_count; ++b) {
        const Status status = write_box(tensor, boxes[b], at);
        if (!status.ok()) return status;
        at += box_elements(boxes[b]) * element_bytes;
    }
    return {};
}

Status CheckpointWriter::write_box(int64_t tensor, const Box& box, const void* data) noexcept {
    if (!active_) return failure(StatusCode::bad_argument, "no save is in progress");
    CHECK(tensor >= 0 && tensor < request_.tensor_count);
    const TensorRecord& record = request_.tensors[tensor];
    if (!box_inside(box, tensor_shape(record)))
        return fail(failure(StatusCode::bad_argument, "a box lies outside %s of %s", record.stream,
                            record.name));
    const int64_t element_bytes = dtype_bytes(tensor_dtype(record));
    ChunkCursor cursor(box, request_.chunk_bytes / element_bytes);
    Box chunk;
    for (int64_t offset = 0; cursor.next(&chunk, &offset);) {
        const Status status = write_one_chunk(
            tensor, chunk, static_cast<const uint8_t*>(data) + offset * element_bytes);
        if (!status.ok()) return fail(status);
    }
    return {};
}

Status CheckpointWriter::write_one_chunk(int64_t tensor, const Box& box,
                                         const void* data) noexcept {
    const int64_t capacity = memory_.index.size_bytes / static_cast<int64_t>(sizeof(ChunkRecord));
    if (chunk_count_ >= capacity)
        return failure(StatusCode::bad_argument,
                       "the index buffer has %lld bytes, room for %lld "
                       "chunks, and there are more",
                       static_cast<long long>(memory_.index.size_bytes),
                       static_cast<long long>(capacity));
    const TensorRecord& info = request_.tensors[tensor];
    const Dtype dtype = tensor_dtype(info);
    const uint64_t key = tensor_key(info);
    ChunkRecord record;
    record.offset = offset_;
    record.raw_bytes = box_elements(box) * dtype_bytes(dtype);
    record.tensor = static_cast<uint32_t>(tensor);
    record.box = box;
    const StoredChunk stored = encode_chunk(dtype, data, record.raw_bytes, memory_.staging);
    record.stored_bytes = stored.stored_bytes;
    record.codec = static_cast<uint8_t>(stored.codec);
    record.transform = static_cast<uint8_t>(stored.transform);
    record.hash = hash128(memory_.staging.stored.data, stored.stored_bytes,
                          chunk_seed(request_.run, key, box));
    const Status status = write_fully(files_, fd_, data_path_.text, memory_.staging.stored.data,
                                      stored.stored_bytes, offset_);
    if (!status.ok()) return status;
    std::memcpy(memory_.index.data + chunk_count_ * static_cast<int64_t>(sizeof record), &record,
                sizeof record);
    ++chunk_count_;
    offset_ += record.stored_bytes;
    raw_bytes_ += record.raw_bytes;
    tiling_ = digest_add(tiling_, tiling_sum(key, box));
    return {};
}

Status CheckpointWriter::commit(Hash128 state_digest) noexcept {
    if (!active_) return failure(StatusCode::bad_argument, "no save is in progress");
    Status status = check_tiling();
    if (status.ok()) status = finish_data();
    if (status.ok()) status = write_manifest(state_digest);
    if (!status.ok()) return fail(status);
    active_ = false;
    write_latest();
    return {};
}

Status CheckpointWriter::check_tiling() noexcept {
    Hash128 whole;
    for (int64_t t = 0; t < request_.tensor_count; ++t) {
        const TensorRecord& tensor = request_.tensors[t];
        whole = digest_add(whole, tiling_sum(tensor_key(tensor), whole_box(tensor_shape(tensor))));
    }
    if (whole == tiling_) return {};
    // Which tensor it is takes a second pass, on failure only.
    const auto* chunks = reinterpret_cast<const ChunkRecord*>(memory_.index.data);
    for (uint32_t t = 0; t < request_.tensor_count; ++t) {
        const TensorRecord& tensor = request_.tensors[t];
        const Box box = whole_box(tensor_shape(tensor));
        const uint64_t key = tensor_key(tensor);
        Hash128 sum;
        int64_t elements = 0;
        for (int64_t c = 0; c < chunk_count_; ++c) {
            if (chunks[c].tensor != t) continue;
            sum = digest_add(sum, tiling_sum(key, chunks[c].box));
            elements += box_elements(chunks[c].box);
        }
        if (sum != tiling_sum(key, box))
            return failure(StatusCode::bad_argument,
                           "the boxes written of %s of %s leave a hole or overlap: %lld elements "
                           "written, it has %lld",
                           tensor.stream, tensor.name, static_cast<long long>(elements),
                           static_cast<long long>(box_elements(box)));
    }
    return failure(StatusCode::bad_argument, "the boxes written do not tile the tensors");
}

Status CheckpointWriter::finish_data() noexcept {
    const int64_t index_bytes = chunk_count_ * static_cast<int64_t>(sizeof(ChunkRecord));
    index_hash_ = hash128(memory_.index.data, index_bytes);
    DataFooter footer;
    footer.save_id = save_id_;
    footer.chunk_count = chunk_count_;
    footer.index_offset = offset_;
    footer.index_hash = index_hash_;
    footer.file_bytes = offset_ + index_bytes + static_cast<int64_t>(sizeof footer);
    footer.run = request_.run;
    footer.own_hash = own_hash(footer);
    std::memcpy(footer.tail_magic, kTailMagic, sizeof kTailMagic);
    const char* path = data_path_.text;
    Status status = write_fully(files_, fd_, path, memory_.index.data, index_bytes, offset_);
    offset_ += index_bytes;
    if (status.ok()) status = write_fully(files_, fd_, path, &footer, sizeof footer, offset_);
    offset_ += static_cast<int64_t>(sizeof footer);
    if (status.ok()) status = cut_file(files_, fd_, path, offset_);
    if (status.ok()) status = sync_data(files_, fd_, path);
    if (!status.ok()) return status;
    const int fd = fd_;
    fd_ = -1;
    return close_file(files_, fd, path);
}

Status CheckpointWriter::write_manifest(Hash128 state_digest) noexcept {
    FileRecord file;
    file.file_bytes = offset_;
    file.chunk_count = chunk_count_;
    file.raw_bytes = raw_bytes_;
    file.index_hash = index_hash_;
    const int64_t table_bytes = request_.tensor_count * static_cast<int64_t>(sizeof(TensorRecord));
    timespec now = {};
    ::clock_gettime(CLOCK_REALTIME, &now);
    ManifestHeader header;
    std::memcpy(header.magic, kManifestMagic, sizeof kManifestMagic);
    header.version = kCheckpointVersion;
    header.header_bytes = sizeof header;
    header.incompatible = incompatible_bits(request_.record);
    header.run = request_.run;
    header.save_id = save_id_;
    header.created_ns = int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
    header.record = request_.record;
    header.state_digest = state_digest;
    header.tensor_count = request_.tensor_count;
    header.tensor_table_hash = table_hash_;
    header.file_count = 1;
    header.file_table_hash = hash128(&file, sizeof file);
    header.settings_bytes = request_.settings_bytes;
    header.settings_hash = hash128(request_.settings, request_.settings_bytes);
    header.manifest_bytes = static_cast<int64_t>(sizeof header) + table_bytes +
                            static_cast<int64_t>(sizeof file) + request_.settings_bytes;
    header.chunk_bytes_max = request_.chunk_bytes;
    header.own_hash = own_hash(header);

    Path temporary;
    Path final_path;
    Status status = join_path(step_path_.text, kManifestTemporaryName, &temporary);
    if (status.ok()) status = join_path(step_path_.text, kManifestName, &final_path);
    if (status.ok()) status = open_file(files_, temporary.text, O_WRONLY | O_CREAT | O_EXCL, &fd_);
    const struct {
        const void* data;
        int64_t size_bytes;
    } parts[] = {{&header, sizeof header},
                 {request_.tensors, table_bytes},
                 {&file, sizeof file},
                 {request_.settings, request_.settings_bytes}};
    int64_t offset = 0;
    for (const auto& part : parts) {
        if (status.ok())
            status = write_fully(files_, fd_, temporary.text, part.data, part.size_bytes, offset);
        offset += part.size_bytes;
    }
    if (status.ok()) status = sync_file(files_, fd_, temporary.text);
    if (!status.ok()) return status;
    const int fd = fd_;
    fd_ = -1;
    status = close_file(files_, fd, temporary.text);
    // The names of the files are durable before the name MANIFEST makes them a checkpoint.
    if (status.ok()) status = sync_directory(files_, step_path_.text);
    if (status.ok()) status = rename_file(files_, temporary.text, final_path.text);
    if (status.ok()) status = sync_directory(files_, step_path_.text);
    if (status.ok()) status = sync_directory(files_, request_.directory);
    return status;
}

// A hint for people and scripts that no program of ours trusts: its failure is not the save's.
void CheckpointWriter::write_latest() noexcept {
    Path temporary;
    Path latest;
    if (!join_path(request_.directory, "LATEST.tmp", &temporary).ok() ||
        !join_path(request_.directory, kLatestName, &latest).ok())
        return;
    int fd = -1;
    if (!open_file(files_, temporary.text, O_WRONLY | O_CREAT | O_TRUNC, &fd).ok()) return;
    const auto size = static_cast<int64_t>(std::strlen(step_name_.text));
    const bool written = write_fully(files_, fd, temporary.text, step_name_.text, size, 0).ok() &&
                         write_fully(files_, fd, temporary.text, "\n", 1, size).ok();
    const bool closed = close_file(files_, fd, temporary.text).ok();
    if (!written || !closed || !rename_file(files_, temporary.text, latest.text).ok())
        static_cast<void>(remove_file(files_, temporary.text));
}

Status CheckpointWriter::fail(const Status& status) noexcept {
    abandon();
    return status;
}

void CheckpointWriter::abandon() noexcept {
    if (fd_ >= 0) static_cast<void>(close_file(files_, fd_, data_path_.text));
    fd_ = -1;
    // What cannot be removed now is removed at the next start.
    if (active_ && made_step_)
        static_cast<void>(remove_step(files_, request_.directory, step_name_.text));
    active_ = made_step_ = false;
}

}  // namespace plumb
