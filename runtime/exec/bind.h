// Turns every op of a program into a record the executor runs: kernel, attributes, shapes, and for
// each operand {base, offset}. The only place where offsets become pointers: the table of bases of
// a schedule entry (arenas, the entry's slots, its io row) is made here too.
// Path: cold.
#pragma once

#include <vector>

#include "kernels/kernels.h"
#include "runtime/exec/arena.h"

namespace plumb {

// Bases: the arenas, then one per slot class, then the io row.
inline constexpr int kSlotBase = kArenaCount;
inline constexpr int kIoRowBase = kSlotBase + kSlotClassCount;
inline constexpr int kBaseCount = kIoRowBase + 1;

struct BoundOperand {
    int32_t base = -1;  // -1: absent
    int64_t offset_bytes = 0;
};

struct BoundOp {
    Kernel kernel = nullptr;
    Attrs attrs;
    Shape shape[kMaxOperands];
    BoundOperand operand[kMaxOperands];
    BoundOperand scratch;
    int64_t scratch_bytes = 0;
    int32_t operand_count = 0;
};

struct BaseTable {
    char* base[kBaseCount];

    void* at(const BoundOperand& operand) const {
        return operand.base < 0 ? nullptr : base[operand.base] + operand.offset_bytes;
    }
};

BoundOperand bind_tensor(const Program& program, const Plan& plan, TensorId id);

// All ops in program order; ops of the host lane have no kernel.
std::vector<BoundOp> bind_ops(const Program& program, const Plan& plan, const KernelTable& kernels);

// Bases of a schedule entry, as kernels find them; and as the host does, nullptr where it does not.
BaseTable base_table(const Plan& plan, const ArenaSet& arenas, const Entry& entry) noexcept;
BaseTable host_base_table(const Plan& plan, const ArenaSet& arenas, const Entry& entry) noexcept;

}  // namespace plumb
