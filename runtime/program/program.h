// A Program is one rank's work as plain data, frozen after recording: tensors, ops, sections
// (contiguous ranges of ops) and, per phase, the schedule that runs them. It holds no pointers and
// no addresses; the planner gives every tensor its place (runtime/plan), the executor binds places
// to memory (runtime/exec).
// Path: cold.
#pragma once

#include <string>
#include <vector>

#include "runtime/base/dtype.h"
#include "runtime/program/op.h"
#include "runtime/program/param.h"

namespace plumb {

using SectionId = int32_t;

enum class Role : uint8_t {
    weight,      // persistent; flat units and the views of parameters in them
    master,      // persistent; completes 16-bit weights to fp32
    grad,        // persistent; zero between uses
    moment,      // persistent
    state,       // persistent; changed only in `update`
    activation,  // lives inside one section
    saved,       // made in one section, read in another: lies in a slot
    scratch,     // private to one op
    io,          // numbers between host and program at a fixed address
    io_row,      // one row per micro-batch of the step
    kv_cache,
    staging,  // buffers of the checkpoint codec
};

// Whether tensors of a role are made by a section and dead after the last section that reads them;
// all others are there for the whole run.
constexpr bool belongs_to_section(Role role) {
    return role == Role::activation || role == Role::saved || role == Role::scratch ||
           role == Role::staging;
}

// The arenas of a rank. A tensor's arena follows from its role (arena_of in runtime/plan).
enum class Arena : uint8_t {
    weights,
    master,
    grads,
    moments,
    state,
    stash,
    scratch,
    comm,
    io,
    kv_cache,
    staging,
    count
};
inline constexpr int kArenaCount = static_cast<int>(Arena::count);
const char* arena_name(Arena arena);

// Classes of tensors that outlive their section, each with a pool of equal slots.
enum class SlotClass : uint8_t { none, forward_backward, count };
inline constexpr int kSlotClassCount = static_cast<int>(SlotClass::count);
const char* slot_class_name(SlotClass slot_class);

struct Tensor {
    std::string name;
    Shape shape;
    int64_t size_bytes = 0;
    Dtype dtype = Dtype::f32;
    Role role = Role::activation;
    SlotClass slot_class = SlotClass::none;
    SectionId section = -1;         // the section that makes it; -1: persistent
    TensorId alias_of = kNoTensor;  // shares the storage of this tensor (never an alias itself)
    int64_t alias_offset_bytes = 0;
};

enum class SectionKind : uint8_t {
    initialise,
    load,
    forward,
    backward,
    reduce,
    update,
    evaluate,
    digest,
    save,
    prefill,
    decode,
    count
};
const char* section_kind_name(SectionKind kind);

struct Section {
    std::string name;
    SectionKind kind = SectionKind::count;
    int32_t chunk = 0;  // of the model (pipeline)
    // Of an update section: the unit whose weights and moments it changes. -1: none, at most state.
    UnitId unit = -1;
    int32_t first_op = 0;
    int32_t op_count = 0;
};

// One line of a schedule: run a section on a micro-batch's io row with these slots.
struct Entry {
    SectionId section = -1;
    int32_t micro_batch = 0;
    int32_t slot[kSlotClassCount] = {};
};

enum class PhaseKind : uint8_t { initialise, load, step, evaluate, save, generate, count };
inline constexpr int kPhaseCount = static_cast<int>(PhaseKind::count);
const char* phase_name(PhaseKind kind);

// What runs between two moments at which only persistent tensors live. An evaluation and a
// generation run their entries one by one, as often as they need.
struct Phase {
    PhaseKind kind = PhaseKind::count;
    std::vector<Entry> entries;
    // Sections of host ops that another thread runs meanwhile: what they hold is never shared.
    std::vector<SectionId> beside = {};
};

// Tensors that the host fills or reads, kNoTensor where the program has none.
struct IoTensors {
    TensorId scalars = kNoTensor;  // StepScalars
    // Rows, one per micro-batch.
    TensorId tokens = kNoTensor;         // BT i32
    TensorId targets = kNoTensor;        // BT i32
    TensorId loss_weights = kNoTensor;   // BT f32
    TensorId positions = kNoTensor;      // BT i32
    TensorId segment_start = kNoTensor;  // BT i32
    // Results.
    TensorId loss = kNoTensor;        // 1 f64: weighted sum over the step or evaluation so far
    TensorId grad_sum = kNoTensor;    // 4 i64
    TensorId clip = kNoTensor;        // 4 f64
    TensorId digest = kNoTensor;      // 2 i64
    TensorId loss_scale = kNoTensor;  // 2 f32, of role state (fp16 only)
    // Staging through which a load, or any cold copy, passes to a GPU; none on a CPU.
    TensorId passage = kNoTensor;  // u8
    // Generation.
    // A prefill takes one sequence, a decode all B.
    TensorId prompt_tokens = kNoTensor;     // 1T i32, one prefill chunk
    TensorId prompt_positions = kNoTensor;  // 1T i32, -1 for padding
    TensorId prompt_rows = kNoTensor;       // 1 i32, last valid row of the chunk
    TensorId prompt_sequence = kNoTensor;   // 1 i32, which of B
    TensorId first_token = kNoTensor;       // 1 i32, out of a prefill's sample
    TensorId next_token = kNoTensor;        // B i32: into decode, out of its sample
    TensorId next_position = kNoTensor;     // B1 i32, -1 for sequences that take no part
    TensorId new_tokens = kNoTensor;        // B x context i32: what each sequence became so far
    TensorId seen = kNoTensor;              // BV u8: 1 for tokens of the sequence so far
    TensorId draws = kNoTensor;             // B2 i64: key and number of the next draw
    TensorId logits = kNoTensor;            // BV f32; row 0 after a prefill
};

struct Program {
    std::vector<Tensor> tensors;
    std::vector<Op> ops;
    std::vector<Section> sections;
    std::vector<Phase> phases;
    std::vector<Param> params;
    std::vector<Unit> units;
    IoTensors io;
    int32_t micro_batch_count = 1;             // io rows
    int32_t slot_count[kSlotClassCount] = {};  // slots per class that the schedule uses

    // The tensor that owns the storage, and where in it `id` starts.
    TensorId root(TensorId id) const;
    int64_t root_offset_bytes(TensorId id) const;
    const Phase* phase(PhaseKind kind) const;   // nullptr when absent
    SectionId section(SectionKind kind) const;  // the first of its kind; -1 when absent
};

// Whether an entry changes weights and moments, or makes ready to.
inline bool is_update(const Program& program, const Entry& entry) {
    return program.sections[static_cast<size_t>(entry.section)].kind == SectionKind::update;
}

// Shapes of an op's operands (rank 0 when absent), as its rules and kernels expect them.
void operand_shapes(const Program& program, const Op& op, Shape (&shape)[kMaxOperands]);

// One line per op: section, op, operands with shapes. `place` may add each tensor's address.
std::string list_program(const Program& program,
                         std::string (*place)(const void* context, TensorId id) = nullptr,
                         const void* context = nullptr);

}  // namespace plumb
