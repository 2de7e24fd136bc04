#include "runtime/comm/shm_world.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <numeric>

#include "runtime/base/check.h"
#include "runtime/base/log.h"
#include "runtime/comm/shm_group.h"

namespace plumb {

namespace {

using Clock = std::chrono::steady_clock;

// A look at a counter that another core has just changed takes about 100 ns, a sleep and waking up
// some 10 us and, when no core is free, the other's time slice.
constexpr int32_t kSpins = 4000;
constexpr int32_t kSpinsCrowded = 50;
// How often who sleeps looks whether the others are still there.
constexpr int32_t kSleepMs = 50;

int open_process(int32_t pid) noexcept {
    return static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
}

}  // namespace

ShmWorld::ShmWorld(int32_t rank, int32_t size, HostBoard* board, const WorldOptions& options)
    : World(rank, size), board_(board), options_(options), ranks_(static_cast<size_t>(size)) {
    CHECK(rank >= 0 && rank < size && board->rank_count == size);
    std::iota(ranks_.begin(), ranks_.end(), 0);
    const int32_t pid = ::getpid();
    const std::vector<char> pids = all_gather(&pid, sizeof pid);
    pids_.resize(ranks_.size());
    std::memcpy(pids_.data(), pids.data(), pids.size());
    for (const int32_t other : pids_) pidfds_.push_back(other == pid ? -1 : open_process(other));
}

ShmWorld::~ShmWorld() {
    for (int32_t w = 0; w < window_count_; ++w)
        for (char* data : window_[w]) ::munmap(data, static_cast<size_t>(window_bytes_[w]));
    for (const int fd : pidfds_)
        if (fd >= 0) ::close(fd);
}

// A process is seen to have ended before its parent has asked for how.
bool ShmWorld::has_ended(int32_t rank) const noexcept {
    const auto r = static_cast<size_t>(rank);
    if (r >= pidfds_.size() || pidfds_[r] < 0)
        return r < pids_.size() && ::kill(pids_[r], 0) != 0 && errno == ESRCH;
    pollfd ended{pidfds_[r], POLLIN, 0};
    return ::poll(&ended, 1, 0) == 1;
}

// Ends with the exit code of the rank that failed first, if one has.
void ShmWorld::follow_failure() const noexcept {
    const int64_t failed = board_->failed.load(std::memory_order_acquire);
    if (failed != 0) ::_exit(static_cast<int>(failed % 256));
}

void ShmWorld::fail(ExitCode code, const char* message) noexcept {
    int64_t none = 0;
    const int64_t mine = int64_t{256} * (rank() + 1) + static_cast<int64_t>(code);
    if (board_->failed.compare_exchange_strong(none, mine))
        print_line(STDERR_FILENO, "error: rank {}: {}", rank(), message);
    follow_failure();
    ::_exit(static_cast<int>(code));
}

void ShmWorld::lose(int32_t rank, const CommPlace& place, bool ended) noexcept {
    const auto r = static_cast<size_t>(rank);
    char text[512];
    const auto result = fmt::format_to_n(
        text, sizeof text - 32, "rank {} (process {}) {} at {} of step {}", rank,
        r < pids_.size() ? pids_[r] : 0, ended ? "has ended: it is missing" : "did not arrive",
        place.what, place.step);
    char* end = result.out;
    if (!ended) end = fmt::format_to_n(end, 30, " within {:.1f} s", options_.timeout_s).out;
    *end = '\0';
    ShmWorld::fail(ExitCode::peer_lost, text);  // no call through the table: it must not return
}

void ShmWorld::await(SharedCounter& counter, uint32_t wanted, const CommPlace& place,
                     std::span<const int32_t> ranks, std::span<SharedCounter* const> own,
                     uint32_t wanted_own) noexcept {
    if (counter.wait(wanted, options_.crowded ? kSpinsCrowded : kSpins, kSleepMs)) return;
    const auto timeout = std::chrono::duration_cast<Clock::duration>(
        std::chrono::duration<double>(options_.timeout_s));
    const auto missing = [&](size_t i) { return !own[i]->has_reached(wanted_own); };
    Clock::time_point end = Clock::now() + timeout;
    uint64_t beats = 0;
    while (!counter.wait(wanted, 0, kSleepMs)) {
        follow_failure();
        uint64_t now_beats = 0;  // of those who are missing: it changes while one of them works
        for (size_t i = 0; i < ranks.size(); ++i)
            if (missing(i))
                now_beats += board_->rank(ranks[i]).beats.load(std::memory_order_relaxed) + 1;
        if (now_beats != beats) end = Clock::now() + timeout;
        beats = now_beats;
        const bool late = Clock::now() > end;
        for (size_t i = 0; i < ranks.size(); ++i) {
            if (!missing(i)) continue;
            const bool ended = has_ended(ranks[i]);
            // It may have come and gone since.
            if ((ended || late) && missing(i)) lose(ranks[i], place, ended);
        }
    }
}

std::vector<char> ShmWorld::all_gather(const void* mine, int64_t size_bytes) {
    std::vector<char> all(static_cast<size_t>(size_bytes * size()));
    const CommPlace place{0, "the start"};
    int64_t first = 0;
    do {
        const int64_t bytes = std::min(kMailboxBytes, size_bytes - first);
        ++pieces_;
        RankBoard& own = board_->rank(rank());
        std::copy_n(static_cast<const char*>(mine) + first, bytes, own.mailbox);
        own.posted.advance();
        for (int32_t r = 0; r < size(); ++r) {
            RankBoard& other = board_->rank(r);
            await(other.posted, pieces_, place, r);
            std::copy_n(other.mailbox, bytes, all.data() + r * size_bytes + first);
        }
        own.taken.advance();
        for (int32_t r = 0; r < size(); ++r) await(board_->rank(r).taken, pieces_, place, r);
        first += bytes;
    } while (first < size_bytes);
    return all;
}

Window ShmWorld::make_window(int64_t size_bytes) {
    CHECK(window_count_ < kWindowsMax && size_bytes > 0);
    struct Made {
        int32_t fd;
        int32_t error;
        int64_t size_bytes;
    };
    const int64_t wanted = align_up(size_bytes, 4096);
    Made made{make_shared("plumb-window", wanted), 0, wanted};
    char* own = made.fd < 0 ? nullptr : map_shared(made.fd, wanted);
    if (own == nullptr || ::madvise(own, static_cast<size_t>(wanted), MADV_POPULATE_WRITE) != 0)
        made.error = own != nullptr && errno == EINVAL ? 0 : errno;  // kernels before 5.14
    const std::vector<char> told = all_gather(&made, sizeof made);
    std::vector<char*>& mapped = window_[window_count_];
    for (int32_t r = 0; r < size(); ++r) {
        Made other;
        std::memcpy(&other, told.data() + r * static_cast<int64_t>(sizeof other), sizeof other);
        if (other.error != 0)
            throw Error(ExitCode::does_not_fit,
                        fmt::format("rank {} cannot map {} bytes that ranks share: {}", r,
                                    other.size_bytes, std::strerror(other.error)));
        if (r == rank()) {
            mapped.push_back(own);
            continue;
        }
        const std::string path =
            fmt::format("/proc/{}/fd/{}", pids_[static_cast<size_t>(r)], other.fd);
        const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
        void* memory = fd < 0 ? MAP_FAILED
                              : ::mmap(nullptr, static_cast<size_t>(other.size_bytes), PROT_READ,
                                       MAP_SHARED, fd, 0);
        if (memory == MAP_FAILED)
            throw Error(ExitCode::io, fmt::format("cannot map memory of rank {} ({}): {}", r, path,
                                                  std::strerror(errno)));
        ::close(fd);
        mapped.push_back(static_cast<char*>(memory));
    }
    barrier();  // all have opened it
    ::close(made.fd);
    window_bytes_[window_count_++] = wanted;
    return {own, size_bytes};
}

ShownOffer ShmWorld::shown(const Offer& offer) const noexcept {
    for (int32_t w = 0; w < window_count_; ++w) {
        const int64_t offset = reinterpret_cast<int64_t>(offer.from) -
                               reinterpret_cast<int64_t>(window_[w][static_cast<size_t>(rank())]);
        if (offset >= 0 && offset < window_bytes_[w])
            return {w, offset, offer.stride_bytes, offer.size_bytes};
    }
    CHECK_NOTE(false, "what ranks exchange must lie in a window");
    return {};
}

std::unique_ptr<Group> ShmWorld::make_group(GroupAxis axis, const std::vector<int32_t>& ranks) {
    barrier();
    return std::make_unique<ShmGroup>(*this, axis, ranks, recorder());
}

}  // namespace plumb
