#include "trainer/event_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cstring>
#include <ctime>

#include "formats/crc32c.h"
#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"

namespace plumb {

namespace {

// Numbers of the fields used, in event.proto and summary.proto.
constexpr uint32_t kEventWallTime = 1, kEventStep = 2, kEventVersion = 3, kEventSummary = 5,
                   kEventSession = 7;
constexpr uint32_t kSessionStatus = 1, kSessionStart = 1;
constexpr uint32_t kSummaryValue = 1;
constexpr uint32_t kValueTag = 1, kValueSimple = 2;
// Protobuf's wire types.
constexpr uint32_t kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5;

constexpr int64_t kLengthBytes = 8, kCrcBytes = 4;

// Appends to a buffer whose size its user knows to be enough, which is checked all the same.
class WireBuffer {
  public:
    explicit WireBuffer(unsigned char* out) noexcept : begin_(out), end_(out) {}

    void little_endian(uint64_t value, int64_t size_bytes) noexcept {
        CHECK(size() + size_bytes <= kRecordBytesMost);
        for (int64_t i = 0; i < size_bytes; ++i, value >>= 8)
            *end_++ = static_cast<unsigned char>(value);
    }
    void varint(uint64_t value) noexcept {
        for (; value >= 0x80; value >>= 7) little_endian((value & 0x7f) | 0x80, 1);
        little_endian(value, 1);
    }
    void tag(uint32_t field, uint32_t wire_type) noexcept { varint(field << 3 | wire_type); }
    void text(uint32_t field, std::string_view bytes) noexcept {
        tag(field, kBytes);
        varint(bytes.size());
        for (const char byte : bytes) little_endian(static_cast<unsigned char>(byte), 1);
    }
    int64_t size() const noexcept { return end_ - begin_; }

  private:
    unsigned char* begin_;
    unsigned char* end_;
};

uint64_t value_bytes(const Scalar& scalar) noexcept {
    CHECK(scalar.tag.size() < 0x80);  // its length is one byte
    return 2 + scalar.tag.size() + 1 + sizeof(float);
}

uint32_t masked_crc(const unsigned char* data, int64_t size_bytes) noexcept {
    return std::rotr(crc32c(data, size_bytes), 15) + 0xa282ead8u;
}

double unix_seconds(const struct timespec& time) noexcept {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

struct timespec now() noexcept {
    struct timespec time {};
    ::clock_gettime(CLOCK_REALTIME, &time);
    return time;
}

}  // namespace

int64_t encode_record(const Event& event, unsigned char* out) noexcept {
    WireBuffer record(out);
    record.little_endian(0, kLengthBytes + kCrcBytes);  // known at the end
    record.tag(kEventWallTime, kFixed64);
    record.little_endian(std::bit_cast<uint64_t>(event.wall_time), 8);
    if (event.step != 0) {
        record.tag(kEventStep, kVarint);
        record.varint(static_cast<uint64_t>(event.step));
    }
    if (!event.version.empty()) record.text(kEventVersion, event.version);
    if (event.session_start) {
        record.tag(kEventSession, kBytes);
        record.varint(2);
        record.tag(kSessionStatus, kVarint);
        record.varint(kSessionStart);
    }
    if (event.scalars.size() > 0) {
        uint64_t summary_bytes = 0;
        for (const Scalar& scalar : event.scalars) summary_bytes += 2 + value_bytes(scalar);
        record.tag(kEventSummary, kBytes);
        record.varint(summary_bytes);
        for (const Scalar& scalar : event.scalars) {
            record.tag(kSummaryValue, kBytes);
            record.varint(value_bytes(scalar));
            record.text(kValueTag, scalar.tag);
            record.tag(kValueSimple, kFixed32);
            record.little_endian(std::bit_cast<uint32_t>(static_cast<float>(scalar.value)), 4);
        }
    }
    const int64_t event_begin = kLengthBytes + kCrcBytes;
    const int64_t event_bytes = record.size() - event_begin;
    record.little_endian(masked_crc(out + event_begin, event_bytes), kCrcBytes);
    WireBuffer length(out);
    length.little_endian(static_cast<uint64_t>(event_bytes), kLengthBytes);
    length.little_endian(masked_crc(out, kLengthBytes), kCrcBytes);
    return record.size();
}

EventFile::EventFile(const std::string& folder, int64_t first_step) {
    char host[256] = "";
    // Cut at the buffer's size, a name may lack its zero.
    if (::gethostname(host, sizeof host - 1) != 0 || *host == '\0') std::strcpy(host, "localhost");
    const struct timespec time = now();
    // Nanoseconds keep the order of two starts within a second.
    path_ = fmt::format("{}/events.out.tfevents.{:010}.{:09}.{}.{}", folder, time.tv_sec,
                        time.tv_nsec, host, ::getpid());
    fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0666);
    if (fd_ < 0) throw Error(ExitCode::io, path_ + ": " + std::strerror(errno));
    if (append({.wall_time = unix_seconds(time), .version = "brain.Event:2"}) &&
        append({.wall_time = unix_seconds(time), .step = first_step + 1, .session_start = true}))
        return;
    const int error = errno;
    ::close(fd_);
    ::unlink(path_.c_str());
    throw Error(ExitCode::io, path_ + ": " + std::strerror(error));
}

EventFile::~EventFile() {
    ::close(fd_);
}

bool EventFile::write(int64_t step, std::initializer_list<Scalar> scalars) noexcept {
    return append({.wall_time = unix_seconds(now()), .step = step, .scalars = scalars});
}

bool EventFile::append(const Event& event) noexcept {
    unsigned char record[kRecordBytesMost];
    const int64_t bytes = encode_record(event, record);
    if (write_all(fd_, reinterpret_cast<const char*>(record), bytes)) {
        size_bytes_ += bytes;
        return true;
    }
    const int error = errno;
    // Should even this fail, the file stays readable up to here.
    [[maybe_unused]] const int taken_back = ::ftruncate(fd_, size_bytes_);
    errno = error;
    return false;
}

}  // namespace plumb
