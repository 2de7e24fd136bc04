#include "runtime/comm/flight_recorder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <map>
#include <new>

#include "runtime/base/error.h"

namespace plumb {

namespace {

constexpr int64_t kRingBytes = static_cast<int64_t>(sizeof(FlightHeader)) +
                               FlightRecorder::kEvents * static_cast<int64_t>(sizeof(FlightEvent));

int64_t now_ns() noexcept {
    timespec now;
    ::clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec * 1'000'000'000 + now.tv_nsec;
}

std::string host_name() {
    char name[64] = {};
    static_cast<void>(::gethostname(name, sizeof name - 1));
    return name;
}

void copy_text(char* to, size_t size, const char* from) noexcept {
    const size_t length = std::min(std::strlen(from), size - 1);
    std::memcpy(to, from, length);
    to[length] = '\0';
}

[[noreturn]] void refuse(const std::string& path, const char* verb) {
    throw Error(ExitCode::io, fmt::format("cannot {} {}: {}", verb, path, std::strerror(errno)));
}

const char* verb(const FlightEvent& event) {
    switch (event.kind) {
        case FlightKind::arrived:
            return "waited at";
        case FlightKind::opened:
            return "was in";
        case FlightKind::closed:
            return "left";
        case FlightKind::sent:
            return "sent";
        case FlightKind::receives:
            return "waited to receive";
        case FlightKind::received:
            return "received";
        case FlightKind::ended:
            return "ended after";
        case FlightKind::count:
            break;
    }
    return "?";
}

std::string place_text(const FlightEvent& event) {
    return fmt::format("{} of step {} (axis {})", event.what, event.step,
                       group_axis_name(event.axis));
}

// What the system says of a process of this host.
std::string state_of(const FlightRing& ring) {
    if (ring.host != host_name()) return fmt::format("on host {}", ring.host);
    std::string line;
    std::ifstream stat(fmt::format("/proc/{}/stat", ring.pid));
    if (!std::getline(stat, line)) return "has ended";
    const size_t name_end = line.rfind(')');  // the name may hold anything
    const char state = name_end + 2 < line.size() ? line[name_end + 2] : '?';
    return state == 'T' ? "is stopped" : state == 'Z' ? "has ended" : "is running";
}

}  // namespace

FlightRecorder::FlightRecorder(const std::string& directory, int32_t rank, int32_t rank_count) {
    const std::string path = fmt::format("{}/rank-{:05}.ring", directory, rank);
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) refuse(path, "make");
    // A page that the disk has no room for would end the run by a signal, later.
    errno = ::posix_fallocate(fd, 0, kRingBytes);
    void* memory = errno != 0 ? MAP_FAILED
                              : ::mmap(nullptr, kRingBytes, PROT_READ | PROT_WRITE,
                                       MAP_SHARED | MAP_POPULATE, fd, 0);
    if (memory == MAP_FAILED) {
        const int code = errno;
        ::close(fd);
        errno = code;
        refuse(path, "reserve");
    }
    ::close(fd);
    header_ = new (memory) FlightHeader;
    events_ = reinterpret_cast<FlightEvent*>(header_ + 1);
    header_->rank = rank;
    header_->rank_count = rank_count;
    header_->pid = ::getpid();
    copy_text(header_->host, sizeof header_->host, host_name().c_str());
    header_->capacity = kEvents;
}

FlightRecorder::~FlightRecorder() {
    ::munmap(header_, kRingBytes);
}

void FlightRecorder::record(FlightKind kind, const CommPlace& place, GroupAxis axis, int32_t group,
                            uint32_t sequence, int32_t peer) noexcept {
    const int64_t number = header_->written.load(std::memory_order_relaxed);
    FlightEvent event;
    event.number = number;
    event.time_ns = now_ns();
    event.step = place.step;
    event.group = group;
    event.sequence = sequence;
    event.peer = peer;
    event.kind = kind;
    event.axis = axis;
    copy_text(event.what, sizeof event.what, place.what);
    events_[number % kEvents] = event;
    header_->written.store(number + 1, std::memory_order_release);
}

FlightRing read_ring(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) refuse(path, "open");
    std::vector<char> bytes(static_cast<size_t>(kRingBytes));
    file.read(bytes.data(), kRingBytes);
    const FlightHeader expected;
    FlightHeader header;
    std::memcpy(static_cast<void*>(&header), bytes.data(), sizeof header);
    if (file.gcount() != kRingBytes ||
        std::memcmp(header.magic, expected.magic, sizeof header.magic) != 0 ||
        header.version != expected.version || header.capacity != FlightRecorder::kEvents ||
        header.written.load() < 0)
        throw Error(ExitCode::bad_input, fmt::format("{} is no ring of a rank's events", path));
    FlightRing ring{header.rank, header.rank_count, header.pid, {}, {}};
    ring.host.assign(header.host, strnlen(header.host, sizeof header.host));
    const int64_t end = header.written.load();
    for (int64_t n = std::max<int64_t>(0, end - FlightRecorder::kEvents); n < end; ++n) {
        FlightEvent event;
        std::memcpy(&event,
                    bytes.data() + sizeof header +
                        static_cast<size_t>(n % FlightRecorder::kEvents) * sizeof event,
                    sizeof event);
        event.what[sizeof event.what - 1] = '\0';
        // One that was being written over has another number.
        const bool whole = event.number == n && event.kind >= FlightKind::arrived &&
                           event.kind < FlightKind::count && event.axis < GroupAxis::count;
        if (whole) ring.events.push_back(event);
    }
    return ring;
}

std::vector<FlightRing> read_rings(const std::string& directory) {
    std::vector<FlightRing> rings;
    std::error_code unreadable;
    for (const auto& entry : std::filesystem::directory_iterator(directory, unreadable)) {
        const std::string name = entry.path().filename();
        if (name.starts_with("rank-") && name.ends_with(".ring"))
            rings.push_back(read_ring(entry.path()));
    }
    if (rings.empty())
        throw Error(
            ExitCode::bad_input,
            fmt::format("{}: no rank-*.ring, as a training on several ranks keeps", directory));
    std::sort(rings.begin(), rings.end(),
              [](const FlightRing& a, const FlightRing& b) { return a.rank < b.rank; });
    return rings;
}

namespace {

// A rank's newest arrival in a group, and the newest of all in it.
struct Line {
    std::map<int32_t, const FlightEvent*> newest;  // by rank
    const FlightEvent* furthest = nullptr;
};

std::map<std::pair<GroupAxis, int32_t>, Line> lines_of(const std::vector<FlightRing>& rings) {
    std::map<std::pair<GroupAxis, int32_t>, Line> lines;
    for (const FlightRing& ring : rings)
        for (const FlightEvent& event : ring.events) {
            if (event.kind != FlightKind::arrived) continue;
            Line& line = lines[{event.axis, event.group}];
            line.newest[ring.rank] = &event;
            if (line.furthest == nullptr || event.sequence > line.furthest->sequence)
                line.furthest = &event;
        }
    return lines;
}

}  // namespace

std::vector<std::string> explain_rings(const std::vector<FlightRing>& rings) {
    std::vector<std::string> text;
    const int32_t rank_count = rings.front().rank_count;
    for (int32_t r = 0; r < rank_count; ++r)
        if (std::none_of(rings.begin(), rings.end(),
                         [&](const FlightRing& ring) { return ring.rank == r; }))
            text.push_back(fmt::format("rank {} left no ring", r));
    for (const auto& [of, line] : lines_of(rings))
        for (const auto& [rank, event] : line.newest)
            if (event->sequence < line.furthest->sequence)
                text.push_back(fmt::format("rank {} is missing at {}: others arrived there", rank,
                                           place_text(*line.furthest)));
    if (text.empty()) text.emplace_back("no rank is missing at an exchange that others arrived at");
    int64_t newest_ns = 0;
    for (const FlightRing& ring : rings)
        if (!ring.events.empty()) newest_ns = std::max(newest_ns, ring.events.back().time_ns);
    for (const FlightRing& ring : rings) {
        if (ring.events.empty()) {
            text.push_back(fmt::format("rank {} (process {}, {}): no exchange so far", ring.rank,
                                       ring.pid, state_of(ring)));
            continue;
        }
        const FlightEvent& last = ring.events.back();
        const double before_s = static_cast<double>(newest_ns - last.time_ns) * 1e-9;
        text.push_back(fmt::format(
            "rank {} (process {}, {}): {} {}, {:.3f} s before the last of all", ring.rank, ring.pid,
            state_of(ring), verb(last), place_text(last), before_s));
    }
    return text;
}

}  // namespace plumb
