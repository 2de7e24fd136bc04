// A Hugging Face config.json from anywhere: a complete model or an Error.
#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/config/hf_config.h"
#include "runtime/config/model_spec.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace plumb;
    try {
        std::vector<std::string> notes;
        ModelSpec model =
            parse_hf_config({reinterpret_cast<const char*>(data), size}, "config.json", &notes);
        complete_model(model, "config.json");
    } catch (const Error& error) {
        CHECK(error.code() == ExitCode::bad_input);
    }
    return 0;
}
