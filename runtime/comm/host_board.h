// The board that all ranks of one host map: who they are, what each has reached, and which of them
// has failed first. It is plain memory of fixed layout in a memfd, made by one rank or by the
// process that starts them; a rank that is killed leaves it whole.
// Path: hot.
#pragma once

#include <atomic>

#include "runtime/comm/group.h"
#include "runtime/comm/wait.h"

namespace plumb {

inline constexpr int32_t kWindowsMax = 16;
inline constexpr int64_t kMailboxBytes = 64 * kKiB;

// What a rank shows to its group, valid while it is open.
struct ShownOffer {
    int32_t window = -1;
    int64_t offset_bytes = 0;
    int64_t stride_bytes = 0;
    int64_t size_bytes = 0;
};

// A rank's part in the group of an axis.
struct GroupLine {
    SharedCounter arrived;  // times that this rank has opened
    SharedCounter left;     // and closed
    ShownOffer offer;
    // Of the group's first rank only: the sums of all, which one waits for instead of each.
    SharedCounter all_arrived;
    SharedCounter all_left;
};

// Sends of one rank to another.
struct Channel {
    SharedCounter sent;
    SharedCounter received;
    ShownOffer offer[Group::kSendsMax];  // of send number n: offer[n % kSendsMax]
};

struct RankBoard {
    std::atomic<uint64_t> beats{0};  // signs of life between exchanges
    SharedCounter posted;            // pieces that this rank has put into its mailbox
    SharedCounter taken;             // pieces of others that it has read
    GroupLine group[kGroupAxisCount];
    char mailbox[kMailboxBytes];
};

struct HostBoard {
    // Of the first rank that failed: its number plus one, times 256, plus its exit code; 0: none.
    std::atomic<int64_t> failed{0};
    int32_t rank_count;
    // Then rank_count RankBoards, then of each axis rank_count * rank_count Channels, sender by
    // sender. Pages of channels that nobody uses are never taken.

    RankBoard& rank(int32_t r) noexcept;
    Channel& channel(GroupAxis axis, int32_t from, int32_t to) noexcept;
};

int64_t host_board_bytes(int32_t rank_count) noexcept;

// Writable memory of a memfd; nullptr where there is none to be had, errno says why.
char* map_shared(int fd, int64_t size_bytes) noexcept;
// A memfd of zeros; -1 where there is none to be had.
int make_shared(const char* name, int64_t size_bytes) noexcept;

}  // namespace plumb
