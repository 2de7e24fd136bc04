#include "runtime/plan/bounds.h"

#include <algorithm>
#include <map>

#include "runtime/base/check.h"
#include "runtime/base/checked.h"

namespace plumb {

int64_t aligned_bytes(const Tensor& tensor) {
    const char* name = tensor.name.c_str();
    return checked_add(std::max(tensor.size_bytes, int64_t{1}), kAlignBytes - 1, name) /
           kAlignBytes * kAlignBytes;
}

namespace {

// A tensor in a slot as one section touches it.
struct SlotUse {
    TensorId tensor;
    int32_t first;  // op index
    int32_t last;
    bool makes;  // this section makes it
};

struct SectionUse {
    std::vector<int64_t> live;  // per op: bytes of tensors that live inside the section
    std::vector<SlotUse> uses;
};

SectionUse use_of_section(const Program& program, const std::vector<Life>& lives,
                          const Section& section) {
    SectionUse result;
    const int32_t begin = section.first_op;
    std::vector<int64_t> change(static_cast<size_t>(section.op_count) + 1, 0);
    std::map<TensorId, SlotUse> uses;
    const auto touch = [&](TensorId id, int32_t i) {
        const TensorId root = program.root(id);
        const Tensor& tensor = program.tensors[static_cast<size_t>(root)];
        const Life& life = lives[static_cast<size_t>(root)];
        const Residence residence = residence_of(tensor.role);
        if (residence == Residence::section && life.first == i) {
            change[static_cast<size_t>(i - begin)] += aligned_bytes(tensor);
            change[static_cast<size_t>(life.last - begin) + 1] -= aligned_bytes(tensor);
        }
        if (residence == Residence::slot)
            uses.try_emplace(root, SlotUse{root, i, i, life.first == i}).first->second.last = i;
    };
    for (int32_t i = begin; i < begin + section.op_count; ++i) {
        const Op& op = program.ops[static_cast<size_t>(i)];
        // An operand may appear twice in one op: count each root once.
        TensorId roots[kMaxOperands + 1];
        int count = 0;
        const auto add = [&](TensorId id) {
            if (id == kNoTensor) return;
            const TensorId root = program.root(id);
            if (std::find(roots, roots + count, root) == roots + count) roots[count++] = root;
        };
        for (int k = 0; k < op.operand_count; ++k) add(op.operand[k]);
        add(op.scratch);
        for (int k = 0; k < count; ++k) touch(roots[k], i);
    }
    int64_t live = 0;
    for (int32_t i = 0; i < section.op_count; ++i)
        result.live.push_back(live += change[static_cast<size_t>(i)]);
    for (const auto& [id, use] : uses) result.uses.push_back(use);
    return result;
}

using SlotKey = std::pair<int32_t, int32_t>;  // class, slot

SlotKey slot_of(const Program& program, const Entry& entry, TensorId id) {
    const auto slot_class =
        static_cast<int32_t>(program.tensors[static_cast<size_t>(id)].slot_class);
    const int32_t slot = entry.slot[slot_class];
    CHECK_NOTE(0 <= slot && slot < program.slot_count[slot_class],
               "a schedule entry names a slot that the pool does not have");
    return {slot_class, slot};
}

// Per entry and use: no later entry reads this copy.
std::vector<std::vector<bool>> last_uses(const Program& program, const Phase& phase,
                                         const std::vector<SectionUse>& sections) {
    std::vector<std::vector<bool>> ends(phase.entries.size());
    std::map<SlotKey, std::vector<bool>> needed;  // per tensor: a later entry reads the copy
    for (size_t e = phase.entries.size(); e-- > 0;) {
        const Entry& entry = phase.entries[e];
        for (const SlotUse& use : sections.at(static_cast<size_t>(entry.section)).uses) {
            std::vector<bool>& later = needed[slot_of(program, entry, use.tensor)];
            later.resize(program.tensors.size());
            const auto id = static_cast<size_t>(use.tensor);
            ends[e].push_back(!later[id]);
            later[id] = !use.makes;
        }
    }
    return ends;
}

LivePeak peak_of_phase(const Program& program, const Phase& phase,
                       const std::vector<SectionUse>& sections, int64_t always_bytes) {
    LivePeak peak;
    peak.live_bytes = always_bytes;
    const auto ends = last_uses(program, phase, sections);
    int64_t base = always_bytes;  // with the copies that live from entry to entry
    std::vector<int64_t> change;
    for (size_t e = 0; e < phase.entries.size(); ++e) {
        const SectionId id = phase.entries[e].section;
        const Section& section = program.sections[static_cast<size_t>(id)];
        const SectionUse& use = sections[static_cast<size_t>(id)];
        change.assign(use.live.size() + 1, 0);
        for (size_t u = 0; u < use.uses.size(); ++u) {
            const SlotUse& slot = use.uses[u];
            const int64_t bytes = aligned_bytes(program.tensors[static_cast<size_t>(slot.tensor)]);
            if (slot.makes) change[static_cast<size_t>(slot.first - section.first_op)] += bytes;
            if (ends[e][u]) change[static_cast<size_t>(slot.last - section.first_op) + 1] -= bytes;
        }
        for (size_t i = 0; i < use.live.size(); ++i) {
            base += change[i];
            const int64_t live = checked_add(base, use.live[i], "live bytes");
            if (live > peak.live_bytes || peak.op < 0) {
                peak.live_bytes = live;
                peak.section = id;
                peak.op = section.first_op + static_cast<int32_t>(i);
            }
        }
        base += change.back();
    }
    return peak;
}

}  // namespace

std::vector<LivePeak> live_peaks(const Program& program, const std::vector<Life>& lives) {
    std::vector<SectionUse> sections;
    for (const Section& section : program.sections)
        sections.push_back(use_of_section(program, lives, section));
    int64_t always = 0;
    int64_t overlaid = 0;  // kv_cache that lives only while generating
    for (const Tensor& tensor : program.tensors) {
        if (tensor.alias_of != kNoTensor) continue;
        const Residence residence = residence_of(tensor.role);
        int64_t bytes = aligned_bytes(tensor);
        if (residence == Residence::io_row)
            bytes = checked_mul(bytes, program.micro_batch_count, "io rows");
        else if (residence != Residence::persistent)
            continue;
        const bool overlay = tensor.role == Role::kv_cache && kv_cache_overlays_stash(program);
        int64_t& sum = overlay ? overlaid : always;
        sum = checked_add(sum, bytes, "persistent bytes");
    }
    std::vector<LivePeak> peaks;
    for (const Phase& phase : program.phases) {
        int64_t bytes = always + (phase.kind == PhaseKind::generate ? overlaid : 0);
        for (const SectionId beside : phase.beside) {
            const std::vector<int64_t>& live = sections.at(static_cast<size_t>(beside)).live;
            if (!live.empty())
                bytes = checked_add(bytes, *std::max_element(live.begin(), live.end()), "beside");
        }
        peaks.push_back(peak_of_phase(program, phase, sections, bytes));
    }
    return peaks;
}

}  // namespace plumb
