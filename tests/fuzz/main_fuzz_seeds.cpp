// fuzz_seeds DIR: writes into DIR/NAME the inputs that the corpora of tests/fuzz began with and
// that only real writers can make: MANIFEST, data file, all settings of two presets, token sidecar.
// Path: cold.
#include "formats/tokens.h"
#include "runtime/config/run_config.h"
#include "tests/formats/checkpoint_fixture.h"
#include "tests/formats/simulated_disk.h"

namespace plumb {
namespace {

void write_seed(const std::string& folder, const std::string& name, const std::string& bytes) {
    std::filesystem::create_directories(folder);
    std::ofstream(folder + "/" + name, std::ios::binary) << bytes;
}

// A tensor that its stream cannot have: what the writer refuses. The fuzz targets' second reading
// makes the hashes right.
struct Forgery {
    const char* name;
    size_t row;
    Dtype dtype;
    int64_t dim;
};

std::string forged(std::string text, size_t table, const Forgery& forgery) {
    TensorRecord record;
    char* at = text.data() + table + forgery.row * sizeof record;
    std::memcpy(&record, at, sizeof record);
    record.dtype_code = dtype_code(forgery.dtype);
    record.dim[0] = forgery.dim;
    std::memcpy(at, &record, sizeof record);
    return text;
}

void write_checkpoint(const std::string& folder, const std::string& name, const State& state,
                      const std::vector<Forgery>& forgeries = {}) {
    SimulatedDisk disk;
    throw_if_failed(make_directories(disk.layer(), "/run"));
    throw_if_failed(Saver(state).save("/run", 7, disk.layer()));
    DiskImage image = disk.now();
    for (const std::string& path : image.paths()) {
        const std::vector<uint8_t>& bytes = image.file(path);
        std::string text(bytes.begin(), bytes.end());
        const bool manifest = path.find("MANIFEST") != std::string::npos;
        if (!manifest && path.find(".pck") == std::string::npos) continue;
        if (!manifest) text.erase(offsetof(DataHeader, reserved), sizeof(DataHeader::reserved));
        const std::string target = folder + (manifest ? "/manifest" : "/data_file");
        const size_t table =
            manifest ? sizeof(ManifestHeader) : sizeof(DataHeader) - sizeof(DataHeader::reserved);
        write_seed(target, name, text);
        for (const Forgery& forgery : forgeries)
            write_seed(target, forgery.name, forged(text, table, forgery));
    }
}

int run(int argc, char** argv) {
    if (argc != 2) throw Error(ExitCode::bad_input, "usage: fuzz_seeds DIR");
    const std::string folder = argv[1];
    State coded;
    coded.chunk_bytes = 1024;
    coded.add("param", "w", Dtype::bf16, make_shape(20, 20));
    coded.add("param", "v", Dtype::f16, make_shape(16, 16));
    coded.add("master", "v", Dtype::f32, make_shape(16, 16));
    coded.add("moment2", "v", Dtype::f32, make_shape(16, 16));
    coded.add("state", "n", Dtype::i64, make_shape(2));
    coded.fill(1);
    for (size_t i = 3; i < coded.data[3].size(); i += 4) coded.data[3][i] &= 0x7F;  // no sign set
    coded.settings = "model.model_type = \"gpt2\"\nmodel.vocab_size = 256\n";
    write_checkpoint(folder, "coded", coded);
    State raw;
    raw.chunk_bytes = 64;
    raw.add("param", "a", Dtype::f32, make_shape(2, 3));
    raw.add("moment1", "a", Dtype::f32, make_shape(2, 3));
    raw.add("state", "b", Dtype::u8, make_shape(3, 1, 2, 5));
    raw.add("state", "c", Dtype::f64, Shape{});
    raw.fill(2);
    write_checkpoint(folder, "raw", raw);
    raw.numerics_hash = {3, 4};
    write_checkpoint(folder, "numerics", raw);
    State halves;
    halves.chunk_bytes = 64;
    halves.add("param", "w", Dtype::bf16, make_shape(6, 7));
    halves.add("master_lo", "w", Dtype::u16, make_shape(6, 7));
    halves.add("param", "v", Dtype::f16, make_shape(9));
    halves.add("master", "v", Dtype::f32, make_shape(9));
    halves.add("moment1", "v", Dtype::f32, make_shape(9));
    halves.fill(3);
    write_checkpoint(folder, "halves", halves,
                     {{"forged_param_dtype", 0, Dtype::u16, 6},
                      {"forged_master_lo_dtype", 1, Dtype::f64, 6},
                      {"forged_master_lo_shape", 1, Dtype::u16, 5},
                      {"forged_param_of_master", 2, Dtype::f32, 9},
                      {"forged_master_dtype", 3, Dtype::i64, 9},
                      {"forged_master_shape", 3, Dtype::f32, 8},
                      {"forged_moment_dtype", 4, Dtype::f64, 9},
                      {"forged_moment_shape", 4, Dtype::f32, 10}});
    for (const char* preset : {"gpt2-124m", "llama3-8b"})
        write_seed(folder + "/run_file", preset, settings_text(load_run(preset)));
    TokenFileInfo info;
    info.width = 2;
    info.count = 10542640;
    info.largest = 50256;
    info.tokenizer = "gpt2";
    write_seed(folder + "/token_sidecar", "written", format_token_sidecar(info));
    return 0;
}

}  // namespace
}  // namespace plumb

int main(int argc, char** argv) {
    return plumb::run_main([&] { return plumb::run(argc, argv); });
}
