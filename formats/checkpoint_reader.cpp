#include "formats/checkpoint_reader.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "runtime/base/check.h"
#include "runtime/base/digest.h"

namespace plumb {

namespace {

int64_t size_of(const FileLayer& files, int fd, const std::string& path) {
    int64_t size_bytes = 0;
    throw_if_failed(measure_file(files, fd, path.c_str(), &size_bytes));
    return size_bytes;
}

const uint8_t* bytes_of(const void* data) {
    return static_cast<const uint8_t*>(data);
}

// The digest of a decoded chunk: elements at their global index, those of 8 bytes as two words. The
// staging is aligned, so every element is. `low` completes the elements to masters when not null.
Hash128 chunk_digest(const TensorRecord& tensor, const Box& box, const void* raw,
                     const uint16_t* low) {
    const uint64_t key = state_key(tensor);
    const int64_t element_bytes = dtype_bytes(tensor_dtype(tensor));
    Hash128 sum;
    const auto add_run = [&](int64_t from, int64_t global, int64_t elements) {
        const void* at = bytes_of(raw) + from * element_bytes;
        const int64_t words = element_bytes / 4;
        const auto* halves = static_cast<const uint16_t*>(at);
        sum = digest_add(
            sum, low != nullptr       ? digest_masters(key, global, halves, low + from, elements)
                 : element_bytes == 1 ? digest_elements(key, global, bytes_of(at), elements)
                 : element_bytes == 2
                     ? digest_elements(key, global, halves, elements)
                     : digest_elements(key, global * words, static_cast<const uint32_t*>(at),
                                       elements * words));
    };
    for_each_run(box, box, whole_box(tensor_shape(tensor)), add_run);
    return sum;
}

}  // namespace

CheckpointReader::CheckpointReader(const std::string& path, const FileLayer& files)
    : path_(path), files_(files) {
    const std::string name = path + "/" + kManifestName;
    int fd = -1;
    throw_if_failed(open_file(files, name.c_str(), O_RDONLY, &fd));
    // From here on the destructor does not run on a throw: every descriptor is in data_ or here.
    data_.push_back({name, fd, {}});
    try {
        const int64_t size_bytes = size_of(files, fd, name);
        const int64_t largest = static_cast<int64_t>(sizeof(ManifestHeader)) + kSettingsBytesMax +
                                kTensorCountMax * static_cast<int64_t>(sizeof(TensorRecord)) +
                                int64_t{kFileCountMax} * static_cast<int64_t>(sizeof(FileRecord));
        if (size_bytes > largest)
            throw CheckpointDamage(name + " has " + std::to_string(size_bytes) +
                                   " bytes, at most " + std::to_string(largest) + " are right");
        manifest_bytes_.resize(static_cast<size_t>(ceil_div(size_bytes, 8)));
        throw_if_failed(read_fully(files, fd, name.c_str(), manifest_bytes_.data(), size_bytes, 0));
        throw_if_failed(validate_manifest(
            name.c_str(), {bytes_of(manifest_bytes_.data()), size_bytes}, &manifest_));
        close_all();
        Hash128 tiling;
        for (uint32_t f = 0; f < manifest_.header->file_count; ++f) open_data_file(f, &tiling);
        throw_if_failed(validate_tiling(path.c_str(), manifest_, tiling));
    } catch (...) {
        close_all();
        throw;
    }
    for (uint32_t f = 0; f < data_.size(); ++f)
        for (const ChunkRecord& chunk : data_[f].index) chunks_.push_back({&chunk, f});
    std::stable_sort(chunks_.begin(), chunks_.end(), [](const ChunkPlace& a, const ChunkPlace& b) {
        return a.record->tensor < b.record->tensor;
    });
    first_chunk_.assign(static_cast<size_t>(tensor_count()) + 1, 0);
    for (const ChunkPlace& chunk : chunks_) ++first_chunk_[chunk.record->tensor + 1];
    for (size_t t = 1; t < first_chunk_.size(); ++t) first_chunk_[t] += first_chunk_[t - 1];
}

CheckpointReader::~CheckpointReader() {
    close_all();
}

void CheckpointReader::close_all() noexcept {
    for (const DataFile& file : data_)
        if (file.fd >= 0) files_.close(files_.context, file.fd);
    data_.clear();
}

void CheckpointReader::open_data_file(uint32_t number, Hash128* tiling) {
    data_.push_back({path_ + "/" + data_file_name(number).text, -1, {}});
    DataFile& file = data_.back();
    const char* name = file.path.c_str();
    throw_if_failed(open_file(files_, name, O_RDONLY, &file.fd));
    const int64_t size_bytes = size_of(files_, file.fd, file.path);
    // The size comes first: every offset below is inside a file of the MANIFEST's size.
    const int64_t table_bytes = tensor_count() * static_cast<int64_t>(sizeof(TensorRecord));
    const int64_t least =
        static_cast<int64_t>(sizeof(DataHeader) + sizeof(DataFooter)) + table_bytes;
    if (size_bytes < least)
        throw CheckpointDamage(file.path + " has " + std::to_string(size_bytes) +
                               " bytes, its header, tables and footer have " +
                               std::to_string(least));
    DataHeader header;
    throw_if_failed(read_fully(files_, file.fd, name, &header, sizeof header, 0));
    throw_if_failed(
        validate_data_header(name, {bytes_of(&header), sizeof header}, manifest_, number));
    DataFooter footer;
    const int64_t footer_offset = size_bytes - static_cast<int64_t>(sizeof footer);
    throw_if_failed(read_fully(files_, file.fd, name, &footer, sizeof footer, footer_offset));
    throw_if_failed(validate_data_footer(name, {bytes_of(&footer), sizeof footer}, size_bytes,
                                         manifest_, number));
    std::vector<TensorRecord> table(static_cast<size_t>(tensor_count()));
    throw_if_failed(read_fully(files_, file.fd, name, table.data(), table_bytes, sizeof header));
    throw_if_failed(validate_data_table(name, table.data(), manifest_));
    file.index.resize(static_cast<size_t>(footer.chunk_count));
    const int64_t index_bytes = footer.chunk_count * static_cast<int64_t>(sizeof(ChunkRecord));
    throw_if_failed(
        read_fully(files_, file.fd, name, file.index.data(), index_bytes, footer.index_offset));
    throw_if_failed(validate_index(name, {bytes_of(file.index.data()), index_bytes}, manifest_,
                                   number, tiling));
}

std::string_view CheckpointReader::settings() const {
    return {manifest_.settings, static_cast<size_t>(manifest_.header->settings_bytes)};
}

int64_t CheckpointReader::find(std::string_view stream, std::string_view name) const {
    for (int64_t t = 0; t < tensor_count(); ++t)
        if (name == tensor(t).name && stream == tensor(t).stream) return t;
    return -1;
}

CodecStagingBytes CheckpointReader::staging_bytes() const {
    return codec_staging_bytes(manifest_.header->chunk_bytes_max);
}

int64_t CheckpointReader::stored_bytes() const {
    int64_t bytes = 0;
    for (const ChunkPlace& chunk : chunks_) bytes += chunk.record->stored_bytes;
    return bytes;
}

// Hash first, over the bytes that are then decoded: a flip in a compressed plane would otherwise
// decode silently to wrong weights.
void CheckpointReader::decode(const ChunkPlace& place, void* raw, const CodecStaging& staging) {
    const ChunkRecord& chunk = *place.record;
    const DataFile& file = data_[place.file];
    const CodecStagingBytes needed = staging_bytes();
    if (staging.raw.size_bytes < needed.raw || staging.planes.size_bytes < needed.planes ||
        staging.stored.size_bytes < needed.stored || staging.context.size_bytes < needed.context)
        throw Error(ExitCode::bad_input,
                    path_ + " has chunks of " + std::to_string(header().chunk_bytes_max) +
                        " bytes: reading them needs staging of " + std::to_string(needed.total()) +
                        " bytes, there are " +
                        std::to_string(staging.raw.size_bytes + staging.planes.size_bytes +
                                       staging.stored.size_bytes + staging.context.size_bytes));
    throw_if_failed(read_fully(files_, file.fd, file.path.c_str(), staging.stored.data,
                               chunk.stored_bytes, chunk.offset));
    throw_if_failed(verify_chunk(file.path.c_str(), manifest_, chunk, staging.stored.data));
    const StoredChunk stored = {chunk.stored_bytes, static_cast<ChunkCodec>(chunk.codec),
                                static_cast<ChunkTransform>(chunk.transform)};
    const Status status = decode_chunk(stored, raw, chunk.raw_bytes, staging);
    if (!status.ok())
        throw CheckpointDamage(file.path + ": chunk at offset " + std::to_string(chunk.offset) +
                               ": " + status.message);
}

void CheckpointReader::read_box(int64_t tensor_index, const Box& box, void* destination,
                                const CodecStaging& staging) {
    CHECK(tensor_index >= 0 && tensor_index < tensor_count());
    const TensorRecord& record = tensor(tensor_index);
    if (!box_inside(box, tensor_shape(record)))
        throw Error(ExitCode::bad_input,
                    path_ + ": a box lies outside " + record.stream + " of " + record.name);
    const int64_t element_bytes = dtype_bytes(tensor_dtype(record));
    const auto index = static_cast<size_t>(tensor_index);
    for (int64_t c = first_chunk_[index]; c < first_chunk_[index + 1]; ++c) {
        const ChunkPlace& place = chunks_[static_cast<size_t>(c)];
        const Box& chunk = place.record->box;
        Box common;
        if (!intersect(chunk, box, &common)) continue;
        if (common == chunk && run_elements(chunk, chunk, box) == box_elements(chunk)) {
            auto* at = static_cast<uint8_t*>(destination);
            decode(place, at + offset_in(box, chunk.start) * element_bytes, staging);
        } else {
            decode(place, staging.raw.data, staging);
            copy_region(common, chunk, staging.raw.data, box, destination, element_bytes);
        }
    }
}

void CheckpointReader::read_span(int64_t tensor_index, int64_t first, int64_t count,
                                 void* destination, const CodecStaging& staging) {
    CHECK(tensor_index >= 0 && tensor_index < tensor_count());
    const TensorRecord& record = tensor(tensor_index);
    Box boxes[kMaxSpanBoxes];
    const int box_count = span_boxes(tensor_shape(record), first, count, boxes);
    auto* at = static_cast<uint8_t*>(destination);
    for (int b = 0; b < box_count; ++b) {
        read_box(tensor_index, boxes[b], at, staging);
        at += box_elements(boxes[b]) * dtype_bytes(tensor_dtype(record));
    }
}

void CheckpointReader::read_tensor(int64_t tensor_index, void* destination,
                                   const CodecStaging& staging) {
    CHECK(tensor_index >= 0 && tensor_index < tensor_count());
    read_box(tensor_index, whole_box(tensor_shape(tensor(tensor_index))), destination, staging);
}

Hash128 CheckpointReader::digest(int64_t tensor_index, const CodecStaging& staging) {
    CHECK(tensor_index >= 0 && tensor_index < tensor_count());
    const TensorRecord& record = tensor(tensor_index);
    const bool param = std::string_view(record.stream) == "param";
    const bool halved = param && tensor_dtype(record) == Dtype::bf16;
    // Params enter as their masters: in full, or completed by their low halves.
    const bool enters = std::string_view(record.stream) != "master_lo" &&
                        !(param && find("master", record.name) >= 0);
    const int64_t rest = halved ? find("master_lo", record.name) : -1;
    std::vector<uint16_t> high, low;
    Hash128 sum;
    const auto index = static_cast<size_t>(tensor_index);
    for (int64_t c = first_chunk_[index]; c < first_chunk_[index + 1]; ++c) {
        const ChunkPlace& place = chunks_[static_cast<size_t>(c)];
        const Box& box = place.record->box;
        const void* raw = staging.raw.data;
        decode(place, staging.raw.data, staging);
        if (!enters) continue;
        if (halved) {
            const auto* halves = reinterpret_cast<const uint16_t*>(staging.raw.data);
            high.assign(halves, halves + box_elements(box));
            low.assign(high.size(), 0);
            if (rest >= 0) read_box(rest, box, low.data(), staging);
            raw = high.data();
        }
        sum = digest_add(sum, chunk_digest(record, box, raw, halved ? low.data() : nullptr));
    }
    return sum;
}

void CheckpointReader::verify(const CodecStaging& staging) {
    Hash128 sum;
    for (int64_t t = 0; t < tensor_count(); ++t) sum = digest_add(sum, digest(t, staging));
    if (sum != header().state_digest)
        throw CheckpointDamage(path_ + ": state digest of the tensors is " + to_hex(sum) +
                               ", the MANIFEST says " + to_hex(header().state_digest));
}

std::vector<StepEntry> find_steps(const std::string& directory, const FileLayer& files) {
    std::vector<StepEntry> steps;
    const Status status = list_steps(
        files, directory.c_str(),
        [](void* user, const StepEntry& entry) {
            if (entry.state != StepState::uncommitted)
                static_cast<std::vector<StepEntry>*>(user)->push_back(entry);
            return true;
        },
        &steps);
    if (status.system_errno == ENOENT) return {};
    throw_if_failed(status);
    std::sort(steps.begin(), steps.end(),
              [](const StepEntry& a, const StepEntry& b) { return older(b, a); });
    return steps;
}

bool load_newest(
    const std::string& directory, const std::function<void(CheckpointReader&)>& load,
    const std::function<void(const std::string& path, const CheckpointDamage& why)>& skipped,
    const FileLayer& files) {
    const std::vector<StepEntry> steps = find_steps(directory, files);
    std::string newest;
    for (const StepEntry& entry : steps) {
        const std::string path = directory + "/" + entry.name;
        try {
            throw_if_failed(entry.status);
            CheckpointReader reader(path, files);
            load(reader);
            return true;
        } catch (const CheckpointDamage& damage) {
            if (newest.empty()) newest = damage.what();
            skipped(path, damage);
        }
    }
    if (steps.empty()) return false;
    throw Error(ExitCode::io, directory + ": none of its " + std::to_string(steps.size()) +
                                  " checkpoints can be read; the newest: " + newest);
}

OwnedStaging::OwnedStaging(const CodecStagingBytes& bytes)
    : memory_(static_cast<size_t>(bytes.total() + kAlignBytes)) {
    auto address = reinterpret_cast<uintptr_t>(memory_.data());
    uint8_t* at = memory_.data() + (kAlignBytes - static_cast<int64_t>(address % kAlignBytes));
    const auto take = [&](int64_t size_bytes) {
        const ByteSpan span{at, size_bytes};
        at += size_bytes;
        return span;
    };
    spans_.raw = take(bytes.raw);
    spans_.planes = take(bytes.planes);
    spans_.stored = take(bytes.stored);
    spans_.context = take(bytes.context);
}

}  // namespace plumb
