// Runs schedule entries: for each op of an entry's section, addresses from the table of bases, then
// the kernel. No branches on what an op is, no allocation, no lock. On a GPU the kernels go to its
// compute lane and run() returns at once; lists of entries that were prepared run as one graph.
// What host and program share (the arenas io and state) the host sees as a copy then: what it has
// written it sends before the run, what it wants to read it fetches after. On a CPU both are the
// same memory and these calls do nothing. The checked build also poisons dead bytes and checks red
// zones around every op (poison.h).
// Path: hot.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "runtime/exec/bind.h"
#include "runtime/exec/poison.h"

namespace plumb {

struct ExecutorOptions {
    int32_t threads = 1;  // team size of kernels; CPU only
    // GPU only.
    bool graphs = true;  // prepared lists run as graphs; false: kernel by kernel, the same bits
    bool tf32 = false;
};

class Executor {
  public:
    // All arguments outlive the executor. Throws Error (does_not_fit) when a GPU has no memory for
    // its kernels' code.
    Executor(const Program& program, const Plan& plan, const ArenaSet& arenas,
             const KernelTable& kernels, const ExecutorOptions& options);
    Executor(const Executor&) = delete;
    Executor& operator=(const Executor&) = delete;

    // Cold. These entries will often be run in this order, by a run() of this very list. Throws
    // Error (does_not_fit) when a GPU has no memory for their graph.
    void prepare(std::span<const Entry> entries);
    // Whether such a run is better made of a whole list than entry by entry.
    bool has_graph(std::span<const Entry> entries) const noexcept;

    void run(std::span<const Entry> entries) noexcept;
    void run(const Entry& entry) noexcept { run({&entry, 1}); }
    // Cold. One op of an entry's section alone, by its number in the program, for profiles: on a
    // GPU put on the compute lane, or into the graph that is captured there. Host ops do nothing.
    // Not of a plan with red zones.
    void run_op(const Entry& entry, int32_t op) noexcept;

    // The host's side of a shared tensor; of a micro-batch's io row. On a CPU, of any fixed tensor.
    template <typename T>
    T* data(TensorId id, int32_t micro_batch = 0) const {
        return static_cast<T*>(host_address(id, micro_batch));
    }
    StepScalars& scalars() const { return *scalars_; }

    // What the host writes for a run, in this order: begin_input(), writes through data() and
    // scalars(), sends of what it wrote; then run(). begin_input() waits until earlier sends have
    // left the host.
    void begin_input() noexcept;
    void send(TensorId id) noexcept;
    void send_rows(int32_t first, int32_t count) noexcept;  // the io rows of micro-batches
    void clear(TensorId id) noexcept;                       // to zeros, before the next run
    // After a run: copies of what it has made; there, with all that it has made, after wait(). A
    // later run may begin meanwhile.
    void fetch(TensorId id) noexcept;
    void wait() noexcept;

    // Whether run() returns before it is done, so that the host may prepare the next.
    bool runs_ahead() const noexcept { return gpu() != nullptr; }

    // Waits until all runs are done.
    void finish() noexcept;

    // Bytes of any tensor for the host, of what the runs before have made. Cold: on a GPU they pass
    // through io.passage, where `from` may stand already, in the staging that a save uses too.
    void read(TensorId id, int64_t offset_bytes, void* to, int64_t size_bytes) noexcept;
    void write(TensorId id, int64_t offset_bytes, const void* from, int64_t size_bytes) noexcept;
    // For the saving thread, while no run changes the tensor: its bytes, copied to `room` (in the
    // staging arena) when they lie on a GPU.
    const uint8_t* view_for_save(TensorId id, int64_t offset_bytes, int64_t size_bytes,
                                 uint8_t* room) noexcept;

    const Program& program() const { return program_; }
    const Plan& plan() const { return plan_; }
    int32_t threads() const { return options_.threads; }
    Gpu* gpu() const { return arenas_.gpu(); }

  private:
    struct Prepared {
        std::span<const Entry> entries;
        Gpu::Graph graph;
    };
    const Prepared* find_prepared(std::span<const Entry> entries) const noexcept;
    template <typename Copy>
    void by_pieces(int64_t size_bytes, const Copy& copy) noexcept;
    void* host_address(TensorId id, int32_t micro_batch) const;
    char* kernel_address(TensorId id) const;
    void run_ops(const Entry& entry) noexcept;
    void run_op(const Entry& entry, int32_t op, const BaseTable& table) noexcept;
    void prepare_kernels();

    const Program& program_;
    const Plan& plan_;
    const ArenaSet& arenas_;
    ExecutorOptions options_;
    std::vector<BoundOp> bound_;
    StepScalars* scalars_;               // the host's
    const StepScalars* kernel_scalars_;  // the kernels'
    std::vector<Prepared> prepared_;
    std::unique_ptr<Poison> poison_;  // checked build only
};

}  // namespace plumb
