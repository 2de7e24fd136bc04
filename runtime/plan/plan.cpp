#include "runtime/plan/plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "runtime/base/check.h"
#include "runtime/base/checked.h"
#include "runtime/plan/bounds.h"
#include "runtime/plan/lifetime.h"
#include "runtime/plan/outside.h"
#include "runtime/plan/pack.h"
#include "runtime/plan/plan_digest.h"
#include "runtime/plan/prove.h"

namespace plumb {

namespace {

constexpr int kStash = static_cast<int>(Arena::stash);
constexpr int kIo = static_cast<int>(Arena::io);

// Sizes of one layout (a section's arena, a slot) and its least possible size without red zones.
struct Layout {
    int64_t size_bytes = 0;
    int64_t bound_bytes = 0;
};

class Planner {
  public:
    Planner(const Program& program, const PlanOptions& options)
        : program_(program), zone_(options.red_zone_bytes), lives_(lifetimes(program)) {
        if (zone_ < 0 || zone_ % kAlignBytes != 0)
            throw Error(
                ExitCode::bad_input,
                fmt::format("red zone of {} bytes: must be a multiple of {}", zone_, kAlignBytes));
        plan_.placement.resize(program.tensors.size());
        plan_.red_zone_bytes = zone_;
    }

    Plan run() {
        place_persistent();
        place_io_rows();
        place_sections();
        place_slots();
        place_caches();
        place_aliases();
        plan_phases();
        sum_up();
        return std::move(plan_);
    }

  private:
    const Tensor& tensor(TensorId id) const { return program_.tensors[static_cast<size_t>(id)]; }

    // Roots that `choose` takes, in order of id.
    template <typename Choose>
    std::vector<TensorId> roots(Choose choose) const {
        std::vector<TensorId> ids;
        for (size_t t = 0; t < program_.tensors.size(); ++t)
            if (program_.tensors[t].alias_of == kNoTensor && choose(program_.tensors[t]))
                ids.push_back(static_cast<TensorId>(t));
        return ids;
    }

    // Puts tensors one after another from `start`; returns the end, zone included.
    int64_t place_in_line(const std::vector<TensorId>& ids, const Placement& where, int64_t start) {
        int64_t end = start;
        for (const TensorId id : ids) {
            Placement& place = plan_.placement[static_cast<size_t>(id)];
            place = where;
            place.offset_bytes = end;
            const int64_t bytes = checked_add(aligned_bytes(tensor(id)), zone_, "arena");
            end = checked_add(end, bytes, "arena");
            bound_ = checked_add(bound_, aligned_bytes(tensor(id)), "lower bound");
        }
        return end;
    }

    // Packs tensors by their lives from offset 0 (behind a zone).
    Layout place_by_life(const std::vector<TensorId>& ids, const Placement& where) {
        if (ids.empty()) return {};
        std::vector<PackItem> bare, items;
        for (const TensorId id : ids) {
            const Life& life = lives_[static_cast<size_t>(id)];
            bare.push_back({aligned_bytes(tensor(id)), life.first, life.last});
            items.push_back(bare.back());
            items.back().size_bytes = checked_add(bare.back().size_bytes, zone_, "layout");
        }
        const Packing packing = pack(items);
        for (size_t i = 0; i < ids.size(); ++i) {
            Placement& place = plan_.placement[static_cast<size_t>(ids[i])];
            place = where;
            place.offset_bytes = zone_ + packing.offset_bytes[i];
        }
        return {checked_add(packing.height_bytes, zone_, "layout"), max_live_bytes(bare)};
    }

    void place_persistent() {
        for (int a = 0; a < kArenaCount; ++a) {
            const auto arena = static_cast<Arena>(a);
            // Caches over the stash are placed last: they need not lie behind anything.
            std::vector<TensorId> ids = roots([&](const Tensor& t) {
                return residence_of(t.role) == Residence::persistent && a != kStash &&
                       arena_of(program_, t.role) == arena;
            });
            if (ids.empty()) continue;
            // The scalars of a step head the io arena: a fixed address, and no zone before them.
            const auto scalars = std::find(ids.begin(), ids.end(), program_.io.scalars);
            const bool has_scalars = scalars != ids.end();
            if (has_scalars) std::rotate(ids.begin(), scalars, scalars + 1);
            plan_.arena_bytes[a] = place_in_line(ids, {Base::arena, arena, SlotClass::none, 0},
                                                 has_scalars ? 0 : zone_);
        }
    }

    void place_io_rows() {
        const std::vector<TensorId> ids =
            roots([](const Tensor& t) { return t.role == Role::io_row; });
        if (ids.empty()) return;
        CHECK(program_.micro_batch_count >= 1);
        const int64_t count = program_.micro_batch_count;
        const int64_t bound = bound_;
        plan_.io_row_bytes =
            place_in_line(ids, {Base::io_row, Arena::io, SlotClass::none, 0}, zone_);
        bound_ = checked_add(bound, checked_mul(bound_ - bound, count, "io rows"), "lower bound");
        plan_.io_row_offset_bytes = plan_.arena_bytes[kIo];
        plan_.arena_bytes[kIo] =
            checked_add(plan_.io_row_offset_bytes,
                        checked_mul(plan_.io_row_bytes, count, "io rows"), "io arena");
    }

    void place_sections() {
        section_bytes_.resize(program_.sections.size());
        for (const Arena arena : {Arena::scratch, Arena::staging}) {
            const auto a = static_cast<size_t>(arena);
            std::vector<std::vector<TensorId>> ids(program_.sections.size());
            const std::vector<SectionId> section = section_of_ops(program_);
            for (const TensorId id : roots([&](const Tensor& t) {
                     return residence_of(t.role) == Residence::section &&
                            arena_of(program_, t.role) == arena;
                 })) {
                const Life& life = lives_[static_cast<size_t>(id)];
                if (!life.used()) continue;  // no op asks for its address
                ids[static_cast<size_t>(section[static_cast<size_t>(life.first)])].push_back(id);
            }
            int64_t bound = 0;
            for (size_t s = 0; s < ids.size(); ++s) {
                const Layout layout =
                    place_by_life(ids[s], {Base::arena, arena, SlotClass::none, 0});
                section_bytes_[s].bytes[a] = layout.size_bytes;
                plan_.arena_bytes[a] = std::max(plan_.arena_bytes[a], layout.size_bytes);
                bound = std::max(bound, layout.bound_bytes);
            }
            bound_ = checked_add(bound_, bound, "lower bound");
        }
    }

    void place_slots() {
        for (int c = 1; c < kSlotClassCount; ++c) {
            const auto slot_class = static_cast<SlotClass>(c);
            std::vector<TensorId> ids =
                roots([&](const Tensor& t) { return t.slot_class == slot_class; });
            std::erase_if(ids,
                          [&](TensorId id) { return !lives_[static_cast<size_t>(id)].used(); });
            const Layout slot = place_by_life(ids, {Base::slot, Arena::stash, slot_class, 0});
            const int64_t count = program_.slot_count[c];
            CHECK_NOTE(count >= 0 && (ids.empty() || count > 0), "saved tensors without slots");
            plan_.pool[c] = {plan_.arena_bytes[kStash], slot.size_bytes,
                             static_cast<int32_t>(count)};
            plan_.arena_bytes[kStash] =
                checked_add(plan_.arena_bytes[kStash],
                            checked_mul(slot.size_bytes, count, "slot pool"), "stash arena");
            stash_bound_ = checked_add(stash_bound_,
                                       checked_mul(slot.bound_bytes, count, "slot pool"), "stash");
        }
        pool_bytes_ = plan_.arena_bytes[kStash];
    }

    void place_caches() {
        if (kv_cache_overlays_stash(program_)) {
            const std::vector<TensorId> ids =
                roots([](const Tensor& t) { return t.role == Role::kv_cache; });
            const int64_t bound = bound_;
            // With red zones the caches lie behind the slots: the zones and the pattern in dead
            // slots must survive a phase that would write over both.
            if (!ids.empty())
                cache_bytes_ = place_in_line(ids, {Base::arena, Arena::stash, SlotClass::none, 0},
                                             zone_ > 0 ? pool_bytes_ + zone_ : 0);
            stash_bound_ = std::max(stash_bound_, bound_ - bound);
            bound_ = bound;
            plan_.arena_bytes[kStash] = std::max(plan_.arena_bytes[kStash], cache_bytes_);
        }
        bound_ = checked_add(bound_, stash_bound_, "lower bound");
    }

    void place_aliases() {
        for (size_t t = 0; t < program_.tensors.size(); ++t) {
            const Tensor& alias = program_.tensors[t];
            if (alias.alias_of == kNoTensor) continue;
            Placement place = plan_.placement[static_cast<size_t>(alias.alias_of)];
            if (place.arena == Arena::count) continue;  // of a tensor that no op touches
            place.offset_bytes =
                checked_add(place.offset_bytes, alias.alias_offset_bytes, alias.name.c_str());
            plan_.placement[t] = place;
        }
    }

    void plan_phases() {
        const std::vector<LivePeak> peaks = live_peaks(program_, lives_);
        for (size_t p = 0; p < program_.phases.size(); ++p) {
            const Phase& phase = program_.phases[p];
            PhasePlan result;
            result.kind = phase.kind;
            std::copy_n(plan_.arena_bytes, kArenaCount, result.arena_bytes);
            for (const Arena passing : {Arena::scratch, Arena::staging, Arena::stash})
                result.arena_bytes[static_cast<int>(passing)] = 0;
            for (const Entry& entry : phase.entries) {
                const SectionBytes& section = section_bytes_.at(static_cast<size_t>(entry.section));
                for (size_t a = 0; a < kArenaCount; ++a)
                    result.arena_bytes[a] = std::max(result.arena_bytes[a], section.bytes[a]);
                if (touches_slots(entry.section)) result.arena_bytes[kStash] = pool_bytes_;
            }
            for (const SectionId beside : phase.beside) {
                const SectionBytes& section = section_bytes_.at(static_cast<size_t>(beside));
                for (size_t a = 0; a < kArenaCount; ++a)
                    result.arena_bytes[a] = std::max(result.arena_bytes[a], section.bytes[a]);
            }
            if (phase.kind == PhaseKind::generate)
                result.arena_bytes[kStash] = std::max(result.arena_bytes[kStash], cache_bytes_);
            for (const int64_t bytes : result.arena_bytes)
                result.total_bytes = checked_add(result.total_bytes, bytes, "phase total");
            result.peak_live_bytes = peaks[p].live_bytes;
            result.peak_section = peaks[p].section;
            result.peak_op = peaks[p].op;
            if (plan_.peak_phase < 0 ||
                result.peak_live_bytes >
                    plan_.phases[static_cast<size_t>(plan_.peak_phase)].peak_live_bytes)
                plan_.peak_phase = static_cast<int>(p);
            plan_.phases.push_back(result);
        }
    }

    bool touches_slots(SectionId id) const {
        const Section& section = program_.sections[static_cast<size_t>(id)];
        const auto saved = [&](TensorId operand) {
            return operand != kNoTensor && tensor(program_.root(operand)).role == Role::saved;
        };
        for (int32_t i = section.first_op; i < section.first_op + section.op_count; ++i) {
            const Op& op = program_.ops[static_cast<size_t>(i)];
            if (std::any_of(op.operand, op.operand + op.operand_count, saved)) return true;
        }
        return false;
    }

    void sum_up() {
        for (const int64_t bytes : plan_.arena_bytes)
            plan_.total_bytes = checked_add(plan_.total_bytes, bytes, "total of the arenas");
        plan_.lower_bound_slots_bytes = bound_;
        for (const PhasePlan& phase : plan_.phases)
            plan_.lower_bound_unrolled_bytes =
                std::max(plan_.lower_bound_unrolled_bytes, phase.peak_live_bytes);
        CHECK(plan_.total_bytes >= plan_.lower_bound_slots_bytes);
        CHECK(plan_.lower_bound_slots_bytes >= plan_.lower_bound_unrolled_bytes);
    }

    struct SectionBytes {
        int64_t bytes[kArenaCount] = {};
    };

    const Program& program_;
    const int64_t zone_;
    const std::vector<Life> lives_;
    Plan plan_;
    std::vector<SectionBytes> section_bytes_;
    int64_t bound_ = 0;  // slots bound so far
    int64_t stash_bound_ = 0;
    int64_t pool_bytes_ = 0;
    int64_t cache_bytes_ = 0;
};

}  // namespace

Plan make_plan(const Program& program, const DeviceRecord& device, const PlanOptions& options) {
    Plan plan = Planner(program, options).run();
    const std::string flaw = find_flaw(program, plan);
    CHECK_NOTE(flaw.empty(), flaw.c_str());
    plan.outside = outside_rows(program, device);
    plan.main = main_space(device.isa);
    const auto add = [&](MemorySpace space, int64_t bytes) {
        int64_t& sum = plan.space_bytes[static_cast<int>(space)];
        sum = checked_add(sum, bytes, "total with outside");
    };
    for (int a = 0; a < kArenaCount; ++a) {
        const auto arena = static_cast<Arena>(a);
        add(space_of(arena, plan.main), plan.arena_bytes[a]);
        if (plan.main == MemorySpace::gpu && is_shared_with_host(arena))
            plan.host_copy_bytes += plan.arena_bytes[a];
    }
    if (plan.host_copy_bytes > 0)
        plan.outside.push_back(
            {"the host's copy of io and state", plan.host_copy_bytes, "reserved"});
    for (const OutsideRow& row : plan.outside) {
        plan.outside_bytes = checked_add(plan.outside_bytes, row.bytes, "outside");
        add(row.space, row.bytes);
    }
    plan.digest = plan_digest(program, plan, device);
    return plan;
}

int64_t arena_bytes_in(const Plan& plan, MemorySpace space) {
    int64_t sum = 0;
    for (int a = 0; a < kArenaCount; ++a)
        if (space_of(static_cast<Arena>(a), plan.main) == space) sum += plan.arena_bytes[a];
    return sum;
}

const char* space_name(MemorySpace space) {
    return space == MemorySpace::gpu ? "gpu" : "host";
}

std::string placement_text(const Plan& plan, TensorId id) {
    const Placement& place = plan.placement.at(static_cast<size_t>(id));
    if (place.arena == Arena::count) return "unused";
    if (place.base == Base::slot)
        return fmt::format("slot[{}]+{}", slot_class_name(place.slot_class), place.offset_bytes);
    if (place.base == Base::io_row) return fmt::format("io_row+{}", place.offset_bytes);
    return fmt::format("{}+{}", arena_name(place.arena), place.offset_bytes);
}

}  // namespace plumb
