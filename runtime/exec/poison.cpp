#include "runtime/exec/poison.h"

#include <algorithm>
#include <cstring>

#include "runtime/base/check.h"

namespace plumb {

namespace {

constexpr int kPattern = 0xFF;  // a NaN as fp32 and fp64, -1 as an integer

std::vector<TensorId> roots_of(const Program& program, const Op& op) {
    std::vector<TensorId> roots;
    for (int k = 0; k < op.operand_count; ++k)
        if (op.operand[k] != kNoTensor) roots.push_back(program.root(op.operand[k]));
    if (op.scratch != kNoTensor) roots.push_back(op.scratch);
    std::sort(roots.begin(), roots.end());
    roots.erase(std::unique(roots.begin(), roots.end()), roots.end());
    return roots;
}

}  // namespace

Poison::Poison(const Program& program, const Plan& plan, const ArenaSet& arenas)
    : zone_bytes_(plan.red_zone_bytes), program_(program), gpu_(arenas.gpu()) {
    if (gpu_ != nullptr) zone_copy_ = gpu_->allocate_host(zone_bytes_);
    for (const Arena arena : {Arena::stash, Arena::scratch, Arena::kv_cache})
        if (arenas.size_bytes(arena) > 0) fill(arenas.base(arena), arenas.size_bytes(arena));
    if (arenas.size_bytes(Arena::staging) > 0)  // the host's, always
        std::memset(arenas.base(Arena::staging), kPattern,
                    static_cast<size_t>(arenas.size_bytes(Arena::staging)));
    std::vector<int32_t> last(program.tensors.size(), -1);
    for (size_t i = 0; i < program.ops.size(); ++i)
        for (const TensorId id : roots_of(program, program.ops[i]))
            last[static_cast<size_t>(id)] = static_cast<int32_t>(i);
    for (size_t i = 0; i < program.ops.size(); ++i) {
        first_guard_.push_back(static_cast<int32_t>(guards_.size()));
        for (const TensorId id : roots_of(program, program.ops[i])) {
            const Tensor& tensor = program.tensors[static_cast<size_t>(id)];
            // Sections of one phase run in program order, and what belongs to them is written
            // before it is read: dead after its last op of all.
            const bool dies = belongs_to_section(tensor.role) &&
                              last[static_cast<size_t>(id)] == static_cast<int32_t>(i);
            guards_.push_back({id, bind_tensor(program, plan, id), tensor.size_bytes, dies});
        }
    }
    first_guard_.push_back(static_cast<int32_t>(guards_.size()));
    // Zones of persistent tensors and of io rows.
    for (size_t t = 0; t < program.tensors.size(); ++t) {
        const Tensor& tensor = program.tensors[t];
        if (tensor.alias_of != kNoTensor || belongs_to_section(tensor.role)) continue;
        const BoundOperand place = bind_tensor(program, plan, static_cast<TensorId>(t));
        const int32_t rows = tensor.role == Role::io_row ? program.micro_batch_count : 1;
        for (int32_t m = 0; m < rows; ++m) {
            Entry entry;
            entry.micro_batch = m;
            char* data = static_cast<char*>(base_table(plan, arenas, entry).at(place));
            fill(data + align_up(tensor.size_bytes, kAlignBytes), zone_bytes_);
            // Rows are sent with the zones between them.
            const BaseTable host = host_base_table(plan, arenas, entry);
            if (gpu_ != nullptr && host.base[place.base] != nullptr)
                std::memset(
                    static_cast<char*>(host.at(place)) + align_up(tensor.size_bytes, kAlignBytes),
                    kPattern, static_cast<size_t>(zone_bytes_));
        }
    }
    if (gpu_ != nullptr) gpu_->host_wait(GpuLane::compute);
}

Poison::~Poison() {
    if (gpu_ != nullptr) gpu_->release_host(zone_copy_);
}

void Poison::fill(void* data, int64_t size_bytes) const noexcept {
    if (gpu_ != nullptr)
        gpu_->fill(data, kPattern, size_bytes, GpuLane::compute);
    else
        std::memset(data, kPattern, static_cast<size_t>(size_bytes));
}

// The zone at `data` for the host to read.
const unsigned char* Poison::zone(const char* data) const noexcept {
    if (gpu_ == nullptr) return reinterpret_cast<const unsigned char*>(data);
    gpu_->copy_to_host(zone_copy_, data, zone_bytes_, GpuLane::compute);
    gpu_->host_wait(GpuLane::compute);
    return static_cast<const unsigned char*>(zone_copy_);
}

void Poison::after(int32_t op_index, const BaseTable& table) const noexcept {
    const auto begin = static_cast<size_t>(first_guard_[static_cast<size_t>(op_index)]);
    const auto end = static_cast<size_t>(first_guard_[static_cast<size_t>(op_index) + 1]);
    for (size_t g = begin; g < end; ++g) {
        const Guard& guard = guards_[g];
        const char* data = static_cast<const char*>(table.at(guard.place));
        const unsigned char* bytes = zone(data + align_up(guard.size_bytes, kAlignBytes));
        for (int64_t i = 0; i < zone_bytes_; ++i)
            CHECK_NOTE(bytes[i] == kPattern,
                       program_.tensors[static_cast<size_t>(guard.tensor)].name.c_str());
    }
    for (size_t g = begin; g < end; ++g)
        if (guards_[g].dies) fill(table.at(guards_[g].place), guards_[g].size_bytes);
}

}  // namespace plumb
