// The plan: where every byte of one rank's program lies. A pure function of the program and a
// device record: no GPU, no MPI, nothing reserved. What it says is what runtime/exec reserves.
//
// Persistent tensors lie one after another in their arenas. A tensor that lives inside one section
// is packed by lifetime into the scratch arena, every section from offset 0. A tensor that outlives
// its section lies in a slot of its class (stash arena). Tensors of phases that never meet overlay.
// Path: cold.
#pragma once

#include <string>
#include <vector>

#include "runtime/base/hash.h"
#include "runtime/program/kernel_traits.h"
#include "runtime/program/program.h"

namespace plumb {

// How an operand's address is made: base + offset, where base is an arena, a slot of a class chosen
// by the schedule entry, or the io row of the entry's micro-batch.
enum class Base : uint8_t { arena, slot, io_row };

struct Placement {
    Base base = Base::arena;
    Arena arena = Arena::count;
    SlotClass slot_class = SlotClass::none;
    int64_t offset_bytes = 0;  // from that base
};

// Slots of one class: slot i starts at offset_bytes + i * slot_bytes of the stash arena.
struct SlotPool {
    int64_t offset_bytes = 0;
    int64_t slot_bytes = 0;
    int32_t slot_count = 0;
};

struct PhasePlan {
    PhaseKind kind = PhaseKind::count;
    // Bytes of each arena that this phase needs (an arena's size is the maximum over phases).
    int64_t arena_bytes[kArenaCount] = {};
    int64_t total_bytes = 0;
    // Where live bytes are highest.
    int64_t peak_live_bytes = 0;
    SectionId peak_section = -1;
    int32_t peak_op = -1;
};

// Where bytes lie. A run on a CPU has all of them on the host; one on a GPU has the codec's staging
// and its process there, and a copy of the arenas through which host and program speak, beside the
// GPU's memory, which is what has to suffice.
enum class MemorySpace : uint8_t { host, gpu, count };
inline constexpr int kMemorySpaceCount = static_cast<int>(MemorySpace::count);
const char* space_name(MemorySpace space);

constexpr MemorySpace main_space(Isa isa) {
    return is_cuda(isa) ? MemorySpace::gpu : MemorySpace::host;
}
constexpr MemorySpace space_of(Arena arena, MemorySpace main) {
    return arena == Arena::staging ? MemorySpace::host : main;
}
// Arenas that the host reads and writes: those of a GPU have a copy of equal size on the host.
constexpr bool is_shared_with_host(Arena arena) {
    return arena == Arena::io || arena == Arena::state;
}

// Memory that is not ours to place: libraries, stacks, code. `source` says how bytes were obtained.
struct OutsideRow {
    const char* name;
    int64_t bytes;
    const char* source;
    MemorySpace space = MemorySpace::host;
};

struct Plan {
    std::vector<Placement> placement;  // per tensor
    int64_t arena_bytes[kArenaCount] = {};
    SlotPool pool[kSlotClassCount];
    int64_t io_row_offset_bytes = 0;  // of row 0 in the io arena
    int64_t io_row_bytes = 0;
    int64_t red_zone_bytes = 0;  // between tensors (checked build), 0 otherwise
    std::vector<PhasePlan> phases;
    std::vector<OutsideRow> outside;
    int64_t total_bytes = 0;  // sum of the arenas
    int64_t outside_bytes = 0;
    int64_t host_copy_bytes = 0;  // of a GPU's shared arenas
    MemorySpace main = MemorySpace::host;
    int64_t space_bytes[kMemorySpaceCount] = {};  // arenas and outside, where they lie
    // No placement can need less: highest sum of live bytes with every tensor live only from its
    // first write to its last read over the unrolled schedule; and the same under slot discipline
    // (one layout per section, whole slots).
    int64_t lower_bound_unrolled_bytes = 0;
    int64_t lower_bound_slots_bytes = 0;
    int peak_phase = -1;  // index into phases
    Hash128 digest;       // XXH3-128 of placements, arenas, program and device record
};

struct PlanOptions {
    int64_t red_zone_bytes = 0;
};

// Sum of the arenas that lie in a space.
int64_t arena_bytes_in(const Plan& plan, MemorySpace space);

Plan make_plan(const Program& program, const DeviceRecord& device, const PlanOptions& options = {});

// Address of a tensor as text, e.g. "scratch+4096", "slot[forward_backward]+0".
std::string placement_text(const Plan& plan, TensorId id);

}  // namespace plumb
