// The sidecar of a token file from anywhere: what it says or an Error, and what is accepted is
// written and read back as the same.
#include "formats/tokens.h"
#include "runtime/base/check.h"
#include "runtime/base/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace plumb;
    TokenFileInfo info;
    try {
        info = parse_token_sidecar({reinterpret_cast<const char*>(data), size}, "train.bin.json");
    } catch (const Error& error) {
        CHECK(error.code() == ExitCode::bad_input);
        return 0;
    }
    if (info.count < 0 || info.largest < 0) return 0;  // not stated; they are always written
    const TokenFileInfo again = parse_token_sidecar(format_token_sidecar(info), "train.bin.json");
    CHECK(again.width == info.width && again.count == info.count && again.largest == info.largest &&
          again.tokenizer == info.tokenizer);
    return 0;
}
