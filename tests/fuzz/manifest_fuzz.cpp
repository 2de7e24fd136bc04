// A MANIFEST from anywhere, read as it is and once more with right hashes.
#include "runtime/config/run_config.h"
#include "tests/fuzz/checkpoint_bytes.h"

namespace plumb {
namespace {

// Hashes, and the sizes that any insertion makes wrong.
void repair(Bytes& bytes) {
    auto header = get<ManifestHeader>(bytes, 0);
    const int64_t tensors_at = sizeof header;
    const int64_t files_at =
        tensors_at + table_bytes<TensorRecord>(header.tensor_count, size_of(bytes) - tensors_at);
    const int64_t settings_at =
        files_at + table_bytes<FileRecord>(header.file_count, size_of(bytes) - files_at);
    header.manifest_bytes = size_of(bytes);
    header.settings_bytes = size_of(bytes) - settings_at;
    header.tensor_table_hash = hash128(bytes.data() + tensors_at, files_at - tensors_at);
    header.file_table_hash = hash128(bytes.data() + files_at, settings_at - files_at);
    header.settings_hash = hash128(bytes.data() + settings_at, header.settings_bytes);
    put_with_own_hash(bytes, 0, header);
}

// The bytes are of exactly their size, so that a step beyond it is seen.
void read(const Bytes& bytes) {
    ManifestView view;
    const Status judged = validate_manifest("MANIFEST", span_of(bytes), &view);
    if (judged.ok()) {
        const std::string settings(view.settings, static_cast<size_t>(view.header->settings_bytes));
        try {
            parse_settings_text(settings, "MANIFEST");
        } catch (const Error& error) {
            CHECK(error.code() == ExitCode::bad_input || error.code() == ExitCode::io);
        }
    }
    if (size_of(bytes) >= static_cast<int64_t>(sizeof(ManifestHeader)) &&
        is_worth_reading(judged, bytes))
        read_as_programs_do(get<ManifestHeader>(bytes, 0), bytes, {});
}

}  // namespace
}  // namespace plumb

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace plumb;
    const Bytes bytes(data, data + size);
    read(bytes);
    if (bytes.size() < sizeof(ManifestHeader)) return 0;
    Bytes repaired = bytes;
    repair(repaired);
    if (repaired != bytes) read(repaired);
    return 0;
}
