// Checkpoints made of a fuzzer's bytes: hashes made right, so that mutations reach what lies behind
// them, and the reading of the result the way programs read, on a simulated disk.
// Path: cold.
#pragma once

#include <algorithm>
#include <cstring>
#include <optional>

#include "formats/checkpoint_reader.h"
#include "formats/checkpoint_validate.h"
#include "runtime/base/check.h"
#include "tests/formats/simulated_disk.h"

namespace plumb {

using Bytes = std::vector<uint8_t>;

// A struct at an offset, which must be inside the bytes.
template <typename Struct>
Struct get(const Bytes& bytes, int64_t offset) {
    Struct value;
    std::memcpy(&value, &bytes[static_cast<size_t>(offset)], sizeof value);
    return value;
}
template <typename Struct>
void put(Bytes& bytes, int64_t offset, const Struct& value) {
    std::memcpy(&bytes[static_cast<size_t>(offset)], &value, sizeof value);
}
template <typename Struct>
void put_with_own_hash(Bytes& bytes, int64_t offset, Struct value) {
    value.own_hash = hash128(&value, offsetof(Struct, own_hash));
    put(bytes, offset, value);
}

inline int64_t size_of(const Bytes& bytes) {
    return static_cast<int64_t>(bytes.size());
}

// Bytes of a table of `count` rows, or `room` when it does not fit.
template <typename Row>
int64_t table_bytes(int64_t count, int64_t room) {
    const auto row = static_cast<int64_t>(sizeof(Row));
    return count >= 0 && count <= room / row ? count * row : room;
}

inline ConstBytes span_of(const Bytes& bytes) {
    return {bytes.data(), size_of(bytes)};
}

// Whether to read them as programs do, which costs several times what the judgement does: all that
// is accepted, and of the rest, which programs turn away for the same reason, one in 8. Its hash
// decides, so that an input always goes the same way.
inline bool is_worth_reading(const Status& judged, const Bytes& bytes) {
    CHECK(judged.ok() == (judged.message[0] == '\0'));
    return judged.ok() || hash64(bytes.data(), size_of(bytes)) % 8 == 0;
}

// Of the exact size, so that a step beyond it is seen; kept, since most inputs want the same.
inline const CodecStaging& staging_for(int64_t chunk_bytes) {
    static std::map<int64_t, OwnedStaging> made;
    if (made.size() > 64) made.clear();
    return made.try_emplace(chunk_bytes, codec_staging_bytes(chunk_bytes)).first->second.spans();
}

// Loads, verifies and cleans the folder as a program would that plans chunks of 64 KiB at most.
inline void read_as_programs_do(const ManifestHeader& header, Bytes manifest,
                                std::optional<Bytes> data) {
    const int64_t step = std::max<int64_t>(0, header.record.step);
    const std::string folder =
        std::string("/run/") + step_directory_name(step, header.save_id).text + "/";
    DiskImage image;
    image.file(folder + kManifestName) = std::move(manifest);
    if (data) image.file(folder + data_file_name(0).text) = std::move(*data);
    SimulatedDisk disk(std::move(image));
    try {
        load_newest(
            "/run",
            [](CheckpointReader& reader) {
                if (reader.header().chunk_bytes_max > 64 * kKiB) return;
                reader.verify(staging_for(reader.header().chunk_bytes_max));
            },
            [](const std::string&, const CheckpointDamage&) {}, disk.layer());
    } catch (const Error& error) {
        CHECK(*error.what() != '\0');
    }
    int removed = 0;
    throw_if_failed(keep_newest(disk.layer(), "/run", header.run, 2, 0, &removed));
    throw_if_failed(remove_uncommitted(disk.layer(), "/run", header.run, &removed));
    CHECK_NOTE(disk.open_files() == 0, "a descriptor was left open");
}

}  // namespace plumb
