#include "runtime/engine/session.h"

#include <fmt/format.h>

#include <map>

#include "formats/checkpoint_writer.h"
#include "kernels/gpu.h"
#include "runtime/base/error.h"
#include "runtime/engine/product_table.h"
#include "runtime/engine/resume_config.h"
#include "runtime/engine/state_records.h"
#include "runtime/exec/machine_limits.h"
#include "runtime/exec/seal.h"

namespace plumb {

StagingBytes checkpoint_staging(const RunConfig& config) {
    const int64_t chunk_bytes = config.run.checkpoint.chunk_bytes;
    const CodecStagingBytes codec = codec_staging_bytes(chunk_bytes);
    const std::vector<TensorRecord> records =
        state_records(model_parameters(config.model), true, program_dtype(config, Purpose::train));
    StagingBytes staging;
    staging.raw = codec.raw;
    staging.planes = codec.planes;
    staging.stored = codec.stored;
    staging.context = codec.context;
    if (is_cuda(device_of(config).isa)) {
        staging.live = 2 * chunk_bytes;  // a chunk, and the low halves that complete it
        staging.passage = chunk_bytes;
    }
    staging.index =
        planned_index_bytes(records.data(), static_cast<int64_t>(records.size()), chunk_bytes);
    return staging;
}

namespace {

// The record of this machine's GPU.
std::string gpu_record() {
    try {
        return std::string("cuda-") + isa_name(usable_isa(probe_gpu()));
    } catch (const Error& error) {
        throw Error(error.code(), std::string(error.what()) +
                                      "; to plan for a GPU on a machine without one, name it: "
                                      "cuda-sm80 or cuda-sm90");
    }
}

void check_tf32(const MachineSpec& machine, const DeviceRecord& device) {
    if (machine.tf32 && !is_cuda(device.isa))
        throw Error(ExitCode::bad_input,
                    fmt::format("run.tf32 is true, but {} has no tf32: set it to false, or "
                                "run.device to \"cuda\"",
                                device.name));
}

}  // namespace

DeviceRecord device_of(const RunConfig& config) {
    const MachineSpec& machine = config.run.run;
    const int32_t threads =
        machine.threads > 0 ? static_cast<int32_t>(machine.threads) : usable_cpus();
    if (machine.device == "cpu") {
        check_tf32(machine, host_device(threads));
        return host_device(threads);
    }
    const std::string name = machine.device == "cuda" ? gpu_record() : machine.device;
    DeviceRecord record;
    if (named_device(name.c_str(), threads, &record)) {
        check_tf32(machine, record);
        return record;
    }
    std::string known = "cpu, cuda";
    for (int i = 0; device_name(i) != nullptr; ++i)
        known += std::string(device_name(i + 1) == nullptr ? " and " : ", ") + device_name(i);
    throw Error(ExitCode::bad_input,
                "run.device: unknown device \"" + machine.device + "\"; known are " + known);
}

RunConfig resolved(RunConfig config) {
    ComputeDtype& dtype = config.run.train.dtype;
    if (dtype == ComputeDtype::automatic)
        dtype = computes_in_bf16(device_of(config)) ? ComputeDtype::bf16 : ComputeDtype::fp32;
    return config;
}

ProgramInputs program_inputs(const RunConfig& config) {
    const DeviceRecord device = device_of(config);
    return {kernel_traits(device.isa), device, checkpoint_staging(config)};
}

Plan plan_of(const RunConfig& config, Purpose purpose) {
    const RunConfig run = resolved(config);
    const ProgramInputs inputs = program_inputs(run);
    return make_plan(build_program(run, inputs, purpose), inputs.device);
}

PlanWith plans_with(const std::string& name, const std::vector<std::string>& overrides,
                    Purpose purpose) {
    std::map<std::vector<std::string>, Plan> made;
    return [=](const std::vector<std::string>& settings) mutable -> const Plan& {
        auto at = made.find(settings);
        if (at == made.end()) {
            std::vector<std::string> more = overrides;
            more.insert(more.end(), settings.begin(), settings.end());
            const RunConfig config =
                purpose == Purpose::train ? load_training(name, &more) : load_run(name, more);
            at = made.emplace(settings, plan_of(config, purpose)).first;
        }
        return at->second;
    };
}

namespace {

// The device, when this program can run on it.
DeviceRecord runnable(const DeviceRecord& device) {
    if (!has_kernels(device.isa))
        throw Error(ExitCode::bad_input,
                    fmt::format("run.device: {} needs {} kernels; {} (plumb-plan plans for any "
                                "device)",
                                device.name, isa_name(device.isa),
                                is_cuda(device.isa)
                                    ? std::string("this program was built without CUDA")
                                    : fmt::format("this machine has {}", isa_name(host_isa()))));
    return device;
}

// The GPU that a device is, when it is one.
std::unique_ptr<Gpu> gpu_of(const DeviceRecord& device) {
    if (!is_cuda(device.isa)) return nullptr;
    std::unique_ptr<Gpu> gpu = open_gpu();
    if (gpu->isa() != device.isa)
        throw Error(
            ExitCode::bad_input,
            fmt::format("run.device: {} is for {}, this machine's {} is {}; \"cuda\" "
                        "takes what there is",
                        device.name, isa_name(device.isa), gpu->name(), isa_name(gpu->isa())));
    return gpu;
}

// Why a table in the folder is not used, if so.
std::string take_products(Gpu* gpu, const std::vector<std::string>& folders, Purpose purpose) {
    // Inference keeps no table: what it measured would be another the next time.
    return gpu == nullptr ? "" : load_products(folders, *gpu, purpose == Purpose::train);
}

}  // namespace

Session::Session(const RunConfig& config, Purpose purpose, int64_t red_zone_bytes,
                 const std::vector<std::string>& products_folders)
    : config_(resolved(config)),
      device_(runnable(device_of(config))),
      gpu_(gpu_of(device_)),
      gpu_memory_before_(gpu_ == nullptr ? GpuMemory{} : gpu_->memory()),
      products_note_(take_products(gpu_.get(), products_folders, purpose)),
      program_(build_program(config_, program_inputs(config_), purpose)),
      plan_(make_plan(program_, device_, {red_zone_bytes})),
      arenas_(plan_, config.run.run.memory, gpu_.get()),
      executor_(program_, plan_, arenas_, kernel_table(device_.isa),
                {device_.threads, config.run.run.graph, config.run.run.tf32}) {
    prepare();
    warm_threads(device_.threads);
}

// What loops run: a step as a whole, evaluations and generations entry by entry.
void Session::prepare() {
    for (const Phase& phase : program_.phases) {
        const std::span<const Entry> entries = phase.entries;
        if (phase.kind == PhaseKind::step) executor_.prepare(entries);
        if (phase.kind != PhaseKind::evaluate && phase.kind != PhaseKind::generate) continue;
        for (size_t e = 0; e < entries.size(); ++e) executor_.prepare(entries.subspan(e, 1));
    }
}

double Session::peak_flops(Purpose purpose) const {
    const Dtype dtype = program_dtype(config_, purpose);
    return gpu_ == nullptr ? measure_peak_flops(device_.isa, device_.threads, dtype)
                           : gpu_peak_flops(gpu_->name(), dtype);
}

void Session::run_phase(PhaseKind kind) noexcept {
    const Phase* phase = program_.phase(kind);
    CHECK(phase != nullptr);
    executor_.run(phase->entries);
    executor_.finish();
}

void Session::run_section(SectionKind kind) noexcept {
    Entry entry;
    entry.section = program_.section(kind);
    CHECK(entry.section >= 0);
    executor_.run(entry);
    executor_.finish();
}

void Session::seal() {
    warm_threads(device_.threads);
    if (gpu_ != nullptr) gpu_memory_sealed_ = gpu_->memory();
    plumb::seal();
}

}  // namespace plumb
