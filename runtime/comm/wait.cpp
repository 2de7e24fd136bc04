#include "runtime/comm/wait.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#include <ctime>

namespace plumb {

namespace {

// Between processes, so not FUTEX_PRIVATE_FLAG.
void futex(std::atomic<uint32_t>& word, int operation, uint32_t value,
           const timespec* timeout) noexcept {
    ::syscall(SYS_futex, &word, operation, value, timeout, nullptr, 0);
}

void pause_briefly() noexcept {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

}  // namespace

// A sleeper says so before it looks a last time, the other adds before it looks for sleepers: in
// one order for all, so that one of the two sees the other.
void SharedCounter::advance() noexcept {
    value.fetch_add(1, std::memory_order_seq_cst);
    if (sleepers.load(std::memory_order_seq_cst) > 0) futex(value, FUTEX_WAKE, INT_MAX, nullptr);
}

bool SharedCounter::wait(uint32_t wanted, int32_t spins, int32_t sleep_ms) noexcept {
    for (int32_t spin = 0; spin < spins; ++spin) {
        if (has_reached(wanted)) return true;
        pause_briefly();
    }
    sleepers.fetch_add(1, std::memory_order_seq_cst);
    const uint32_t seen = value.load(std::memory_order_seq_cst);
    if (static_cast<int32_t>(seen - wanted) < 0) {
        const timespec timeout{sleep_ms / 1000, sleep_ms % 1000 * 1000000L};
        futex(value, FUTEX_WAIT, seen, &timeout);
    }
    sleepers.fetch_sub(1, std::memory_order_relaxed);
    return has_reached(wanted);
}

}  // namespace plumb
