// Start-up of every program that runs a model: from a checked configuration to a bound executor in
// reserved arenas. The order is fixed: record the program, plan it, reserve, bind; then initialise
// or load; then seal(). What the plan says is what is reserved.
// Path: cold.
#pragma once

#include "runtime/exec/executor.h"
#include "runtime/models/model_program.h"
#include "runtime/plan/budget.h"

namespace plumb {

// Bytes of the checkpoint codec's staging for this model and chunk size.
StagingBytes checkpoint_staging(const RunConfig& config);

// The device that run.device names: this machine for "cpu", the record of its GPU for "cuda",
// otherwise a fixed record. Throws Error for an unknown name and for "cuda" where no GPU can be
// used.
DeviceRecord device_of(const RunConfig& config);

// Settles what a configuration leaves to the device: train.dtype = auto is bf16 where the device
// computes in it, otherwise fp32. Everything below wants resolved settings; Session resolves its.
RunConfig resolved(RunConfig config);

// Traits, device and staging of a configuration, as build_program wants them.
ProgramInputs program_inputs(const RunConfig& config);

// What a session of this configuration would reserve (without red zones); reserves nothing.
Plan plan_of(const RunConfig& config, Purpose purpose);

// Plans of the run of load_run(name, overrides), a training's of load_training, with more
// overrides; each made once.
PlanWith plans_with(const std::string& name, const std::vector<std::string>& overrides,
                    Purpose purpose);

// Bytes that the checked build keeps between tensors to see stray writes.
#ifdef PLUMB_CHECKED
inline constexpr int64_t kBuildRedZoneBytes = kAlignBytes;
#else
inline constexpr int64_t kBuildRedZoneBytes = 0;
#endif

class Session {
  public:
    // Throws Error: does_not_fit; bad_input when run.device is not this machine's. With red
    // zones (a multiple of kAlignBytes) dead bytes are poisoned too; results keep their bits. On a
    // GPU the algorithms of products are those stored in the first of `products_folders` that has a
    // table (product_table.h), and the others measured; products_note() says why that is not used.
    explicit Session(const RunConfig& config, Purpose purpose,
                     int64_t red_zone_bytes = kBuildRedZoneBytes,
                     const std::vector<std::string>& products_folders = {});
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    const RunConfig& config() const { return config_; }
    const Program& program() const { return program_; }
    const Plan& plan() const { return plan_; }
    const ArenaSet& arenas() const { return arenas_; }
    Executor& executor() { return executor_; }
    Gpu* gpu() const { return gpu_.get(); }  // nullptr: a CPU
    const std::string& products_note() const { return products_note_; }
    const DeviceRecord& device() const { return device_; }
    // Of the GPU, before the arenas were taken, and when seal() ended the start; zeros without one.
    const GpuMemory& gpu_memory_before() const { return gpu_memory_before_; }
    const GpuMemory& gpu_memory_sealed() const { return gpu_memory_sealed_; }
    // Flop/s that the device makes at most in this program's dtype: measured on a CPU, from the
    // data sheet of a GPU; 0 when it is not known.
    double peak_flops(Purpose purpose) const;

    // Runs all entries of a phase, and the first section of a kind, but for host ops, to the end.
    void run_phase(PhaseKind kind) noexcept;
    void run_section(SectionKind kind) noexcept;
    // Warms the threads and forbids allocation from here on.
    void seal();

  private:
    void prepare();

    RunConfig config_;
    DeviceRecord device_;
    std::unique_ptr<Gpu> gpu_;  // nullptr: a CPU
    GpuMemory gpu_memory_before_;
    GpuMemory gpu_memory_sealed_;
    std::string products_note_;
    Program program_;
    Plan plan_;
    ArenaSet arenas_;
    Executor executor_;
};

}  // namespace plumb
