#include "formats/tokens.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>

#include "runtime/base/check.h"
#include "runtime/base/error.h"

namespace plumb {

static_assert(std::endian::native == std::endian::little, "token files are mapped as they lie");

namespace {

constexpr int64_t kSidecarBytesMax = 64 * kKiB;
constexpr int64_t kLargestId = std::numeric_limits<int32_t>::max();

[[noreturn]] void fail(const std::string& message) {
    throw Error(ExitCode::bad_input, message);
}

[[noreturn]] void fail_io(const std::string& path, const char* doing) {
    const int code = errno;
    throw Error(code == ENOENT || code == ENOTDIR ? ExitCode::bad_input : ExitCode::io,
                std::string("cannot ") + doing + " " + path + ": " + std::strerror(code));
}

struct Descriptor {
    explicit Descriptor(int value) : fd(value) {}
    ~Descriptor() {
        if (fd >= 0) ::close(fd);
    }
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    int fd;
};

bool valid_width(int64_t width) {
    return width == 1 || width == 2 || width == 4;
}

// Whole text of the sidecar; false when there is none.
bool read_sidecar(const std::string& path, std::string* text) {
    const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (file.fd < 0 && errno == ENOENT) return false;
    struct stat status;
    if (file.fd < 0 || ::fstat(file.fd, &status) != 0) fail_io(path, "open");
    if (!S_ISREG(status.st_mode)) fail(path + " is not a regular file");
    if (status.st_size > kSidecarBytesMax)
        fail(path + " has " + std::to_string(status.st_size) +
             " bytes; a token sidecar has at most " + std::to_string(kSidecarBytesMax));
    text->resize(static_cast<size_t>(status.st_size));
    const ssize_t size = ::pread(file.fd, text->data(), text->size(), 0);
    if (size < 0) fail_io(path, "read");
    text->resize(static_cast<size_t>(size));
    return true;
}

// -1 when it is not stated.
int64_t sidecar_number(const nlohmann::json& object, const char* key, const std::string& path) {
    const auto found = object.find(key);
    if (found == object.end()) return -1;
    const bool fits =
        found->is_number_unsigned() &&
        found->get<uint64_t>() <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
    if (!fits)
        fail(path + ": \"" + key + "\" is " + found->dump() + ", not a non-negative integer");
    return found->get<int64_t>();
}

template <typename Id>
uint32_t load(const unsigned char* data, int64_t i) noexcept {
    Id id;
    std::memcpy(&id, data + i * static_cast<int64_t>(sizeof id), sizeof id);
    return id;
}

template <typename Id>
uint32_t largest_id(const unsigned char* data, int64_t count) noexcept {
    uint32_t largest = 0;
    for (int64_t i = 0; i < count; ++i) largest = std::max(largest, load<Id>(data, i));
    return largest;
}

uint32_t largest_id(const unsigned char* data, int64_t count, int32_t width) noexcept {
    if (width == 1) return largest_id<uint8_t>(data, count);
    if (width == 2) return largest_id<uint16_t>(data, count);
    return largest_id<uint32_t>(data, count);
}

// Widens ids to int32 and returns the largest: one pass that the compiler vectorises.
template <typename Id>
uint32_t widen(const unsigned char* data, int64_t first, int64_t count, int32_t* tokens) noexcept {
    uint32_t largest = 0;
    for (int64_t i = 0; i < count; ++i) {
        const uint32_t id = load<Id>(data, first + i);
        largest = std::max(largest, id);
        tokens[i] = static_cast<int32_t>(id);
    }
    return largest;
}

}  // namespace

std::string token_sidecar_path(const std::string& token_path) {
    return token_path + ".json";
}

std::string format_token_sidecar(const TokenFileInfo& info) {
    const nlohmann::ordered_json object = {{"width", info.width},
                                           {"count", info.count},
                                           {"largest", info.largest},
                                           {"tokenizer", info.tokenizer}};
    return object.dump() + "\n";
}

TokenFileInfo parse_token_sidecar(const std::string& text, const std::string& path) {
    const nlohmann::json object = nlohmann::json::parse(text, nullptr, false);
    if (!object.is_object()) fail(path + " is not a JSON object");
    TokenFileInfo info;
    const int64_t width = sidecar_number(object, "width", path);
    if (width < 0) fail(path + " has no \"width\"; it is 1, 2 or 4 bytes per token");
    if (!valid_width(width))
        fail(path + ": \"width\" is " + std::to_string(width) + ", not 1, 2 or 4 bytes per token");
    info.width = static_cast<int32_t>(width);
    info.count = sidecar_number(object, "count", path);
    info.largest = sidecar_number(object, "largest", path);
    const int64_t limit = info.width == 4 ? kLargestId : (int64_t{1} << (8 * width)) - 1;
    if (info.largest > limit)
        fail(path + ": \"largest\" is " + std::to_string(info.largest) +
             ", above the largest id of width " + std::to_string(width) + ", " +
             std::to_string(limit));
    if (const auto name = object.find("tokenizer"); name != object.end()) {
        if (!name->is_string()) fail(path + ": \"tokenizer\" is " + name->dump() + ", not a name");
        info.tokenizer = name->get<std::string>();
    }
    return info;
}

bool read_token_sidecar(const std::string& token_path, TokenFileInfo* info) {
    const std::string path = token_sidecar_path(token_path);
    std::string text;
    if (!read_sidecar(path, &text)) return false;
    *info = parse_token_sidecar(text, path);
    return true;
}

TokenFile::TokenFile(const std::string& path, int32_t width) : path_(path) {
    if (width != 0 && !valid_width(width))
        fail("token width " + std::to_string(width) + " for " + path + " is not 1, 2 or 4 bytes");
    map();
    try {
        check_size(width);
        find_largest();
    } catch (...) {
        ::munmap(const_cast<unsigned char*>(data_), static_cast<size_t>(size_bytes_));
        throw;
    }
    // Shuffled windows: the kernel's own read-ahead would fetch what nobody reads (see will_need).
    ::madvise(const_cast<unsigned char*>(data_), static_cast<size_t>(size_bytes_), MADV_RANDOM);
}

// The width and the count, from the sidecar or from `width`, against the size.
void TokenFile::check_size(int32_t width) {
    const std::string sidecar = token_sidecar_path(path_);
    if (!read_token_sidecar(path_, &info_)) {
        if (width == 0)
            fail(
                path_ + " has no sidecar " + sidecar +
                ": write that file, with the text {\"width\": 2} for uint16 tokens (1 for uint8, 4 "
                "for uint32)");
        info_.width = width;
    }
    if (width != 0 && width != info_.width)
        fail("token width " + std::to_string(width) + " was asked for " + path_ + ", but " +
             sidecar + " says " + std::to_string(info_.width));
    if (size_bytes_ % info_.width != 0)
        fail(path_ + " has " + std::to_string(size_bytes_) +
             " bytes, not a multiple of its token width " + std::to_string(info_.width));
    const int64_t count = size_bytes_ / info_.width;
    if (info_.count >= 0 && info_.count != count)
        fail(path_ + " has " + std::to_string(size_bytes_) + " bytes, " + std::to_string(count) +
             " tokens of " + std::to_string(info_.width) + " bytes, but " + sidecar + " says " +
             std::to_string(info_.count));
    info_.count = count;
}

void TokenFile::find_largest() {
    ::madvise(const_cast<unsigned char*>(data_), static_cast<size_t>(size_bytes_), MADV_SEQUENTIAL);
    const int64_t largest = largest_id(data_, info_.count, info_.width);
    const int64_t limit = info_.largest >= 0 ? info_.largest : kLargestId;
    if (largest > limit)
        fail("token id " + std::to_string(largest) + " in " + path_ + " is above " +
             std::to_string(limit) +
             (info_.largest >= 0 ? ", the \"largest\" in " + token_sidecar_path(path_) : ""));
    info_.largest = largest;
}

void TokenFile::map() {
    const Descriptor file(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
    struct stat status;
    if (file.fd < 0 || ::fstat(file.fd, &status) != 0) fail_io(path_, "open token file");
    if (!S_ISREG(status.st_mode)) fail(path_ + " is not a regular file");
    if (status.st_size == 0) fail(path_ + " is empty (0 bytes): it holds no tokens");
    size_bytes_ = status.st_size;
    void* mapped =
        ::mmap(nullptr, static_cast<size_t>(size_bytes_), PROT_READ, MAP_SHARED, file.fd, 0);
    if (mapped == MAP_FAILED) fail_io(path_, "map token file");
    data_ = static_cast<const unsigned char*>(mapped);
}

TokenFile::~TokenFile() {
    ::munmap(const_cast<unsigned char*>(data_), static_cast<size_t>(size_bytes_));
}

void TokenFile::check_vocabulary(int64_t vocab_size) const {
    if (info_.largest >= vocab_size)
        fail("token id " + std::to_string(info_.largest) + " in " + path_ +
             " is not below vocab_size " + std::to_string(vocab_size));
}

int32_t TokenFile::token(int64_t i) const noexcept {
    int32_t id;
    read(i, 1, &id);
    return id;
}

void TokenFile::read(int64_t first, int64_t count, int32_t* tokens) const noexcept {
    CHECK(first >= 0 && count >= 0 && first <= info_.count - count);
    uint32_t largest;
    if (info_.width == 1) {
        largest = widen<uint8_t>(data_, first, count, tokens);
    } else if (info_.width == 2) {
        largest = widen<uint16_t>(data_, first, count, tokens);
    } else {
        largest = widen<uint32_t>(data_, first, count, tokens);
    }
    CHECK_NOTE(largest <= info_.largest,
               "token id above the largest at open: the file was changed");
}

void TokenFile::will_need(int64_t first, int64_t count) const noexcept {
    CHECK(first >= 0 && count >= 0 && first <= info_.count - count);
    const int64_t page_bytes = ::sysconf(_SC_PAGESIZE);
    const int64_t begin = first * info_.width / page_bytes * page_bytes;
    const int64_t end = (first + count) * info_.width;
    ::madvise(const_cast<unsigned char*>(data_ + begin), static_cast<size_t>(end - begin),
              MADV_WILLNEED);
}

}  // namespace plumb
