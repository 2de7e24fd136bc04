#include "runtime/comm/host_board.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

#include "runtime/base/types.h"

namespace plumb {

namespace {

constexpr int64_t kHeadBytes = align_up(sizeof(HostBoard), alignof(RankBoard));

}  // namespace

RankBoard& HostBoard::rank(int32_t r) noexcept {
    auto* first = reinterpret_cast<RankBoard*>(reinterpret_cast<char*>(this) + kHeadBytes);
    return first[r];
}

Channel& HostBoard::channel(GroupAxis axis, int32_t from, int32_t to) noexcept {
    auto* first = reinterpret_cast<Channel*>(&rank(rank_count));
    return first[(int64_t{static_cast<int>(axis)} * rank_count + from) * rank_count + to];
}

int64_t host_board_bytes(int32_t rank_count) noexcept {
    const int64_t n = rank_count;
    return kHeadBytes + n * static_cast<int64_t>(sizeof(RankBoard)) +
           kGroupAxisCount * n * n * static_cast<int64_t>(sizeof(Channel));
}

int make_shared(const char* name, int64_t size_bytes) noexcept {
    const int fd = ::memfd_create(name, MFD_CLOEXEC);
    if (fd < 0 || ::ftruncate(fd, size_bytes) == 0) return fd;
    const int code = errno;
    ::close(fd);
    errno = code;
    return -1;
}

char* map_shared(int fd, int64_t size_bytes) noexcept {
    void* memory =
        ::mmap(nullptr, static_cast<size_t>(size_bytes), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return memory == MAP_FAILED ? nullptr : static_cast<char*>(memory);
}

}  // namespace plumb
