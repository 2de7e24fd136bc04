// A data file from anywhere beside a MANIFEST that agrees with it, read as it is and once more with
// right hashes. The 3,856 reserved bytes of its header, which must be zero, are not in the input: a
// mutation there would be one more of a kind that the validator's test tries in full.
#include "runtime/base/digest.h"
#include "tests/fuzz/checkpoint_bytes.h"

namespace plumb {
namespace {

constexpr int64_t kHeaderBytes = sizeof(DataHeader);
constexpr int64_t kFooterBytes = sizeof(DataFooter);

struct Parts {
    DataHeader header;
    DataFooter footer;
    int64_t table_end;
    int64_t index_at;
};

Parts parts_of(const Bytes& bytes) {
    Parts parts;
    parts.header = get<DataHeader>(bytes, 0);
    const int64_t footer_at = size_of(bytes) - kFooterBytes;
    parts.footer = get<DataFooter>(bytes, footer_at);
    parts.table_end = kHeaderBytes + table_bytes<TensorRecord>(parts.header.tensor_count,
                                                               footer_at - kHeaderBytes);
    parts.index_at =
        footer_at - table_bytes<ChunkRecord>(parts.footer.chunk_count, footer_at - parts.table_end);
    return parts;
}

void repair(Bytes& bytes) {
    Parts parts = parts_of(bytes);
    std::vector<TensorRecord> table(static_cast<size_t>(parts.table_end - kHeaderBytes) /
                                    sizeof(TensorRecord));
    for (size_t t = 0; t < table.size(); ++t)
        table[t] =
            get<TensorRecord>(bytes, kHeaderBytes + static_cast<int64_t>(t * sizeof(TensorRecord)));
    const bool has_names =
        validate_tensors("table", table.data(), static_cast<int64_t>(table.size())).ok();
    const int64_t footer_at = size_of(bytes) - kFooterBytes;
    for (int64_t at = parts.index_at; has_names && at + 128 <= footer_at; at += 128) {
        auto chunk = get<ChunkRecord>(bytes, at);
        if (chunk.tensor >= table.size() || chunk.offset < 0 || chunk.stored_bytes < 0 ||
            chunk.offset > size_of(bytes) || chunk.stored_bytes > size_of(bytes) - chunk.offset)
            continue;
        const uint64_t key = tensor_key(table[chunk.tensor]);
        chunk.hash = hash128(bytes.data() + chunk.offset, chunk.stored_bytes,
                             chunk_seed(parts.header.run, key, chunk.box));
        put(bytes, at, chunk);
    }
    parts.footer.run = parts.header.run;
    parts.footer.save_id = parts.header.save_id;
    parts.footer.file_bytes = size_of(bytes);
    parts.footer.index_offset = parts.index_at;
    parts.footer.index_hash = hash128(bytes.data() + parts.index_at, footer_at - parts.index_at);
    put_with_own_hash(bytes, footer_at, parts.footer);
    parts.header.tensor_table_hash =
        hash128(bytes.data() + kHeaderBytes, parts.table_end - kHeaderBytes);
    put_with_own_hash(bytes, 0, parts.header);
}

// The MANIFEST that a writer of this data file would have made, but for the digest.
Bytes manifest_for(const Bytes& bytes) {
    const Parts parts = parts_of(bytes);
    FileRecord file;
    file.file_bytes = size_of(bytes);
    file.chunk_count = parts.footer.chunk_count;
    file.index_hash = parts.footer.index_hash;
    uint64_t raw_bytes = 0;
    for (int64_t at = parts.index_at; at + 128 <= size_of(bytes) - kFooterBytes; at += 128)
        raw_bytes += static_cast<uint64_t>(get<ChunkRecord>(bytes, at).raw_bytes);
    file.raw_bytes = static_cast<int64_t>(raw_bytes);
    ManifestHeader header;
    std::memcpy(header.magic, kManifestMagic, sizeof kManifestMagic);
    header.version = kCheckpointVersion;
    header.header_bytes = sizeof header;
    header.incompatible = incompatible_bits(parts.header.record);
    header.run = parts.header.run;
    header.save_id = parts.header.save_id;
    header.record = parts.header.record;
    header.tensor_count = parts.header.tensor_count;
    header.tensor_table_hash = parts.header.tensor_table_hash;
    header.file_count = 1;
    header.file_table_hash = hash128(&file, sizeof file);
    header.settings_hash = hash128("", 0);
    const int64_t table = parts.table_end - kHeaderBytes;
    header.manifest_bytes = static_cast<int64_t>(sizeof header + sizeof file) + table;
    header.chunk_bytes_max = parts.header.chunk_bytes_max;
    Bytes manifest(static_cast<size_t>(header.manifest_bytes));
    put_with_own_hash(manifest, 0, header);
    std::memcpy(&manifest[sizeof header], &bytes[kHeaderBytes], static_cast<size_t>(table));
    put(manifest, static_cast<int64_t>(sizeof header) + table, file);
    return manifest;
}

Status judge(const Bytes& manifest, const Bytes& bytes) {
    ManifestView view;
    Hash128 tiling;
    Status status = validate_manifest("MANIFEST", span_of(manifest), &view);
    if (status.ok()) status = validate_data_file("data", span_of(bytes), view, 0, &tiling);
    return status.ok() ? validate_tiling("step", view, tiling) : status;
}

void read(const Bytes& bytes) {
    const Bytes manifest = manifest_for(bytes);
    if (is_worth_reading(judge(manifest, bytes), bytes))
        read_as_programs_do(get<ManifestHeader>(manifest, 0), manifest, bytes);
}

}  // namespace
}  // namespace plumb

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace plumb;
    constexpr size_t kFieldBytes = offsetof(DataHeader, reserved);
    if (size < kFieldBytes + sizeof(Hash128) + sizeof(DataFooter)) return 0;
    Bytes bytes(size + sizeof(DataHeader::reserved));
    std::memcpy(bytes.data(), data, kFieldBytes);
    std::memcpy(&bytes[kFieldBytes + sizeof(DataHeader::reserved)], data + kFieldBytes,
                size - kFieldBytes);
    read(bytes);
    Bytes repaired = bytes;
    repair(repaired);
    if (repaired != bytes) read(repaired);
    return 0;
}
