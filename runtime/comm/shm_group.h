// A group whose ranks are all on one host. An offer is read where it lies.
// Path: hot.
#pragma once

#include "runtime/comm/shm_world.h"

namespace plumb {

class ShmGroup final : public Group {
  public:
    // The world outlives the group; one group of an axis in a world.
    ShmGroup(ShmWorld& world, GroupAxis axis, const std::vector<int32_t>& ranks,
             FlightRecorder* recorder);

    bool needs_room() const noexcept override { return false; }
    void finish_sends(const CommPlace& place, int32_t peer, int32_t left) noexcept override;

  private:
    void do_open(const CommPlace& place, const Offer& offer, const char** parts,
                 uint32_t opened) noexcept override;
    void do_close(const CommPlace& place, uint32_t opened) noexcept override;
    void do_send(int32_t peer, const char* from, int64_t size_bytes) noexcept override;
    void do_receive(const CommPlace& place, int32_t peer, char* to,
                    int64_t size_bytes) noexcept override;

    GroupLine& line(int32_t peer) const noexcept {
        return world_.board().rank(world_rank(peer)).group[static_cast<int>(axis())];
    }
    Channel& channel_to(int32_t peer) const noexcept {
        return world_.board().channel(axis(), world_.rank(), world_rank(peer));
    }
    Channel& channel_from(int32_t peer) const noexcept {
        return world_.board().channel(axis(), world_rank(peer), world_.rank());
    }

    ShmWorld& world_;
    std::vector<SharedCounter*> arrived_, left_;
};

}  // namespace plumb
