// How far a save has read the live state, for the thread that wants to change it. State of no unit
// is read first, then unit by unit in the order in which a step updates them; an update waits until
// its unit has been passed. One thread reads, one waits: atomic numbers and the system's futex, no
// lock, no allocation.
// Path: hot.
#pragma once

#include <atomic>
#include <chrono>
#include <limits>

#include "runtime/program/param.h"

namespace plumb {

inline double seconds_since(std::chrono::steady_clock::time_point start) noexcept {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

class SaveProgress {
  public:
    // By the thread that trains, before the save may start: it will read from `first` on.
    void begin(UnitId first) noexcept { reading_.store(first, std::memory_order_relaxed); }

    // By the thread that saves: it reads `unit` from here on, so those before it are passed.
    void reading(UnitId unit) noexcept {
        if (unit == reading_.load(std::memory_order_relaxed)) return;
        reading_.store(unit, std::memory_order_release);
        reading_.notify_one();
    }
    // All is passed: everything has been read, or the save has failed.
    void end() noexcept { reading(kNothing); }

    // Returns when `unit` (-1: state of no unit) may be changed; the seconds that it took.
    double wait_for(UnitId unit) noexcept {
        UnitId now = reading_.load(std::memory_order_acquire);
        if (now > unit) return 0;
        const auto start = std::chrono::steady_clock::now();
        stalls_.fetch_add(1, std::memory_order_relaxed);
        while (now <= unit) {
            reading_.wait(now, std::memory_order_acquire);
            now = reading_.load(std::memory_order_acquire);
        }
        return seconds_since(start);
    }
    // Waits that were not over at once, the present one included.
    int64_t stalls() const noexcept { return stalls_.load(std::memory_order_relaxed); }

  private:
    static constexpr UnitId kNothing = std::numeric_limits<UnitId>::max();
    std::atomic<UnitId> reading_{kNothing};
    std::atomic<int64_t> stalls_{0};
};

}  // namespace plumb
