#include "runtime/comm/group.h"

#include <algorithm>

#include "runtime/base/check.h"
#include "runtime/comm/flight_recorder.h"

namespace plumb {

const char* group_axis_name(GroupAxis axis) noexcept {
    switch (axis) {
        case GroupAxis::world:
            return "world";
        case GroupAxis::data:
            return "data";
        case GroupAxis::pipeline:
            return "pipeline";
        case GroupAxis::count:
            break;
    }
    return "?";
}

Group::Group(GroupAxis axis, const std::vector<int32_t>& ranks, int32_t rank,
             FlightRecorder* recorder)
    : axis_(axis),
      ranks_(ranks),
      rank_(static_cast<int32_t>(std::find(ranks.begin(), ranks.end(), rank) - ranks.begin())),
      recorder_(recorder),
      sent_(ranks.size()),
      received_(ranks.size()) {
    CHECK_NOTE(rank_ < size(), "a group is made by its own ranks");
}

void Group::open(const CommPlace& place, const Offer& offer, const char** parts) noexcept {
    CHECK_NOTE(!is_open_, "an exchange inside another");
    is_open_ = true;
    ++opened_;
    const auto record = [&](FlightKind kind) {
        if (recorder_ != nullptr) recorder_->record(kind, place, axis_, ranks_.front(), opened_);
    };
    record(FlightKind::arrived);
    do_open(place, offer, parts, opened_);
    record(FlightKind::opened);
}

void Group::close(const CommPlace& place) noexcept {
    CHECK(is_open_);
    is_open_ = false;
    if (recorder_ != nullptr)
        recorder_->record(FlightKind::closed, place, axis_, ranks_.front(), opened_);
    do_close(place, opened_);
}

void Group::send(const CommPlace& place, int32_t peer, const char* from,
                 int64_t size_bytes) noexcept {
    const uint32_t number = ++sent_[static_cast<size_t>(peer)];
    if (recorder_ != nullptr)
        recorder_->record(FlightKind::sent, place, axis_, ranks_.front(), number, world_rank(peer));
    do_send(peer, from, size_bytes);
}

void Group::receive(const CommPlace& place, int32_t peer, char* to, int64_t size_bytes) noexcept {
    const uint32_t number = ++received_[static_cast<size_t>(peer)];
    const auto record = [&](FlightKind kind) {
        if (recorder_ != nullptr)
            recorder_->record(kind, place, axis_, ranks_.front(), number, world_rank(peer));
    };
    record(FlightKind::receives);
    do_receive(place, peer, to, size_bytes);
    record(FlightKind::received);
}

}  // namespace plumb
