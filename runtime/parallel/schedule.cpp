#include "runtime/parallel/schedule.h"

#include <algorithm>

namespace plumb {

std::vector<Entry> single_stage_step(const StepSections& sections, int32_t micro_batch_count) {
    std::vector<Entry> entries;
    for (int32_t m = 0; m < micro_batch_count; ++m) {
        for (const SectionId section : {sections.forward, sections.backward, sections.reduce}) {
            if (section < 0) continue;
            Entry entry;
            entry.section = section;
            entry.micro_batch = m;
            entries.push_back(entry);
        }
    }
    for (const SectionId section : sections.update) {
        Entry update;
        update.section = section;
        entries.push_back(update);
    }
    return entries;
}

void count_slots(const std::vector<Entry>& entries, int32_t (&slot_count)[kSlotClassCount]) {
    for (int c = 1; c < kSlotClassCount; ++c)
        for (const Entry& entry : entries)
            slot_count[c] = std::max(slot_count[c], entry.slot[c] + 1);
}

}  // namespace plumb
