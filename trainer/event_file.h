// A TensorBoard event file: the scalars of log.jsonl as `events.out.tfevents.<time>.<host>.<pid>`
// beside it. Every start makes a file of its own, which TensorBoard reads in the order of their
// names. Its first events are the version and a session start, at which TensorBoard drops what
// earlier files say of this step and later ones: a continuation given up leaves no trace. Each
// event is made in a fixed buffer and written with one write(2), so it may be used after seal.
//
// The file is a row of TFRecords (tensorflow.org/tutorials/load_data/tfrecord): length as u64, its
// masked CRC-32C, the bytes, their masked CRC-32C, all little-endian; masked(c) is c rotated right
// by 15, plus 0xa282ead8. The bytes are an Event of tensorflow/core/util/event.proto in protobuf's
// wire format (protobuf.dev/programming-guides/encoding), written by hand: four kinds of field.
// Path: hot.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>

#include "runtime/base/types.h"

namespace plumb {

struct Scalar {
    std::string_view tag;
    double value;  // written as a float; need not be finite
};

// An event as encode_record takes it: exactly one of version, session_start and scalars is set.
struct Event {
    double wall_time = 0;  // seconds since 1970
    int64_t step = 0;
    std::string_view version = {};
    bool session_start = false;
    std::initializer_list<Scalar> scalars = {};
};

inline constexpr int64_t kRecordBytesMost = 512;

// Writes the event's TFRecord to `out`, which has kRecordBytesMost; returns its bytes.
int64_t encode_record(const Event& event, unsigned char* out) noexcept;

class EventFile {
  public:
    // Makes the file in `folder`, which exists, for a run that starts after `first_step` finished
    // steps. Throws Error (io).
    EventFile(const std::string& folder, int64_t first_step);
    ~EventFile();
    EventFile(const EventFile&) = delete;
    EventFile& operator=(const EventFile&) = delete;

    // False, with errno, when the event could not be written. Half an event is taken back, because
    // TensorBoard would stop reading there.
    bool write(int64_t step, std::initializer_list<Scalar> scalars) noexcept;

    const std::string& path() const { return path_; }

  private:
    bool append(const Event& event) noexcept;

    std::string path_;
    int fd_ = -1;
    int64_t size_bytes_ = 0;
};

}  // namespace plumb
