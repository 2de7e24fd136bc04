// Ranks of one axis that exchange tensors while a program runs: the sums and copies themselves are
// kernels, which read the others' bytes where a group shows them. Between open() and close() what
// each rank offers stays as it is and can be read by all: one pass over memory on one host, a copy
// into planned room between hosts. Calls are made by one thread, by all ranks of the group in the
// same order. They allocate nothing, and when a rank does not come they do not return: the run ends
// with exit code 5, naming it.
// Path: hot.
#pragma once

#include <vector>

#include "runtime/base/types.h"

namespace plumb {

// Lines of the rank grid along which ranks exchange (runtime/parallel).
enum class GroupAxis : uint8_t { world, data, pipeline, count };
inline constexpr int kGroupAxisCount = static_cast<int>(GroupAxis::count);
const char* group_axis_name(GroupAxis axis) noexcept;

// What this rank offers: to rank r of the group `size_bytes` at from + r * stride_bytes. Stride 0:
// the same to all.
struct Offer {
    const char* from = nullptr;
    int64_t stride_bytes = 0;
    int64_t size_bytes = 0;
    // Where bytes of other hosts go, size_bytes of each rank of the group in their order; nullptr
    // where no transport needs it (needs_room).
    char* room = nullptr;
};

// Which moment of the run this is, for the message about who is missing.
struct CommPlace {
    int64_t step = 0;
    const char* what = "";  // "reduce_scatter block.3"; lives as long as the program
};

class FlightRecorder;

class Group {
  public:
    virtual ~Group() = default;
    Group(const Group&) = delete;
    Group& operator=(const Group&) = delete;

    int32_t rank() const noexcept { return rank_; }  // in the group
    int32_t size() const noexcept { return static_cast<int32_t>(ranks_.size()); }
    GroupAxis axis() const noexcept { return axis_; }
    int32_t world_rank(int32_t peer) const noexcept { return ranks_[static_cast<size_t>(peer)]; }
    // Whether Offer::room must be given.
    virtual bool needs_room() const noexcept = 0;

    // Waits for all ranks; parts[r], of size() places, is then what rank r offers to this one. All
    // offer as many bytes.
    void open(const CommPlace& place, const Offer& offer, const char** parts) noexcept;
    // Waits until all have closed: then offers may change again.
    void close(const CommPlace& place) noexcept;

    // Bytes to rank `peer`, which receives as many; they stay as they are until finish_sends().
    // Returns at once. At most kSendsMax to a peer may be on their way.
    static constexpr int32_t kSendsMax = 64;
    void send(const CommPlace& place, int32_t peer, const char* from, int64_t size_bytes) noexcept;
    // Waits for the next send of rank `peer` and copies it.
    void receive(const CommPlace& place, int32_t peer, char* to, int64_t size_bytes) noexcept;
    // Waits until at most `left` of the sends to `peer` have not been received.
    virtual void finish_sends(const CommPlace& place, int32_t peer, int32_t left) noexcept = 0;

  protected:
    // `ranks` of the world, in order of the axis, with `rank` of the world among them. `recorder`,
    // if any, outlives the group.
    Group(GroupAxis axis, const std::vector<int32_t>& ranks, int32_t rank,
          FlightRecorder* recorder);

    // As open, close, send and receive promise; `opened` counts the calls of open.
    virtual void do_open(const CommPlace& place, const Offer& offer, const char** parts,
                         uint32_t opened) noexcept = 0;
    virtual void do_close(const CommPlace& place, uint32_t opened) noexcept = 0;
    virtual void do_send(int32_t peer, const char* from, int64_t size_bytes) noexcept = 0;
    virtual void do_receive(const CommPlace& place, int32_t peer, char* to,
                            int64_t size_bytes) noexcept = 0;

    const std::vector<int32_t>& ranks() const noexcept { return ranks_; }

  private:
    GroupAxis axis_;
    std::vector<int32_t> ranks_;
    int32_t rank_;
    FlightRecorder* recorder_;
    uint32_t opened_ = 0;
    bool is_open_ = false;
    std::vector<uint32_t> sent_, received_;  // by peer
};

}  // namespace plumb
