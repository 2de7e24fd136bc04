#include "formats/checkpoint_layout.h"

#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>

#include "runtime/base/check.h"
#include "runtime/base/digest.h"

namespace plumb {

namespace {

constexpr Dtype kDtypeOfCode[] = {Dtype::f32, Dtype::f64,  Dtype::i32, Dtype::i64,
                                  Dtype::u8,  Dtype::bf16, Dtype::f16, Dtype::u16};

void copy_name(const char* what, std::string_view text, char* field, size_t field_bytes) {
    bool printable = true;
    for (const char c : text) printable = printable && c > ' ' && c <= '~';
    if (text.empty() || !printable || text.size() >= field_bytes)
        throw Error(ExitCode::bad_input, std::string(what) + " \"" + std::string(text) + "\" has " +
                                             std::to_string(text.size()) + " characters; 1 to " +
                                             std::to_string(field_bytes - 1) +
                                             " printable ones are right");
    std::memcpy(field, text.data(), text.size());
}

void random_bytes(void* data, size_t size) noexcept {
    // Up to 256 bytes getrandom neither fails nor falls short once the kernel's pool is ready.
    ssize_t got = ::getrandom(data, size, 0);
    while (got < 0 && errno == EINTR) got = ::getrandom(data, size, 0);
    CHECK_NOTE(got == static_cast<ssize_t>(size), "getrandom failed");
}

}  // namespace

uint8_t dtype_code(Dtype dtype) noexcept {
    uint8_t code = 1;
    for (const Dtype known : kDtypeOfCode) {
        if (known == dtype) return code;
        ++code;
    }
    CHECK_NOTE(false, "dtype has no code on disk");
    return 0;
}

bool dtype_from_code(uint8_t code, Dtype* dtype) noexcept {
    if (code < 1 || code > std::size(kDtypeOfCode)) return false;
    *dtype = kDtypeOfCode[code - 1];
    return true;
}

TensorRecord make_tensor_record(std::string_view stream, std::string_view name, Dtype dtype,
                                const Shape& shape) {
    TensorRecord record;
    copy_name("stream", stream, record.stream, sizeof record.stream);
    copy_name("tensor name", name, record.name, sizeof record.name);
    record.dtype_code = dtype_code(dtype);
    record.rank = static_cast<uint8_t>(shape.rank);
    for (int d = 0; d < shape.rank; ++d) record.dim[d] = shape.dim[d];
    return record;
}

Dtype tensor_dtype(const TensorRecord& tensor) noexcept {
    Dtype dtype;
    CHECK(dtype_from_code(tensor.dtype_code, &dtype));
    return dtype;
}

Shape tensor_shape(const TensorRecord& tensor) noexcept {
    Shape shape;
    shape.rank = tensor.rank;
    for (int d = 0; d < kMaxRank; ++d) shape.dim[d] = tensor.dim[d];
    return shape;
}

uint64_t tensor_key(const TensorRecord& tensor) noexcept {
    return digest_key(tensor.stream, tensor.name);
}

uint64_t state_key(const TensorRecord& tensor) noexcept {
    const bool master = std::string_view(tensor.stream) == "master";
    return digest_key(master ? "param" : tensor.stream, tensor.name);
}

uint64_t chunk_seed(const Uuid& run, uint64_t tensor_key, const Box& box) noexcept {
    struct {
        Uuid run;
        uint64_t tensor_key;
        Box box;
    } const identity = {run, tensor_key, box};
    static_assert(sizeof identity == 88);
    return hash64(&identity, sizeof identity);
}

FileName data_file_name(uint32_t number) noexcept {
    FileName name;
    std::snprintf(name.text, sizeof name.text, "data-%05u.pck", number);
    return name;
}

FileName step_directory_name(int64_t step, uint64_t save_id) noexcept {
    FileName name;
    std::snprintf(name.text, sizeof name.text, "step-%012lld-%08x", static_cast<long long>(step),
                  static_cast<uint32_t>(save_id));
    return name;
}

bool parse_step_name(const char* name, int64_t* step, uint32_t* save_id_low) noexcept {
    long long parsed_step = 0;
    unsigned parsed_id = 0;
    if (std::strlen(name) >= sizeof(FileName) ||
        std::sscanf(name, "step-%18lld-%8x", &parsed_step, &parsed_id) != 2 || parsed_step < 0)
        return false;
    // Only the canonical form: no signs, no upper case, no missing zeros.
    if (std::strcmp(step_directory_name(parsed_step, parsed_id).text, name) != 0) return false;
    *step = parsed_step;
    *save_id_low = parsed_id;
    return true;
}

Uuid fresh_uuid() noexcept {
    Uuid uuid;
    random_bytes(uuid.byte, sizeof uuid.byte);
    uuid.byte[6] = static_cast<uint8_t>((uuid.byte[6] & 0x0F) | 0x40);
    uuid.byte[8] = static_cast<uint8_t>((uuid.byte[8] & 0x3F) | 0x80);
    return uuid;
}

uint64_t fresh_save_id() noexcept {
    uint64_t id;
    random_bytes(&id, sizeof id);
    return id;
}

}  // namespace plumb
