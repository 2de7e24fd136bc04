#include "runtime/comm/shm_group.h"

#include <cstring>

#include "runtime/base/check.h"

namespace plumb {

ShmGroup::ShmGroup(ShmWorld& world, GroupAxis axis, const std::vector<int32_t>& ranks,
                   FlightRecorder* recorder)
    : Group(axis, ranks, world.rank(), recorder), world_(world) {
    for (int32_t r = 0; r < size(); ++r) {
        arrived_.push_back(&line(r).arrived);
        left_.push_back(&line(r).left);
    }
}

void ShmGroup::do_open(const CommPlace& place, const Offer& offer, const char** parts,
                       uint32_t opened) noexcept {
    line(rank()).offer = world_.shown(offer);
    // The sum first: of a rank that ends between the two, others never wait for what it has done.
    SharedCounter& all = line(0).all_arrived;
    all.advance();
    line(rank()).arrived.advance();
    world_.await(all, opened * static_cast<uint32_t>(size()), place, ranks(), arrived_, opened);
    for (int32_t r = 0; r < size(); ++r) {
        const ShownOffer& other = line(r).offer;
        CHECK_NOTE(other.size_bytes == offer.size_bytes, "ranks offer different sizes");
        parts[r] = world_.at(world_rank(r), other) + rank() * other.stride_bytes;
    }
}

void ShmGroup::do_close(const CommPlace& place, uint32_t opened) noexcept {
    SharedCounter& all = line(0).all_left;
    all.advance();
    line(rank()).left.advance();
    world_.await(all, opened * static_cast<uint32_t>(size()), place, ranks(), left_, opened);
}

// The channel's counters are changed by this rank alone, as the one that sends or receives.
void ShmGroup::do_send(int32_t peer, const char* from, int64_t size_bytes) noexcept {
    Channel& channel = channel_to(peer);
    const uint32_t sent = channel.sent.value.load(std::memory_order_relaxed);
    CHECK_NOTE(channel.received.has_reached(sent + 1 - kSendsMax), "too many sends on their way");
    channel.offer[sent % kSendsMax] = world_.shown({from, 0, size_bytes, nullptr});
    channel.sent.advance();
}

void ShmGroup::do_receive(const CommPlace& place, int32_t peer, char* to,
                          int64_t size_bytes) noexcept {
    Channel& channel = channel_from(peer);
    const uint32_t received = channel.received.value.load(std::memory_order_relaxed);
    world_.await(channel.sent, received + 1, place, world_rank(peer));
    const ShownOffer& offer = channel.offer[received % kSendsMax];
    CHECK_NOTE(offer.size_bytes == size_bytes, "sent and received sizes differ");
    std::memcpy(to, world_.at(world_rank(peer), offer), static_cast<size_t>(size_bytes));
    channel.received.advance();
}

void ShmGroup::finish_sends(const CommPlace& place, int32_t peer, int32_t left) noexcept {
    Channel& channel = channel_to(peer);
    const uint32_t sent = channel.sent.value.load(std::memory_order_relaxed);
    world_.await(channel.received, sent - static_cast<uint32_t>(left), place, world_rank(peer));
}

}  // namespace plumb
