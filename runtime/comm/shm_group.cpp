#include "runtime/comm/shm_group.h"

#include <algorithm>
#include <cstring>

#include "runtime/base/check.h"

namespace plumb {

namespace {

int32_t place_in(const std::vector<int32_t>& ranks, int32_t rank) {
    const auto at = std::find(ranks.begin(), ranks.end(), rank);
    CHECK_NOTE(at != ranks.end(), "a group is made by its own ranks");
    return static_cast<int32_t>(at - ranks.begin());
}

}  // namespace

ShmGroup::ShmGroup(ShmWorld& world, GroupAxis axis, const std::vector<int32_t>& ranks)
    : Group(place_in(ranks, world.rank()), static_cast<int32_t>(ranks.size())),
      world_(world),
      axis_(axis),
      ranks_(ranks),
      sent_(ranks.size()),
      received_(ranks.size()) {
    for (int32_t r = 0; r < size(); ++r) {
        arrived_.push_back(&line(r).arrived);
        left_.push_back(&line(r).left);
    }
}

void ShmGroup::open(const CommPlace& place, const Offer& offer, const char** parts) noexcept {
    CHECK(!is_open_);
    is_open_ = true;
    ++opened_;
    line(rank()).offer = world_.shown(offer);
    line(rank()).arrived.advance();
    SharedCounter& all = line(0).all_arrived;
    all.advance();
    world_.await(all, opened_ * static_cast<uint32_t>(size()), place, ranks_, arrived_, opened_);
    for (int32_t r = 0; r < size(); ++r) {
        const ShownOffer& other = line(r).offer;
        CHECK_NOTE(other.size_bytes == offer.size_bytes, "ranks offer different sizes");
        parts[r] = world_.at(world_rank(r), other) + rank() * other.stride_bytes;
    }
}

void ShmGroup::close(const CommPlace& place) noexcept {
    CHECK(is_open_);
    is_open_ = false;
    line(rank()).left.advance();
    SharedCounter& all = line(0).all_left;
    all.advance();
    world_.await(all, opened_ * static_cast<uint32_t>(size()), place, ranks_, left_, opened_);
}

void ShmGroup::send(const CommPlace&, int32_t peer, const char* from, int64_t size_bytes) noexcept {
    Channel& channel = channel_to(peer);
    uint32_t& sent = sent_[static_cast<size_t>(peer)];
    CHECK_NOTE(channel.received.has_reached(sent + 1 - kSendsMax), "too many sends on their way");
    channel.offer[sent % kSendsMax] = world_.shown({from, 0, size_bytes, nullptr});
    ++sent;
    channel.sent.advance();
}

void ShmGroup::receive(const CommPlace& place, int32_t peer, char* to,
                       int64_t size_bytes) noexcept {
    Channel& channel = channel_from(peer);
    uint32_t& received = received_[static_cast<size_t>(peer)];
    world_.await(channel.sent, received + 1, place, world_rank(peer));
    const ShownOffer& offer = channel.offer[received % kSendsMax];
    CHECK_NOTE(offer.size_bytes == size_bytes, "sent and received sizes differ");
    std::memcpy(to, world_.at(world_rank(peer), offer), static_cast<size_t>(size_bytes));
    ++received;
    channel.received.advance();
}

void ShmGroup::finish_sends(const CommPlace& place, int32_t peer, int32_t left) noexcept {
    Channel& channel = channel_to(peer);
    const uint32_t sent = sent_[static_cast<size_t>(peer)];
    world_.await(channel.received, sent - static_cast<uint32_t>(left), place, world_rank(peer));
}

}  // namespace plumb
