// Waiting for another process of this host: looks briefly, then sleeps in the kernel (futex) on a
// counter in shared memory. A counter only rises, wraps around, and is compared by difference.
// Path: hot.
#pragma once

#include <atomic>

#include "runtime/base/types.h"

namespace plumb {

// On a cache line of its own in memory that all ranks of a host map; zero at first.
struct alignas(64) SharedCounter {
    std::atomic<uint32_t> value{0};
    std::atomic<uint32_t> sleepers{0};

    bool has_reached(uint32_t wanted) const noexcept {
        return static_cast<int32_t>(value.load(std::memory_order_acquire) - wanted) >= 0;
    }
    // Adds one and wakes who sleeps. What was written before is seen by those who see the count.
    void advance() noexcept;
    // Returns whether the counter has reached `wanted` after looking `spins` times and sleeping at
    // most sleep_ms once.
    bool wait(uint32_t wanted, int32_t spins, int32_t sleep_ms) noexcept;
};
static_assert(std::atomic<uint32_t>::is_always_lock_free && sizeof(SharedCounter) == 64);

}  // namespace plumb
