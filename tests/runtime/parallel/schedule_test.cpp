#include "runtime/parallel/schedule.h"

#include <gtest/gtest.h>

namespace plumb {
namespace {

TEST(SingleStageStep, EachBackwardFollowsItsForward) {
    StepSections sections;
    sections.forward = 3;
    sections.backward = 4;
    sections.update = {6, 7, 8};
    const auto entries = single_stage_step(sections, 3);
    ASSERT_EQ(entries.size(), 9u);
    for (int32_t m = 0; m < 3; ++m) {
        const auto i = static_cast<size_t>(2 * m);
        EXPECT_EQ(entries[i].section, 3);
        EXPECT_EQ(entries[i].micro_batch, m);
        EXPECT_EQ(entries[i + 1].section, 4);
        EXPECT_EQ(entries[i + 1].micro_batch, m);
    }
    for (size_t u = 0; u < 3; ++u) EXPECT_EQ(entries[6 + u].section, 6 + static_cast<int>(u));
    int32_t slots[kSlotClassCount] = {};
    count_slots(entries, slots);
    EXPECT_EQ(slots[static_cast<int>(SlotClass::forward_backward)], 1);
}

TEST(SingleStageStep, ExactReductionFoldsAfterEachMicroBatch) {
    StepSections sections{0, 1, 2, {3}};
    const auto entries = single_stage_step(sections, 2);
    std::vector<SectionId> order;
    for (const Entry& entry : entries) order.push_back(entry.section);
    EXPECT_EQ(order, (std::vector<SectionId>{0, 1, 2, 0, 1, 2, 3}));
}

TEST(CountSlots, IsOneMoreThanTheHighest) {
    std::vector<Entry> entries(3);
    const auto c = static_cast<size_t>(SlotClass::forward_backward);
    entries[1].slot[c] = 4;
    int32_t slots[kSlotClassCount] = {};
    count_slots(entries, slots);
    EXPECT_EQ(slots[c], 5);
}

}  // namespace
}  // namespace plumb
