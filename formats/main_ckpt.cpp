// plumb-ckpt: looks at checkpoints from outside. `inspect` shows what one holds, `verify` reads
// every byte of one (or of all in a folder) and recomputes its state digest.
// Path: cold.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <ctime>

#include "formats/checkpoint_reader.h"

namespace plumb {
namespace {

constexpr const char* kExample =
    "Examples:\n"
    "  plumb-ckpt inspect run                                    the newest checkpoint in run\n"
    "  plumb-ckpt inspect --settings run > run.toml              what it was trained with\n"
    "  plumb-ckpt verify run/step-000000000050-1a2b3c4d          every byte of one checkpoint\n"
    "  plumb-ckpt verify run/damaged-step-000000000055-5e6f7a8b  why loading set it aside";

bool exists(const std::string& path) {
    return ::access(path.c_str(), F_OK) == 0;
}

// `path` itself when it is one checkpoint, otherwise those in it, newest first.
std::vector<std::string> checkpoints_at(const std::string& path) {
    if (exists(path + "/" + kManifestName)) return {path};
    std::vector<std::string> found;
    for (const StepEntry& entry : find_steps(path)) found.push_back(path + "/" + entry.name);
    if (!found.empty()) return found;
    if (!exists(path)) throw Error(ExitCode::bad_input, path + ": no such directory");
    throw Error(ExitCode::bad_input, path + ": no " + kManifestName +
                                         " in it and no step-* directory with one: " +
                                         "not a checkpoint, or a save that was not finished");
}

std::string uuid_text(const Uuid& uuid) {
    std::string text;
    for (int i = 0; i < 16; ++i)
        text +=
            fmt::format("{}{:02x}", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid.byte[i]);
    return text;
}

std::string utc_text(int64_t created_ns) {
    const std::time_t seconds = created_ns / 1'000'000'000;
    std::tm parts = {};
    gmtime_r(&seconds, &parts);
    char text[32];
    std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", &parts);
    return text;
}

std::string shape_text(const TensorRecord& tensor) {
    std::string text = "[";
    for (int d = 0; d < tensor.rank; ++d)
        text += fmt::format("{}{}", d == 0 ? "" : ", ", tensor.dim[d]);
    return text + "]";
}

void print_tensors(const CheckpointReader& reader) {
    fmt::print("{:<10} {:<4} {:<20} name\n", "stream", "type", "shape");
    for (int64_t t = 0; t < reader.tensor_count(); ++t) {
        const TensorRecord& tensor = reader.tensor(t);
        fmt::print("{:<10} {:<4} {:<20} {}\n", tensor.stream, dtype_name(tensor_dtype(tensor)),
                   shape_text(tensor), tensor.name);
    }
}

int inspect(const std::string& path, bool settings, bool tensors) {
    const CheckpointReader reader(checkpoints_at(path).front());
    if (settings) {
        fmt::print("{}\n", reader.settings());
        return 0;
    }
    const RunRecord& record = reader.record();
    int64_t raw_bytes = 0;
    for (int64_t t = 0; t < reader.tensor_count(); ++t)
        raw_bytes +=
            tensor_shape(reader.tensor(t)).elements() * dtype_bytes(tensor_dtype(reader.tensor(t)));
    fmt::print("checkpoint    {}\n", reader.path());
    fmt::print("run           {}\n", uuid_text(reader.header().run));
    fmt::print("step          {}  (saved {})\n", record.step, utc_text(reader.header().created_ns));
    fmt::print("consumed      {} sequences, {} tokens; {} steps skipped\n",
               record.sequences_consumed, record.tokens_consumed, record.skipped_steps);
    fmt::print("model hash    {}\n", to_hex(record.model_hash));
    fmt::print("training hash {}\n", to_hex(record.training_hash));
    fmt::print("layout hash   {}\n", to_hex(record.layout_hash));
    fmt::print("numerics hash {}\n",
               record.numerics_hash == Hash128{} ? "not known" : to_hex(record.numerics_hash));
    fmt::print("state digest  {}\n", to_hex(reader.header().state_digest));
    fmt::print("tensors       {} in {} chunks of {} files\n", reader.tensor_count(),
               reader.chunk_count(), reader.header().file_count);
    fmt::print("bytes         {} raw, {} stored ({:.3f}x)\n", raw_bytes, reader.stored_bytes(),
               static_cast<double>(raw_bytes) / static_cast<double>(reader.stored_bytes()));
    if (tensors) print_tensors(reader);
    return 0;
}

int verify(const std::string& path) {
    int exit_code = 0;
    for (const std::string& checkpoint : checkpoints_at(path)) {
        try {
            CheckpointReader reader(checkpoint);
            const OwnedStaging staging(reader.staging_bytes());
            reader.verify(staging.spans());
            fmt::print("{}: step {}, {} tensors, {} chunks, {} bytes, state digest {}: ok\n",
                       checkpoint, reader.record().step, reader.tensor_count(),
                       reader.chunk_count(), reader.stored_bytes(),
                       to_hex(reader.header().state_digest));
        } catch (const Error& error) {  // the others are verified too
            print_error(error.what());
            exit_code = std::max(exit_code, static_cast<int>(error.code()));
        }
    }
    return exit_code;
}

int run(int argc, char** argv) {
    CLI::App app("Looks at checkpoints. DIR is one checkpoint or a folder of them.", "plumb-ckpt");
    app.footer(kExample);
    app.require_subcommand(1);
    std::string path;
    bool settings = false;
    bool tensors = false;
    CLI::App* inspect_command =
        app.add_subcommand("inspect", "Show what the (newest) checkpoint in DIR holds");
    inspect_command->add_option("DIR", path)->required();
    inspect_command->add_flag("--settings", settings, "Print only the settings it was made with");
    inspect_command->add_flag("--tensors", tensors, "List every tensor");
    CLI::App* verify_command = app.add_subcommand(
        "verify", "Read every byte of all checkpoints in DIR and recompute their state digests");
    verify_command->add_option("DIR", path)->required();
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        if (error.get_exit_code() == 0) return app.exit(error);  // --help
        throw Error(ExitCode::bad_input, error.what());
    }
    throw_if_failed(check_codec_contexts());
    return inspect_command->parsed() ? inspect(path, settings, tensors) : verify(path);
}

}  // namespace
}  // namespace plumb

int main(int argc, char** argv) {
    return plumb::run_main([&] { return plumb::run(argc, argv); });
}
