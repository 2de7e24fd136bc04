#include "perf/gpu_case.h"

#include <chrono>

namespace plumb::testing {

// gpu_copy.cpp, where CUDA is linked: CUDA's own copy within the GPU's memory.
[[gnu::weak]] void copy_within_gpu(void* to, const void* from, int64_t size_bytes,
                                   void* stream) noexcept;

namespace {

GpuBytes allocated(Gpu& gpu, int64_t size_bytes) {
    return {static_cast<char*>(gpu.allocate(size_bytes)), GpuRelease{&gpu}};
}

constexpr int64_t kAlign = 256;
// Operands up to this size get values that make sense together; larger ones are random numbers.
constexpr int64_t kElementsWithValues = 1 << 18;
// More sets than this would take longer to fill than to measure.
constexpr int64_t kSetsMax = 256;
constexpr int64_t kSetsBytesMax = 8 * kGiB;
constexpr int kSamples = 5;

double now() {
    using Clock = std::chrono::steady_clock;
    return std::chrono::duration<double>(Clock::now().time_since_epoch()).count();
}

template <typename T>
void put(char* to, T value) {
    std::memcpy(to, &value, sizeof value);
}

void put_value(Dtype dtype, char* to, double value) {
    switch (dtype) {
        case Dtype::f32:
            return put(to, static_cast<float>(value));
        case Dtype::f64:
            return put(to, value);
        case Dtype::i32:
            return put(to, static_cast<int32_t>(value));
        case Dtype::i64:
            return put(to, static_cast<int64_t>(value));
        case Dtype::u8:
            return put(to, static_cast<uint8_t>(static_cast<int64_t>(value)));
        case Dtype::u16:
            return put(to, static_cast<uint16_t>(static_cast<int64_t>(value)));
        case Dtype::bf16:
        case Dtype::f16:
            return put(to, half_bits(dtype, value));
    }
}

// Values of the small operands; those of large ones stay empty.
Values values_of_small(const KernelCase& c) {
    Values values(static_cast<size_t>(c.operands()));
    for (int i = 0; i < c.operands(); ++i) {
        if (c.shape[i].rank == 0 || c.shape[i].elements() > kElementsWithValues) continue;
        auto& v = values[static_cast<size_t>(i)];
        v.resize(static_cast<size_t>(c.shape[i].elements()));
        for (size_t j = 0; j < v.size(); ++j)
            v[j] = number(static_cast<uint64_t>(i), static_cast<int64_t>(j));
    }
    fill_special(c, 7, &values);
    set_bench_values(c, &values);
    round_operands(c, &values);
    return values;
}

}  // namespace

PinnedBytes::PinnedBytes(Gpu& gpu, int64_t size_bytes)
    : gpu_(gpu),
      size_bytes_(size_bytes),
      bytes_(static_cast<char*>(gpu.allocate_host(size_bytes))) {}

void PinnedBytes::fill(char* to, int64_t size_bytes) const noexcept {
    for (int64_t at = 0; at < size_bytes; at += size_bytes_)
        gpu_.copy_to_gpu(to + at, bytes_, std::min(size_bytes_, size_bytes - at), GpuLane::compute);
}

GpuBench::GpuBench(Gpu& on, Dtype dtype, bool smoke)
    : gpu(on),
      floats(on, (smoke ? 4 : 4096) * kKiB),
      halves(on, (smoke ? 2 : 2048) * kKiB),
      staging(on, kElementsWithValues * 8),
      rotation_bytes(smoke ? 1 : 128 * kMiB),
      least_s(smoke ? 0 : 0.02),
      calls(smoke ? 2 : 8) {
    const Dtype half = dtype == Dtype::f16 ? Dtype::f16 : Dtype::bf16;
    for (int64_t i = 0; i < (smoke ? 1 : 1024) * kKiB; ++i) {
        const double value = number(1, i);
        put_value(Dtype::f32, floats.data() + 4 * i, value);
        put_value(half, halves.data() + 2 * i, rounded_to(half, value));
    }
}

GpuCase::GpuCase(GpuBench& bench, const KernelCase& c)
    : bench_(bench), case_(c), kernel_(kernel_of(c.kind, c.value_dtype, bench.gpu.isa())) {
    for (int i = 0; i < c.operands(); ++i) {
        offset_[i] = set_bytes_;
        if (c.shape[i].rank > 0)
            set_bytes_ += align_up(c.shape[i].elements() * dtype_bytes(c.dtype(i)), kAlign);
    }
    DeviceRecord device;
    CHECK(named_device(device_name_of(bench.gpu.isa()).c_str(), 1, &device));
    scratch_bytes_ =
        align_up(kernel_traits(device.isa).scratch_bytes(c.op(), c.shape, device), kAlign);
    const auto moved = static_cast<int64_t>(std::max(1.0, bytes_of(c)));
    const int64_t sets_max = std::max<int64_t>(1, std::min(kSetsMax, kSetsBytesMax / set_bytes_));
    sets_ = std::min(ceil_div(bench.rotation_bytes, moved), sets_max);
    calls_ = align_up(bench.calls, sets_);
    const int64_t all_bytes =
        sets_ * set_bytes_ + scratch_bytes_ + static_cast<int64_t>(sizeof(StepScalars));
    memory_ = allocated(bench.gpu, all_bytes);
    // While memory is zeros: algorithms of products are chosen by running them on it.
    bench.gpu.begin_preparing();
    for (int64_t set = 0; set < sets_; ++set) call(set);
    bench.gpu.end_preparing();
    const Values values = values_of_small(c);
    for (int64_t set = 0; set < sets_; ++set) fill(set, values);
    const StepScalars scalars = test_scalars();
    std::memcpy(bench.staging.data(), &scalars, sizeof scalars);
    bench.gpu.copy_to_gpu(memory_.get() + sets_ * set_bytes_ + scratch_bytes_, bench.staging.data(),
                          sizeof scalars, GpuLane::compute);
    bench.gpu.host_wait(GpuLane::compute);
    bench.gpu.begin_capture(GpuLane::compute);
    for (int64_t n = 0; n < calls_; ++n) call(n % sets_);
    graph_ = bench.gpu.end_capture(GpuLane::compute);
}

void GpuCase::fill(int64_t set, const Values& values) {
    for (int i = 0; i < case_.operands(); ++i) {
        if (case_.shape[i].rank == 0) continue;
        const auto& v = values[static_cast<size_t>(i)];
        const Dtype dtype = case_.dtype(i);
        const int64_t element = dtype_bytes(dtype), size = case_.shape[i].elements() * element;
        if (case_.kind == OpKind::adamw && i == AdamwOperands::v) {
            bench_.gpu.fill(operand(set, i), 0x3C, size, GpuLane::compute);  // 0.0115: not negative
        } else if (v.empty()) {
            const PinnedBytes& pool = dtype == Dtype::f32 ? bench_.floats : bench_.halves;
            pool.fill(operand(set, i), size);
        } else {
            char* staging = bench_.staging.data();
            for (size_t j = 0; j < v.size(); ++j)
                put_value(dtype, staging + static_cast<int64_t>(j) * element, v[j]);
            bench_.gpu.copy_to_gpu(operand(set, i), staging, size, GpuLane::compute);
            bench_.gpu.host_wait(GpuLane::compute);  // the next operand uses it
        }
    }
}

void GpuCase::call(int64_t set) const noexcept {
    void* data[kMaxOperands] = {};
    for (int i = 0; i < case_.operands(); ++i)
        if (case_.shape[i].rank > 0) data[i] = operand(set, i);
    char* scratch = memory_.get() + sets_ * set_bytes_;
    const KernelArgs args{&case_.attrs,
                          case_.shape,
                          data,
                          scratch,
                          scratch_bytes_,
                          reinterpret_cast<StepScalars*>(scratch + scratch_bytes_),
                          case_.micro_batch,
                          1,
                          bench_.gpu.stream(GpuLane::compute)};
    kernel_(args);
}

double GpuCase::seconds_of(int64_t launches) const noexcept {
    const double start = now();
    for (int64_t n = 0; n < launches; ++n) bench_.gpu.launch(graph_, GpuLane::compute);
    bench_.gpu.host_wait(GpuLane::compute);
    return now() - start;
}

GpuCase::Time GpuCase::measure() noexcept {
    int64_t launches = 1;
    seconds_of(launches);
    while (seconds_of(launches) < bench_.least_s) launches *= 2;
    double times[kSamples];
    for (double& time : times) time = seconds_of(launches) / static_cast<double>(launches * calls_);
    std::sort(times, times + kSamples);
    return {times[kSamples / 2], times[0]};
}

double GpuLimits::copy_bandwidth() const {
    return std::max(fold_bandwidth, memcpy_bandwidth);
}

namespace {

double measure_memcpy(GpuBench& bench, int64_t size_bytes) {
    if (copy_within_gpu == nullptr) return 0;
    Gpu& gpu = bench.gpu;
    const GpuBytes memory = allocated(gpu, 2 * size_bytes);
    double best = 1e9;
    for (int sample = 0; sample <= kSamples; ++sample) {
        constexpr int kCopies = 40;  // some 20 ms of an H200
        const double start = now();
        for (int n = 0; n < kCopies; ++n)
            copy_within_gpu(memory.get(), memory.get() + size_bytes, size_bytes,
                            gpu.stream(GpuLane::compute));
        gpu.host_wait(GpuLane::compute);
        best = std::min(best, (now() - start) / kCopies);
    }
    return 2 * static_cast<double>(size_bytes) / best;
}

}  // namespace

GpuLimits measure_gpu_limits(GpuBench& bench, Dtype dtype, bool smoke) {
    const KernelCase stream = flat_case(OpKind::fold, smoke ? 4096 : 128 * kMiB);
    const int64_t side = smoke ? 64 : 8192;
    const KernelCase product =
        in_dtype(matmul_case(side, side, side, {false, false, false, false}), dtype);
    GpuLimits limits{};
    limits.fold_bandwidth = bytes_of(stream) / GpuCase(bench, stream).measure().best_s;
    limits.memcpy_bandwidth = measure_memcpy(bench, smoke ? kMiB : kGiB);
    limits.matrix_flops = flops_of(product) / GpuCase(bench, product).measure().best_s;
    return limits;
}

std::unique_ptr<Gpu> open_tuned_gpu() {
    std::unique_ptr<Gpu> gpu = open_gpu();
    CHECK(gpu->use_products("", true).empty());
    return gpu;
}

}  // namespace plumb::testing
