// The part of the proof (prove.h) that walks schedules. Like the rest it asks nothing of the code
// that made the plan: which sections write and read slots is seen in their ops.
// Path: cold.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "runtime/plan/prove.h"
#include "runtime/program/op_table.h"

namespace plumb {

namespace {

// What the ops of one section touch.
struct Touched {
    bool makes[kSlotClassCount] = {};  // writes some tensor of the class first
    bool reads[kSlotClassCount] = {};  // touches a tensor that it does not make
    std::set<TensorId> caches;
    std::set<TensorId> passing;  // what is not there for the whole run, scratch included
};

TensorId owner(const Program& program, TensorId id) {
    const TensorId root = program.tensors[static_cast<size_t>(id)].alias_of;
    return root == kNoTensor ? id : root;
}

std::vector<Touched> touched_by_sections(const Program& program) {
    std::vector<Touched> touched(program.sections.size());
    std::vector<SectionId> maker(program.tensors.size(), -1);
    for (size_t s = 0; s < program.sections.size(); ++s) {
        const Section& section = program.sections[s];
        for (int32_t i = section.first_op; i < section.first_op + section.op_count; ++i) {
            const Op& op = program.ops[static_cast<size_t>(i)];
            if (op.scratch != kNoTensor) touched[s].passing.insert(op.scratch);
            for (int k = 0; k < op.operand_count; ++k) {
                if (op.operand[k] == kNoTensor) continue;
                const TensorId id = owner(program, op.operand[k]);
                const Tensor& tensor = program.tensors[static_cast<size_t>(id)];
                if (belongs_to_section(tensor.role)) touched[s].passing.insert(id);
                if (tensor.role == Role::kv_cache) touched[s].caches.insert(id);
                if (tensor.role != Role::saved) continue;
                SectionId& made_by = maker[static_cast<size_t>(id)];
                if (made_by < 0 && operand_access(op, k) == Access::write)
                    made_by = static_cast<SectionId>(s);
                const auto slot_class = static_cast<size_t>(tensor.slot_class);
                (made_by == static_cast<SectionId>(s) ? touched[s].makes
                                                      : touched[s].reads)[slot_class] = true;
            }
        }
    }
    return touched;
}

// One slot over time: the micro-batch it holds, and the sections that must still read it.
struct Slot {
    int32_t micro_batch = -1;
    std::set<SectionId> readers;
};

class Walk {
  public:
    Walk(const Program& program, const Plan& plan, const Phase& phase,
         const std::vector<Touched>& touched)
        : program_(program), plan_(plan), phase_(phase), touched_(touched) {}

    std::string flaw() {
        for (size_t e = 0; e < phase_.entries.size(); ++e)
            for (int c = 1; c < kSlotClassCount; ++c)
                if (std::string found = flaw_of_entry(phase_.entries[e], c); !found.empty())
                    return fmt::format("phase {}, entry {}: {}", phase_name(phase_.kind), e, found);
        for (const auto& [place, slot] : slots_)
            if (!slot.readers.empty())
                return fmt::format("phase {} ends before {}", phase_name(phase_.kind),
                                   unread(slot));
        if (std::string found = flaw_of_beside(); !found.empty()) return found;
        return flaw_of_caches();
    }

  private:
    const std::string& name(SectionId id) const {
        return program_.sections[static_cast<size_t>(id)].name;
    }
    std::string unread(const Slot& slot) const {
        return fmt::format("{} has read micro-batch {}", name(*slot.readers.begin()),
                           slot.micro_batch);
    }

    std::string flaw_of_entry(const Entry& entry, int c) {
        const Touched& section = touched_[static_cast<size_t>(entry.section)];
        if (!section.makes[c] && !section.reads[c]) return "";
        const std::string what =
            fmt::format("{} on micro-batch {}", name(entry.section), entry.micro_batch);
        const std::string where =
            fmt::format("slot {} of {}", entry.slot[c], slot_class_name(static_cast<SlotClass>(c)));
        if (entry.slot[c] < 0 || entry.slot[c] >= plan_.pool[c].slot_count)
            return fmt::format("{} has {} of {}", what, where, plan_.pool[c].slot_count);
        Slot& slot = slots_[{c, entry.slot[c]}];
        if (section.reads[c] &&
            (slot.micro_batch != entry.micro_batch || slot.readers.erase(entry.section) == 0))
            return fmt::format("{} reads {}, which does not hold it", what, where);
        if (!section.makes[c]) return "";
        if (!slot.readers.empty())
            return fmt::format("{} overwrites {} before {}", what, where, unread(slot));
        slot.micro_batch = entry.micro_batch;
        for (size_t s = 0; s < touched_.size(); ++s)
            if (touched_[s].reads[c]) slot.readers.insert(static_cast<SectionId>(s));
        return "";
    }

    // What runs beside the phase has lives that no order of ops knows: its tensors may share no
    // byte with any that the phase's own sections use.
    std::string flaw_of_beside() const {
        std::set<TensorId> used;
        for (const Entry& entry : phase_.entries) {
            const Touched& section = touched_[static_cast<size_t>(entry.section)];
            used.insert(section.passing.begin(), section.passing.end());
        }
        for (const SectionId beside : phase_.beside)
            for (const TensorId id : touched_[static_cast<size_t>(beside)].passing)
                for (const TensorId other : used)
                    if (meet(id, other))
                        return fmt::format(
                            "phase {}: {} shares bytes with {} of {}, which runs "
                            "beside it",
                            phase_name(phase_.kind), tensor(other).name, tensor(id).name,
                            name(beside));
        return "";
    }

    const Tensor& tensor(TensorId id) const { return program_.tensors[static_cast<size_t>(id)]; }
    bool meet(TensorId a, TensorId b) const {
        const Placement& x = plan_.placement[static_cast<size_t>(a)];
        const Placement& y = plan_.placement[static_cast<size_t>(b)];
        const int64_t zone = plan_.red_zone_bytes;
        return x.arena == y.arena &&
               (x.base == Base::slot || y.base == Base::slot ||
                (x.offset_bytes < y.offset_bytes + tensor(b).size_bytes + zone &&
                 y.offset_bytes < x.offset_bytes + tensor(a).size_bytes + zone));
    }

    // Caches in the stash arena share bytes with slots only where no entry of the phase has both.
    std::string flaw_of_caches() const {
        bool has_slots[kSlotClassCount] = {};
        std::set<TensorId> caches;
        for (const Entry& entry : phase_.entries) {
            const Touched& section = touched_[static_cast<size_t>(entry.section)];
            for (int c = 1; c < kSlotClassCount; ++c)
                has_slots[c] = has_slots[c] || section.makes[c] || section.reads[c];
            caches.insert(section.caches.begin(), section.caches.end());
        }
        for (const TensorId id : caches) {
            const Placement& place = plan_.placement[static_cast<size_t>(id)];
            if (place.arena != Arena::stash) continue;
            const Tensor& cache = program_.tensors[static_cast<size_t>(id)];
            for (int c = 1; c < kSlotClassCount; ++c) {
                const SlotPool& pool = plan_.pool[c];
                const int64_t end = pool.offset_bytes + pool.slot_bytes * pool.slot_count;
                if (has_slots[c] && place.offset_bytes < end &&
                    place.offset_bytes + cache.size_bytes > pool.offset_bytes)
                    return fmt::format("phase {}: {} lies over the slots that it uses",
                                       phase_name(phase_.kind), cache.name);
            }
        }
        return "";
    }

    const Program& program_;
    const Plan& plan_;
    const Phase& phase_;
    const std::vector<Touched>& touched_;
    std::map<std::pair<int, int32_t>, Slot> slots_;  // by class and number
};

}  // namespace

std::string find_schedule_flaw(const Program& program, const Plan& plan) {
    const std::vector<Touched> touched = touched_by_sections(program);
    for (const Phase& phase : program.phases)
        if (std::string flaw = Walk(program, plan, phase, touched).flaw(); !flaw.empty())
            return flaw;
    return "";
}

}  // namespace plumb
