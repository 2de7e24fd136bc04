// A group whose ranks are all on one host. An offer is read where it lies.
// Path: hot.
#pragma once

#include "runtime/comm/shm_world.h"

namespace plumb {

class ShmGroup final : public Group {
  public:
    // The world outlives the group; one group of an axis in a world.
    ShmGroup(ShmWorld& world, GroupAxis axis, const std::vector<int32_t>& ranks);

    bool needs_room() const noexcept override { return false; }
    void open(const CommPlace& place, const Offer& offer, const char** parts) noexcept override;
    void close(const CommPlace& place) noexcept override;
    void send(const CommPlace& place, int32_t peer, const char* from,
              int64_t size_bytes) noexcept override;
    void receive(const CommPlace& place, int32_t peer, char* to,
                 int64_t size_bytes) noexcept override;
    void finish_sends(const CommPlace& place, int32_t peer, int32_t left) noexcept override;

  private:
    int32_t world_rank(int32_t peer) const noexcept { return ranks_[static_cast<size_t>(peer)]; }
    GroupLine& line(int32_t peer) const noexcept {
        return world_.board().rank(world_rank(peer)).group[static_cast<int>(axis_)];
    }

    Channel& channel_to(int32_t peer) const noexcept {
        return world_.board().channel(axis_, world_.rank(), world_rank(peer));
    }
    Channel& channel_from(int32_t peer) const noexcept {
        return world_.board().channel(axis_, world_rank(peer), world_.rank());
    }

    ShmWorld& world_;
    GroupAxis axis_;
    std::vector<int32_t> ranks_;  // of the world
    std::vector<SharedCounter*> arrived_, left_;
    uint32_t opened_ = 0;
    bool is_open_ = false;
    std::vector<uint32_t> sent_, received_;  // by peer
};

}  // namespace plumb
