// What a rank did last with others, kept where it can be read when the rank is gone: a ring of
// events in a file that is mapped and so survives the process, however it ends. Written by the one
// thread that exchanges; a reader of a running rank may find the newest event half written and
// then does not count it. `plumb-train explain` compares the rings of all ranks (explain_rings).
// Path: hot.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "runtime/comm/group.h"

namespace plumb {

enum class FlightKind : int32_t {
    arrived,   // at an exchange, and waits for the others
    opened,    // all have arrived
    closed,    // this rank has read what it wanted
    sent,      // to `peer`
    receives,  // from `peer`, and waits for it
    received,
    ended,  // the run, as it should
    count
};

struct FlightEvent {
    int64_t number = -1;  // of all events of this rank, from 0
    int64_t time_ns = 0;  // since 1970
    int64_t step = 0;
    int32_t group = 0;      // the group's first rank in the world
    uint32_t sequence = 0;  // of the group's exchanges, from 1; of sends to this peer
    int32_t peer = -1;      // rank of the world
    FlightKind kind = FlightKind::count;
    GroupAxis axis = GroupAxis::count;
    char what[39] = {};
};
static_assert(sizeof(FlightEvent) == 80);

struct FlightHeader {
    char magic[8] = {'P', 'L', 'M', 'B', 'R', 'I', 'N', 'G'};
    uint32_t version = 1;
    int32_t rank = 0;
    int32_t rank_count = 0;
    int32_t pid = 0;
    char host[64] = {};
    int64_t capacity = 0;  // events in the ring
    std::atomic<int64_t> written{0};
};

class FlightRecorder {
  public:
    static constexpr int64_t kEvents = 4096;

    // Makes DIRECTORY/rank-00003.ring anew, whole on disk; the folder exists. Throws Error (io).
    FlightRecorder(const std::string& directory, int32_t rank, int32_t rank_count);
    ~FlightRecorder();
    FlightRecorder(const FlightRecorder&) = delete;
    FlightRecorder& operator=(const FlightRecorder&) = delete;

    void record(FlightKind kind, const CommPlace& place, GroupAxis axis, int32_t group,
                uint32_t sequence, int32_t peer = -1) noexcept;

  private:
    FlightHeader* header_;
    FlightEvent* events_;
};

// A ring as it was found.
struct FlightRing {
    int32_t rank = 0;
    int32_t rank_count = 0;
    int32_t pid = 0;
    std::string host;
    std::vector<FlightEvent> events;  // oldest first
};

// Throws Error: io, or bad_input for a file that is no ring.
FlightRing read_ring(const std::string& path);
// Of all files DIRECTORY/rank-*.ring, by rank. Throws Error (bad_input) when there is none.
std::vector<FlightRing> read_rings(const std::string& directory);

// Who was missing and where, a line each; then each rank's last event.
std::vector<std::string> explain_rings(const std::vector<FlightRing>& rings);

}  // namespace plumb
