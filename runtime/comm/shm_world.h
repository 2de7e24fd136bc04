// A world whose ranks are all on this host: what they tell each other goes over the board that all
// map (host_board.h), and windows are memfds that the others map for reading, so that an exchange
// is one pass over memory and two waits.
// Path: hot.
#pragma once

#include <span>

#include "runtime/comm/host_board.h"
#include "runtime/comm/world.h"

namespace plumb {

class ShmWorld : public World {
  public:
    // `board` has `size` ranks and outlives the world. Collective.
    ShmWorld(int32_t rank, int32_t size, HostBoard* board, const WorldOptions& options);
    ~ShmWorld() override;

    std::vector<char> all_gather(const void* mine, int64_t size_bytes) override;
    using World::all_gather;
    Window make_window(int64_t size_bytes) override;
    std::unique_ptr<Group> make_group(GroupAxis axis, const std::vector<int32_t>& ranks) override;
    void beat() noexcept override {
        board_->rank(rank()).beats.fetch_add(1, std::memory_order_relaxed);
    }
    [[noreturn]] void fail(ExitCode code, const char* message) noexcept override;

    // Waits until a counter has reached `wanted`. While it has not, ranks[i] is missing if
    // own[i] has not reached wanted_own: ends the process when one of them does not come.
    void await(SharedCounter& counter, uint32_t wanted, const CommPlace& place,
               std::span<const int32_t> ranks, std::span<SharedCounter* const> own,
               uint32_t wanted_own) noexcept;
    // For one rank's counter.
    void await(SharedCounter& counter, uint32_t wanted, const CommPlace& place,
               int32_t rank) noexcept {
        SharedCounter* own = &counter;
        await(counter, wanted, place, {&rank, 1}, {&own, 1}, wanted);
    }

    HostBoard& board() const noexcept { return *board_; }
    // Where memory of this rank lies for others; ends the process when it is in no window.
    ShownOffer shown(const Offer& offer) const noexcept;
    // Where what another rank has shown lies here.
    const char* at(int32_t rank, const ShownOffer& offer) const noexcept {
        return window_[offer.window][static_cast<size_t>(rank)] + offer.offset_bytes;
    }

  private:
    bool has_ended(int32_t rank) const noexcept;
    void follow_failure() const noexcept;
    [[noreturn]] void lose(int32_t rank, const CommPlace& place, bool ended) noexcept;

    HostBoard* board_;
    WorldOptions options_;
    std::vector<int32_t> pids_;
    std::vector<int32_t> pidfds_;
    std::vector<int32_t> ranks_;  // 0, 1, ...
    uint32_t pieces_ = 0;         // of mailboxes, so far
    int32_t window_count_ = 0;
    std::vector<char*> window_[kWindowsMax];  // by rank
    int64_t window_bytes_[kWindowsMax] = {};
};

}  // namespace plumb
