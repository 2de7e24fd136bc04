// Schedules of one training step as tables: which section runs on which micro-batch with which
// slots. A pipeline schedule is such a table and nothing else knows it; with one stage every
// micro-batch's backward follows its forward, so one slot suffices.
// Path: cold.
#pragma once

#include <vector>

#include "runtime/program/program.h"

namespace plumb {

struct StepSections {
    SectionId forward = -1;
    SectionId backward = -1;
    SectionId reduce = -1;          // -1: nothing to reduce per micro-batch
    std::vector<SectionId> update;  // the norm of all gradients, then unit by unit
};

// Entries of a step of `micro_batch_count` micro-batches on a single stage.
std::vector<Entry> single_stage_step(const StepSections& sections, int32_t micro_batch_count);

// Slots per class that a list of entries uses: one more than the highest slot it names.
void count_slots(const std::vector<Entry>& entries, int32_t (&slot_count)[kSlotClassCount]);

}  // namespace plumb
