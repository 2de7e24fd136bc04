#include "formats/checkpoint_validate.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "runtime/base/checked.h"
#include "runtime/base/digest.h"

namespace plumb {

namespace {

template <typename... Args>
Status damaged(const char* format, Args... args) noexcept {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
#pragma GCC diagnostic ignored "-Wformat-security"
    return failure(StatusCode::damaged, format, args...);
#pragma GCC diagnostic pop
}

bool all_zero(const uint8_t* bytes, size_t count) noexcept {
    return count == 0 || (bytes[0] == 0 && std::memcmp(bytes, bytes + 1, count - 1) == 0);
}

template <size_t n>
bool all_zero(const uint8_t (&bytes)[n]) noexcept {
    return all_zero(bytes, n);
}

// A name field: printable ASCII, then zeros to the end, at least one of each.
template <size_t n>
bool valid_name(const char (&field)[n]) noexcept {
    size_t length = 0;
    while (length < n && field[length] > ' ' && field[length] <= '~') ++length;
    return length > 0 && length < n &&
           all_zero(reinterpret_cast<const uint8_t*>(field) + length, n - length);
}

// Number of elements, or 0 when the record is not valid or its bytes do not fit 63 bits.
int64_t valid_elements(const TensorRecord& tensor) noexcept {
    Dtype dtype;
    if (!valid_name(tensor.name) || !valid_name(tensor.stream) || !all_zero(tensor.reserved0) ||
        !all_zero(tensor.reserved1) || tensor.rank > kMaxRank ||
        !dtype_from_code(tensor.dtype_code, &dtype))
        return 0;
    int64_t bytes = dtype_bytes(dtype);
    for (int d = 0; d < kMaxRank; ++d) {
        if (tensor.dim[d] < 1 || (d >= tensor.rank && tensor.dim[d] != 1) ||
            __builtin_mul_overflow(bytes, tensor.dim[d], &bytes))
            return 0;
    }
    return bytes / dtype_bytes(dtype);
}

constexpr uint32_t bit_of(Dtype dtype) noexcept {
    return uint32_t{1} << static_cast<int>(dtype);
}

constexpr uint32_t kParamDtypes = bit_of(Dtype::f32) | bit_of(Dtype::bf16) | bit_of(Dtype::f16);

// What a tensor of a stream may be. Readers take memory by these, so they hold for every table.
struct StreamRule {
    const char* stream;
    uint32_t dtypes;        // bits of those that it may have
    uint32_t param_dtypes;  // bits of those of the param that it stands beside; 0: beside none
};
constexpr StreamRule kStreamRules[] = {
    {"param", kParamDtypes, 0},
    {"master_lo", bit_of(Dtype::u16), bit_of(Dtype::bf16)},
    {"master", bit_of(Dtype::f32), bit_of(Dtype::f16)},
    {"moment1", bit_of(Dtype::f32), kParamDtypes},
    {"moment2", bit_of(Dtype::f32), kParamDtypes},
    {"state", ~uint32_t{0}, 0},
};

// "f32, bf16, f16"
struct DtypeNames {
    char text[64] = "";
    explicit DtypeNames(uint32_t dtypes) noexcept {
        size_t length = 0;
        for (uint32_t d = 0; d < 32 && length < sizeof text; ++d)
            if ((dtypes >> d & 1) != 0)
                length += static_cast<size_t>(std::snprintf(text + length, sizeof text - length,
                                                            "%s%s", length == 0 ? "" : ", ",
                                                            dtype_name(static_cast<Dtype>(d))));
    }
};

// "7 x 5", of a valid record
struct ShapeText {
    char text[96] = "scalar";
    explicit ShapeText(const TensorRecord& tensor) noexcept {
        size_t length = 0;
        for (int d = 0; d < tensor.rank; ++d)
            length += static_cast<size_t>(std::snprintf(text + length, sizeof text - length,
                                                        "%s%lld", d == 0 ? "" : " x ",
                                                        static_cast<long long>(tensor.dim[d])));
    }
};

bool has_dtype_of(const TensorRecord& tensor, uint32_t dtypes) noexcept {
    return (bit_of(tensor_dtype(tensor)) & dtypes) != 0;
}

// One of a table of valid records against the rule of its stream. The table has its hash: what
// breaks a rule was written so, by another program, and is no damage.
Status validate_stream(const char* file, const TensorRecord& tensor, const TensorRecord* tensors,
                       int64_t count) noexcept {
    const auto* rule = std::find_if(
        std::begin(kStreamRules), std::end(kStreamRules),
        [&](const StreamRule& r) { return std::strcmp(r.stream, tensor.stream) == 0; });
    if (rule == std::end(kStreamRules))
        return failure(StatusCode::unsupported,
                       "%s: %s of %s is of no stream that this program knows: param, master_lo, "
                       "master, moment1, moment2, state",
                       file, tensor.stream, tensor.name);
    if (!has_dtype_of(tensor, rule->dtypes))
        return failure(StatusCode::unsupported,
                       "%s: %s of %s is %s; this program knows that stream in %s", file,
                       tensor.stream, tensor.name, dtype_name(tensor_dtype(tensor)),
                       DtypeNames(rule->dtypes).text);
    if (rule->param_dtypes == 0) return {};
    const auto* param = std::find_if(tensors, tensors + count, [&](const TensorRecord& other) {
        return std::strcmp(other.stream, "param") == 0 && std::strcmp(other.name, tensor.name) == 0;
    });
    if (param == tensors + count)
        return failure(StatusCode::unsupported, "%s: %s of %s stands beside no param of that name",
                       file, tensor.stream, tensor.name);
    if (param->rank != tensor.rank || std::memcmp(param->dim, tensor.dim, sizeof tensor.dim) != 0)
        return failure(StatusCode::unsupported, "%s: %s of %s is %s, its param is %s", file,
                       tensor.stream, tensor.name, ShapeText(tensor).text, ShapeText(*param).text);
    if (!has_dtype_of(*param, rule->param_dtypes))
        return failure(StatusCode::unsupported,
                       "%s: %s of %s stands beside a param in %s; this program knows it beside %s",
                       file, tensor.stream, tensor.name, dtype_name(tensor_dtype(*param)),
                       DtypeNames(rule->param_dtypes).text);
    return {};
}

// What MANIFEST and data header share: magic, own hash, version, features. The hash comes before
// the version, so that a flipped version bit is damage and not "a newer program".
template <typename Header>
Status validate_prefix(const char* file, const Header& header, const uint8_t (&magic)[8]) noexcept {
    if (std::memcmp(header.magic, magic, sizeof magic) != 0)
        return damaged("%s: wrong magic bytes at offset 0", file);
    if (hash128(&header, offsetof(Header, own_hash)) != header.own_hash)
        return damaged("%s: the header's %lld bytes do not have the hash stored at offset %lld",
                       file, static_cast<long long>(sizeof header),
                       static_cast<long long>(offsetof(Header, own_hash)));
    if (header.version != kCheckpointVersion || header.header_bytes != sizeof(Header))
        return failure(StatusCode::unsupported,
                       "%s: format version %u with a header of %u bytes; this program reads "
                       "version %u with %u",
                       file, header.version, header.header_bytes, kCheckpointVersion,
                       static_cast<unsigned>(sizeof(Header)));
    if ((header.incompatible & ~kKnownIncompatible) != 0)
        return failure(StatusCode::unsupported,
                       "%s: incompatible feature bits %#llx; this program knows %#llx", file,
                       static_cast<unsigned long long>(header.incompatible),
                       static_cast<unsigned long long>(kKnownIncompatible));
    if (header.incompatible != incompatible_bits(header.record))
        return damaged("%s: incompatible feature bits %#llx do not agree with the numerics hash %s",
                       file, static_cast<unsigned long long>(header.incompatible),
                       header.record.numerics_hash == Hash128{} ? "that is missing" : "there is");
    if (!all_zero(header.reserved) || !all_zero(header.record.reserved))
        return damaged("%s: reserved bytes of the header are not zero", file);
    if (header.record.step < 0 || header.tensor_count < 1 ||
        header.tensor_count > kTensorCountMax || header.chunk_bytes_max < kChunkBytesMin ||
        header.chunk_bytes_max > kChunkBytesMax)
        return damaged("%s: step %lld, %lld tensors or chunks of %lld bytes is out of range", file,
                       static_cast<long long>(header.record.step),
                       static_cast<long long>(header.tensor_count),
                       static_cast<long long>(header.chunk_bytes_max));
    return {};
}

Status validate_files(const char* file, const ManifestHeader& header,
                      const FileRecord* files) noexcept {
    for (int64_t f = 0; f < header.file_count; ++f)
        if (files[f].number != f || files[f].reserved0 != 0 || !all_zero(files[f].reserved1) ||
            files[f].file_bytes < 0 || files[f].chunk_count < 0 || files[f].raw_bytes < 0)
            return damaged("%s: file record %lld has number %u, %lld bytes, %lld chunks", file,
                           static_cast<long long>(f), files[f].number,
                           static_cast<long long>(files[f].file_bytes),
                           static_cast<long long>(files[f].chunk_count));
    return {};
}

int64_t chunks_offset(const ManifestView& manifest) noexcept {
    return static_cast<int64_t>(sizeof(DataHeader) +
                                sizeof(TensorRecord) *
                                    static_cast<uint64_t>(manifest.header->tensor_count));
}

// One chunk record against the table and its predecessor's end.
Status validate_chunk(const char* file, int64_t index, const ChunkRecord& chunk,
                      const ManifestView& manifest, int64_t offset, int64_t end) noexcept {
    const auto place = static_cast<long long>(index);
    if (chunk.tensor >= static_cast<uint64_t>(manifest.header->tensor_count))
        return damaged("%s: chunk %lld is of tensor %u, there are %lld", file, place, chunk.tensor,
                       static_cast<long long>(manifest.header->tensor_count));
    const TensorRecord& tensor = manifest.tensors[chunk.tensor];
    if (!box_inside(chunk.box, tensor_shape(tensor)))
        return damaged("%s: chunk %lld lies outside %s of %s", file, place, tensor.stream,
                       tensor.name);
    const Dtype dtype = tensor_dtype(tensor);
    // The box is inside a tensor whose bytes fit 63 bits, so this product does too.
    const int64_t raw_bytes = box_elements(chunk.box) * dtype_bytes(dtype);
    if (chunk.raw_bytes != raw_bytes || raw_bytes > manifest.header->chunk_bytes_max)
        return damaged("%s: chunk %lld says %lld raw bytes, its box has %lld, at most %lld", file,
                       place, static_cast<long long>(chunk.raw_bytes),
                       static_cast<long long>(raw_bytes),
                       static_cast<long long>(manifest.header->chunk_bytes_max));
    if (!codec_fits(dtype, static_cast<ChunkCodec>(chunk.codec),
                    static_cast<ChunkTransform>(chunk.transform)) ||
        !all_zero(chunk.reserved0) || !all_zero(chunk.reserved1))
        return damaged("%s: chunk %lld has codec %u, transform %u or reserved bytes of no meaning",
                       file, place, chunk.codec, chunk.transform);
    if (chunk.offset != offset || chunk.stored_bytes < kChunkAlignBytes ||
        chunk.stored_bytes % kChunkAlignBytes != 0 ||
        chunk.stored_bytes > stored_bound(raw_bytes) || chunk.stored_bytes > end - offset)
        return damaged(
            "%s: chunk %lld has %lld stored bytes at offset %lld; expected offset %lld "
            "and a multiple of 64 up to %lld",
            file, place, static_cast<long long>(chunk.stored_bytes),
            static_cast<long long>(chunk.offset), static_cast<long long>(offset),
            static_cast<long long>(std::min(stored_bound(raw_bytes), end - offset)));
    return {};
}

}  // namespace

Status validate_tensors(const char* file, const TensorRecord* tensors, int64_t count) noexcept {
    for (int64_t t = 0; t < count; ++t) {
        if (valid_elements(tensors[t]) == 0)
            return damaged("%s: tensor %lld of %lld has no valid name, stream, dtype or shape",
                           file, static_cast<long long>(t), static_cast<long long>(count));
        for (int64_t u = 0; u < t; ++u)
            if (std::memcmp(tensors[t].name, tensors[u].name,
                            sizeof tensors->name + sizeof tensors->stream) == 0)
                return damaged("%s: %s of %s stands twice in the tensor table, at %lld and %lld",
                               file, tensors[t].stream, tensors[t].name, static_cast<long long>(u),
                               static_cast<long long>(t));
    }
    Status status;
    for (int64_t t = 0; t < count && status.ok(); ++t)
        status = validate_stream(file, tensors[t], tensors, count);
    return status;
}

Status validate_manifest_header(const char* file, ConstBytes bytes) noexcept {
    if (bytes.size_bytes < static_cast<int64_t>(sizeof(ManifestHeader)))
        return damaged("%s has %lld bytes, its header alone has %lld", file,
                       static_cast<long long>(bytes.size_bytes),
                       static_cast<long long>(sizeof(ManifestHeader)));
    const auto& header = *reinterpret_cast<const ManifestHeader*>(bytes.data);
    return validate_prefix(file, header, kManifestMagic);
}

Status validate_manifest(const char* file, ConstBytes bytes, ManifestView* view) noexcept {
    Status status = validate_manifest_header(file, bytes);
    if (!status.ok()) return status;
    const auto& header = *reinterpret_cast<const ManifestHeader*>(bytes.data);
    const auto size = static_cast<uint64_t>(bytes.size_bytes);
    uint64_t tensor_bytes = 0;
    uint64_t file_bytes = 0;
    uint64_t total = sizeof header;
    if (header.file_count < 1 || header.file_count > kFileCountMax || header.settings_bytes < 0 ||
        header.settings_bytes > kSettingsBytesMax ||
        !mul_fits(static_cast<uint64_t>(header.tensor_count), sizeof(TensorRecord),
                  &tensor_bytes) ||
        !mul_fits(static_cast<uint64_t>(header.file_count), sizeof(FileRecord), &file_bytes) ||
        !add_fits(total, tensor_bytes, &total) || !add_fits(total, file_bytes, &total) ||
        !add_fits(total, static_cast<uint64_t>(header.settings_bytes), &total) || total != size ||
        header.manifest_bytes != bytes.size_bytes)
        return damaged(
            "%s has %lld bytes; its header says %lld (%lld tensors, %lld files, %lld of "
            "settings)",
            file, static_cast<long long>(bytes.size_bytes),
            static_cast<long long>(header.manifest_bytes),
            static_cast<long long>(header.tensor_count), static_cast<long long>(header.file_count),
            static_cast<long long>(header.settings_bytes));
    const uint8_t* tensors = bytes.data + sizeof header;
    const uint8_t* files = tensors + tensor_bytes;
    const uint8_t* settings = files + file_bytes;
    const struct {
        const char* what;
        const uint8_t* data;
        int64_t size_bytes;
        Hash128 hash;
    } sections[] = {
        {"tensor table", tensors, static_cast<int64_t>(tensor_bytes), header.tensor_table_hash},
        {"file table", files, static_cast<int64_t>(file_bytes), header.file_table_hash},
        {"settings", settings, header.settings_bytes, header.settings_hash},
    };
    for (const auto& section : sections)
        if (hash128(section.data, section.size_bytes) != section.hash)
            return damaged("%s: the %s (%lld bytes at offset %lld) does not have its stored hash",
                           file, section.what, static_cast<long long>(section.size_bytes),
                           static_cast<long long>(section.data - bytes.data));
    view->header = &header;
    view->tensors = reinterpret_cast<const TensorRecord*>(tensors);
    view->files = reinterpret_cast<const FileRecord*>(files);
    view->settings = reinterpret_cast<const char*>(settings);
    status = validate_tensors(file, view->tensors, header.tensor_count);
    return status.ok() ? validate_files(file, header, view->files) : status;
}

Status validate_data_header(const char* file, ConstBytes bytes, const ManifestView& manifest,
                            uint32_t number) noexcept {
    if (bytes.size_bytes < static_cast<int64_t>(sizeof(DataHeader)))
        return damaged("%s has %lld bytes, its header alone has %lld", file,
                       static_cast<long long>(bytes.size_bytes),
                       static_cast<long long>(sizeof(DataHeader)));
    const auto& header = *reinterpret_cast<const DataHeader*>(bytes.data);
    const Status status = validate_prefix(file, header, kDataMagic);
    if (!status.ok()) return status;
    const ManifestHeader& expected = *manifest.header;
    if (header.run != expected.run || header.save_id != expected.save_id)
        return damaged(
            "%s belongs to another run or save (save %016llx) than the MANIFEST "
            "(save %016llx)",
            file, static_cast<unsigned long long>(header.save_id),
            static_cast<unsigned long long>(expected.save_id));
    if (header.file_number != number || header.file_count != expected.file_count)
        return damaged("%s is file %u of %u, expected %u of %lld", file, header.file_number,
                       header.file_count, number, static_cast<long long>(expected.file_count));
    if (header.tensor_count != expected.tensor_count ||
        header.tensor_table_hash != expected.tensor_table_hash ||
        header.chunk_bytes_max != expected.chunk_bytes_max ||
        std::memcmp(&header.record, &expected.record, sizeof header.record) != 0)
        return damaged(
            "%s: tensor table (%lld), chunk limit or run record (step %lld) differs "
            "from the MANIFEST's (%lld, step %lld)",
            file, static_cast<long long>(header.tensor_count),
            static_cast<long long>(header.record.step),
            static_cast<long long>(expected.tensor_count),
            static_cast<long long>(expected.record.step));
    return {};
}

Status validate_data_table(const char* file, const void* table,
                           const ManifestView& manifest) noexcept {
    const int64_t table_bytes = chunks_offset(manifest) - static_cast<int64_t>(sizeof(DataHeader));
    if (std::memcmp(table, manifest.tensors, static_cast<size_t>(table_bytes)) != 0)
        return damaged("%s: the tensor table at offset %lld differs from the MANIFEST's", file,
                       static_cast<long long>(sizeof(DataHeader)));
    return {};
}

Status validate_data_footer(const char* file, ConstBytes bytes, int64_t file_bytes,
                            const ManifestView& manifest, uint32_t number) noexcept {
    const FileRecord& record = manifest.files[number];
    if (file_bytes != record.file_bytes)
        return damaged("%s has %lld bytes, the MANIFEST says %lld", file,
                       static_cast<long long>(file_bytes),
                       static_cast<long long>(record.file_bytes));
    if (bytes.size_bytes != static_cast<int64_t>(sizeof(DataFooter)))
        return damaged("%s: a footer has %lld bytes, not %lld", file,
                       static_cast<long long>(sizeof(DataFooter)),
                       static_cast<long long>(bytes.size_bytes));
    DataFooter footer;
    std::memcpy(&footer, bytes.data, sizeof footer);
    if (std::memcmp(footer.tail_magic, kTailMagic, sizeof kTailMagic) != 0 ||
        hash128(&footer, offsetof(DataFooter, own_hash)) != footer.own_hash)
        return damaged("%s: the footer's magic or hash at offset %lld is wrong", file,
                       static_cast<long long>(file_bytes - bytes.size_bytes));
    const ManifestHeader& header = *manifest.header;
    uint64_t index_bytes = 0;
    uint64_t end = sizeof(DataFooter);
    if (footer.run != header.run || footer.save_id != header.save_id ||
        footer.file_number != number || footer.file_bytes != file_bytes ||
        footer.chunk_count != record.chunk_count || footer.index_hash != record.index_hash ||
        footer.reserved0 != 0 || !all_zero(footer.reserved1) || footer.index_offset < 0 ||
        !mul_fits(static_cast<uint64_t>(record.chunk_count), sizeof(ChunkRecord), &index_bytes) ||
        !add_fits(end, index_bytes, &end) ||
        !add_fits(end, static_cast<uint64_t>(footer.index_offset), &end) ||
        end != static_cast<uint64_t>(file_bytes) || footer.index_offset < chunks_offset(manifest) ||
        (footer.index_offset - chunks_offset(manifest)) % kChunkAlignBytes != 0)
        return damaged(
            "%s: the footer (file %u, %lld chunks, index at %lld, %lld bytes) does not "
            "agree with the MANIFEST (file %u, %lld chunks, %lld bytes)",
            file, footer.file_number, static_cast<long long>(footer.chunk_count),
            static_cast<long long>(footer.index_offset), static_cast<long long>(footer.file_bytes),
            number, static_cast<long long>(record.chunk_count),
            static_cast<long long>(record.file_bytes));
    return {};
}

Status validate_index(const char* file, ConstBytes bytes, const ManifestView& manifest,
                      uint32_t number, Hash128* tiling) noexcept {
    const FileRecord& record = manifest.files[number];
    // The footer has shown that this product and the offsets below fit.
    const int64_t index_bytes = record.chunk_count * static_cast<int64_t>(sizeof(ChunkRecord));
    const int64_t end = record.file_bytes - static_cast<int64_t>(sizeof(DataFooter)) - index_bytes;
    if (bytes.size_bytes != index_bytes || hash128(bytes.data, index_bytes) != record.index_hash)
        return damaged(
            "%s: the index (%lld bytes at offset %lld) does not have the MANIFEST's "
            "hash",
            file, static_cast<long long>(index_bytes), static_cast<long long>(end));
    const auto* chunks = reinterpret_cast<const ChunkRecord*>(bytes.data);
    int64_t offset = chunks_offset(manifest);
    int64_t raw_bytes = 0;
    for (int64_t c = 0; c < record.chunk_count; ++c) {
        const Status status = validate_chunk(file, c, chunks[c], manifest, offset, end);
        if (!status.ok()) return status;
        offset += chunks[c].stored_bytes;
        if (__builtin_add_overflow(raw_bytes, chunks[c].raw_bytes, &raw_bytes))
            return damaged("%s: the raw bytes of its chunks do not fit 63 bits", file);
        const uint64_t key = tensor_key(manifest.tensors[chunks[c].tensor]);
        *tiling = digest_add(*tiling, tiling_sum(key, chunks[c].box));
    }
    if (offset != end || raw_bytes != record.raw_bytes)
        return damaged("%s: chunks end at offset %lld with %lld raw bytes; expected %lld and %lld",
                       file, static_cast<long long>(offset), static_cast<long long>(raw_bytes),
                       static_cast<long long>(end), static_cast<long long>(record.raw_bytes));
    return {};
}

Status validate_tiling(const char* directory, const ManifestView& manifest,
                       Hash128 tiling) noexcept {
    Hash128 whole;
    for (int64_t t = 0; t < manifest.header->tensor_count; ++t) {
        const TensorRecord& tensor = manifest.tensors[t];
        whole = digest_add(whole, tiling_sum(tensor_key(tensor), whole_box(tensor_shape(tensor))));
    }
    if (whole != tiling)
        return damaged("%s: the chunks leave a hole in a tensor or overlap", directory);
    return {};
}

Status verify_chunk(const char* file, const ManifestView& manifest, const ChunkRecord& chunk,
                    const uint8_t* stored) noexcept {
    const TensorRecord& tensor = manifest.tensors[chunk.tensor];
    const uint64_t seed = chunk_seed(manifest.header->run, tensor_key(tensor), chunk.box);
    if (hash128(stored, chunk.stored_bytes, seed) != chunk.hash)
        return damaged("%s: %lld bytes at offset %lld (%s of %s) do not have their stored hash",
                       file, static_cast<long long>(chunk.stored_bytes),
                       static_cast<long long>(chunk.offset), tensor.stream, tensor.name);
    return {};
}

Status validate_data_file(const char* file, ConstBytes bytes, const ManifestView& manifest,
                          uint32_t number, Hash128* tiling) noexcept {
    Status status = validate_data_header(file, bytes, manifest, number);
    if (!status.ok()) return status;
    const int64_t tail =
        std::max<int64_t>(0, bytes.size_bytes - static_cast<int64_t>(sizeof(DataFooter)));
    status = validate_data_footer(file, {bytes.data + tail, bytes.size_bytes - tail},
                                  bytes.size_bytes, manifest, number);
    if (!status.ok()) return status;
    // Header and footer have shown that table, index and footer lie inside the file in this order.
    status = validate_data_table(file, bytes.data + sizeof(DataHeader), manifest);
    if (!status.ok()) return status;
    const int64_t index_bytes =
        manifest.files[number].chunk_count * static_cast<int64_t>(sizeof(ChunkRecord));
    const uint8_t* index = bytes.data + tail - index_bytes;
    status = validate_index(file, {index, index_bytes}, manifest, number, tiling);
    if (!status.ok()) return status;
    const auto* chunks = reinterpret_cast<const ChunkRecord*>(index);
    for (int64_t c = 0; c < manifest.files[number].chunk_count && status.ok(); ++c)
        status = verify_chunk(file, manifest, chunks[c], bytes.data + chunks[c].offset);
    return status;
}

}  // namespace plumb
