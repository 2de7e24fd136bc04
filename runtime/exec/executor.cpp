#include "runtime/exec/executor.h"

#include <algorithm>
#include <cstring>

#include "runtime/exec/seal.h"

namespace plumb {

// CUDA may take memory of the host for itself in any call: each is made inside a LibraryScope.

Executor::Executor(const Program& program, const Plan& plan, const ArenaSet& arenas,
                   const KernelTable& kernels, const ExecutorOptions& options)
    : program_(program),
      plan_(plan),
      arenas_(arenas),
      options_(options),
      bound_(bind_ops(program, plan, kernels)),
      scalars_(data<StepScalars>(program.io.scalars)),
      kernel_scalars_(reinterpret_cast<StepScalars*>(kernel_address(program.io.scalars))) {
    *scalars_ = StepScalars{};
    if (gpu() != nullptr) prepare_kernels();
    if (plan.red_zone_bytes > 0) poison_ = std::make_unique<Poison>(program, plan, arenas);
}

// Kernels make what they need for every address that they will run with.
void Executor::prepare_kernels() {
    gpu()->begin_preparing();
    for (size_t s = 0; s < program_.sections.size(); ++s) {
        Entry entry;
        entry.section = static_cast<SectionId>(s);
        run_ops(entry);
    }
    for (const Phase& phase : program_.phases)
        for (const Entry& entry : phase.entries) run_ops(entry);
    gpu()->end_preparing();
}

void Executor::prepare(std::span<const Entry> entries) {
    if (gpu() == nullptr || !options_.graphs || poison_ != nullptr) return;
    gpu()->begin_capture(GpuLane::compute);
    for (const Entry& entry : entries) run_ops(entry);
    prepared_.push_back({entries, gpu()->end_capture(GpuLane::compute)});
}

bool Executor::has_graph(std::span<const Entry> entries) const noexcept {
    return find_prepared(entries) != nullptr;
}

const Executor::Prepared* Executor::find_prepared(std::span<const Entry> entries) const noexcept {
    for (const Prepared& prepared : prepared_)
        if (prepared.entries.data() == entries.data() && prepared.entries.size() == entries.size())
            return &prepared;
    return nullptr;
}

void Executor::run(std::span<const Entry> entries) noexcept {
    if (gpu() == nullptr) {
        for (const Entry& entry : entries) run_ops(entry);
        return;
    }
    const LibraryScope scope(Library::cuda);
    gpu()->record(GpuEvent::sent, GpuLane::copy);
    gpu()->wait(GpuLane::compute, GpuEvent::sent);
    if (const Prepared* prepared = find_prepared(entries))
        gpu()->launch(prepared->graph, GpuLane::compute);
    else
        for (const Entry& entry : entries) run_ops(entry);
    gpu()->record(GpuEvent::ran, GpuLane::compute);
}

void Executor::run_ops(const Entry& entry) noexcept {
    const Section& section = program_.sections[static_cast<size_t>(entry.section)];
    const BaseTable table = base_table(plan_, arenas_, entry);
    for (int32_t i = section.first_op; i < section.first_op + section.op_count; ++i) {
        if (bound_[static_cast<size_t>(i)].kernel == nullptr) continue;  // run by the engine
        run_op(entry, i, table);
        if (poison_) poison_->after(i, table);
    }
}

void Executor::run_op(const Entry& entry, int32_t op, const BaseTable& table) noexcept {
    const BoundOp& bound = bound_[static_cast<size_t>(op)];
    void* data[kMaxOperands];
    for (int k = 0; k < bound.operand_count; ++k) data[k] = table.at(bound.operand[k]);
    const KernelArgs args{&bound.attrs,
                          bound.shape,
                          data,
                          table.at(bound.scratch),
                          bound.scratch_bytes,
                          kernel_scalars_,
                          entry.micro_batch,
                          options_.threads,
                          gpu() == nullptr ? nullptr : gpu()->stream(GpuLane::compute),
                          options_.tf32};
    bound.kernel(args);
}

void Executor::run_op(const Entry& entry, int32_t op) noexcept {
    CHECK_NOTE(poison_ == nullptr, "an op alone leaves bytes that poison takes for stray writes");
    if (bound_[static_cast<size_t>(op)].kernel != nullptr)
        run_op(entry, op, base_table(plan_, arenas_, entry));
}

void Executor::begin_input() noexcept {
    if (gpu() == nullptr) return;
    const LibraryScope scope(Library::cuda);
    gpu()->host_wait(GpuEvent::sent);
    gpu()->wait(GpuLane::copy, GpuEvent::ran);
}

void Executor::send(TensorId id) noexcept {
    if (gpu() == nullptr) return;
    const LibraryScope scope(Library::cuda);
    gpu()->copy_to_gpu(kernel_address(id), host_address(id, 0),
                       program_.tensors[static_cast<size_t>(id)].size_bytes, GpuLane::copy);
}

void Executor::send_rows(int32_t first, int32_t count) noexcept {
    if (gpu() == nullptr) return;
    const LibraryScope scope(Library::cuda);
    const int64_t offset = plan_.io_row_offset_bytes + first * plan_.io_row_bytes;
    gpu()->copy_to_gpu(arenas_.base(Arena::io) + offset, arenas_.host_base(Arena::io) + offset,
                       count * plan_.io_row_bytes, GpuLane::copy);
}

void Executor::clear(TensorId id) noexcept {
    const int64_t size_bytes = program_.tensors[static_cast<size_t>(id)].size_bytes;
    if (gpu() == nullptr) {
        std::memset(host_address(id, 0), 0, static_cast<size_t>(size_bytes));
        return;
    }
    const LibraryScope scope(Library::cuda);
    gpu()->fill(kernel_address(id), 0, size_bytes, GpuLane::copy);
}

void Executor::fetch(TensorId id) noexcept {
    if (gpu() == nullptr) return;
    const LibraryScope scope(Library::cuda);
    gpu()->wait(GpuLane::copy, GpuEvent::ran);
    gpu()->copy_to_host(host_address(id, 0), kernel_address(id),
                        program_.tensors[static_cast<size_t>(id)].size_bytes, GpuLane::copy);
    gpu()->record(GpuEvent::fetched, GpuLane::copy);
}

void Executor::wait() noexcept {
    if (gpu() == nullptr) return;
    const LibraryScope scope(Library::cuda);
    gpu()->host_wait(GpuEvent::fetched);
}

void Executor::finish() noexcept {
    if (gpu() == nullptr) return;
    const LibraryScope scope(Library::cuda);
    gpu()->host_wait(GpuLane::compute);
}

// Hands `size_bytes` in pieces to copy(offset, bytes, the passage).
template <typename Copy>
void Executor::by_pieces(int64_t size_bytes, const Copy& copy) noexcept {
    const LibraryScope scope(Library::cuda);
    const TensorId id = program_.io.passage;
    const int64_t piece_bytes = program_.tensors[static_cast<size_t>(id)].size_bytes;
    gpu()->wait(GpuLane::copy, GpuEvent::ran);
    for (int64_t offset = 0; offset < size_bytes; offset += piece_bytes)
        copy(offset, std::min(piece_bytes, size_bytes - offset), data<char>(id));
}

void Executor::read(TensorId id, int64_t offset_bytes, void* to, int64_t size_bytes) noexcept {
    const char* from = kernel_address(id) + offset_bytes;
    if (gpu() == nullptr) {
        std::memcpy(to, from, static_cast<size_t>(size_bytes));
        return;
    }
    by_pieces(size_bytes, [&](int64_t offset, int64_t bytes, char* passage) {
        gpu()->copy_to_host(passage, from + offset, bytes, GpuLane::copy);
        gpu()->host_wait(GpuLane::copy);
        std::memcpy(static_cast<char*>(to) + offset, passage, static_cast<size_t>(bytes));
    });
}

void Executor::write(TensorId id, int64_t offset_bytes, const void* from,
                     int64_t size_bytes) noexcept {
    char* to = kernel_address(id) + offset_bytes;
    if (gpu() == nullptr) {
        std::memcpy(to, from, static_cast<size_t>(size_bytes));
        return;
    }
    by_pieces(size_bytes, [&](int64_t offset, int64_t bytes, char* passage) {
        const char* piece = static_cast<const char*>(from) + offset;
        if (piece != passage) std::memcpy(passage, piece, static_cast<size_t>(bytes));
        gpu()->copy_to_gpu(to + offset, passage, bytes, GpuLane::copy);
        gpu()->host_wait(GpuLane::copy);
    });
}

const uint8_t* Executor::view_for_save(TensorId id, int64_t offset_bytes, int64_t size_bytes,
                                       uint8_t* room) noexcept {
    const auto* from = reinterpret_cast<const uint8_t*>(kernel_address(id)) + offset_bytes;
    if (gpu() == nullptr) return from;
    const LibraryScope scope(Library::cuda);
    gpu()->copy_to_host(room, from, size_bytes, GpuLane::save);
    gpu()->record(GpuEvent::saved, GpuLane::save);
    gpu()->host_wait(GpuEvent::saved);
    return room;
}

void* Executor::host_address(TensorId id, int32_t micro_batch) const {
    Entry entry;
    entry.micro_batch = micro_batch;
    const BoundOperand place = bind_tensor(program_, plan_, id);
    const BaseTable table = host_base_table(plan_, arenas_, entry);
    CHECK_NOTE(place.base >= 0 && table.base[place.base] != nullptr,
               "the host has no address for this tensor");
    return table.at(place);
}

char* Executor::kernel_address(TensorId id) const {
    void* address = base_table(plan_, arenas_, Entry{}).at(bind_tensor(program_, plan_, id));
    CHECK(address != nullptr);
    return static_cast<char*>(address);
}

}  // namespace plumb
