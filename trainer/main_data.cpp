// plumb-data: text files -> token files for plumb-train.
// Path: cold.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "formats/token_writer.h"
#include "runtime/base/error.h"

namespace plumb {
namespace {

constexpr const char* kDescription =
    "Makes token files from text: the bytes of all FILEs, in order, each byte a token (0..255).\n"
    "DIR/train.bin gets the first part and DIR/valid.bin the rest, each with a JSON sidecar.\n"
    "A train.bin or valid.bin there is replaced only when this program made it.\n"
    "Token files made elsewhere (uint8, uint16 or uint32 ids, end to end) can be trained on as "
    "they\n"
    "are: beside tokens.bin, write tokens.bin.json with the text {\"width\": 2}, the bytes per "
    "token.";
constexpr const char* kExample =
    "Example:\n  plumb-data book.txt notes.txt --out data --valid-fraction 0.1";

void print_file(const std::string& path, const TokenFileInfo& info) {
    std::printf("wrote %s: %lld tokens of %d byte, largest id %lld\n", path.c_str(),
                static_cast<long long>(info.count), info.width,
                static_cast<long long>(info.largest));
}

int run(int argc, char** argv) {
    CLI::App app(kDescription, "plumb-data");
    app.footer(kExample);
    std::vector<std::string> texts;
    std::string directory;
    double valid_fraction = 0.1;
    app.add_option("FILE", texts, "Text files")->required();
    app.add_option("--out", directory, "Folder for train.bin and valid.bin; created if missing")
        ->required()
        ->type_name("DIR");
    app.add_option("--valid-fraction", valid_fraction,
                   "Share of the tokens, at the end, that goes to valid.bin (between 0 and 1)")
        ->capture_default_str();
    try {
        app.parse(argc, argv);
    } catch (const CLI::Success& success) {
        return app.exit(success);
    } catch (const CLI::ParseError& error) {
        throw Error(ExitCode::bad_input, std::string(error.what()) + " (see plumb-data --help)");
    }
    const WrittenTokens written = write_byte_tokens(texts, directory, valid_fraction);
    print_file(directory + "/train.bin", written.train);
    print_file(directory + "/valid.bin", written.valid);
    if (std::fflush(stdout) != 0) throw Error(ExitCode::io, "cannot write to standard output");
    return 0;
}

}  // namespace
}  // namespace plumb

int main(int argc, char** argv) {
    return plumb::run_main([&] { return plumb::run(argc, argv); });
}
