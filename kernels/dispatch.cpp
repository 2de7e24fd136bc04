#include <cstring>

#include "kernels/cpu/isa_tables.h"
#include "kernels/kernels.h"

namespace plumb {

namespace cuda {
// kernels/cuda, where it is linked: by builds with CUDA and by tests on the emulated GPU.
[[gnu::weak]] const KernelTable& table(Isa isa) noexcept;
}  // namespace cuda

namespace {

constexpr DeviceRecord kNamed[] = {
    {"cpu-portable", Isa::portable, 1}, {"cpu-avx2", Isa::avx2, 1},
    {"cpu-avx512", Isa::avx512, 1},     {"cpu-avx512_bf16", Isa::avx512_bf16, 1},
    {"cuda-sm80", Isa::sm80, 1},        {"cuda-sm90", Isa::sm90, 1},
};

}  // namespace

Isa host_isa() noexcept {
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
        return __builtin_cpu_supports("avx512bf16") ? Isa::avx512_bf16 : Isa::avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Isa::avx2;
    return Isa::portable;
}

bool has_kernels(Isa isa) noexcept {
    return is_cuda(isa) ? cuda::table != nullptr : isa <= host_isa();
}

const KernelTable& kernel_table(Isa isa) noexcept {
    CHECK_NOTE(has_kernels(isa), "instruction set not supported by this machine or program");
    if (is_cuda(isa)) return cuda::table(isa);
    if (isa == Isa::avx512_bf16) return cpu::avx512_bf16::table();
    if (isa == Isa::avx512) return cpu::avx512::table();
    if (isa == Isa::avx2) return cpu::avx2::table();
    return cpu::portable::table();
}

DeviceRecord host_device(int32_t threads) noexcept {
    return {"host", host_isa(), threads};
}

const char* device_name(int index) noexcept {
    constexpr int kCount = sizeof kNamed / sizeof *kNamed;
    return index < kCount ? kNamed[index].name : nullptr;
}

bool named_device(const char* name, int32_t threads, DeviceRecord* record) noexcept {
    for (const DeviceRecord& known : kNamed) {
        if (std::strcmp(known.name, name) != 0) continue;
        *record = known;
        record->threads = is_cuda(known.isa) ? 1 : threads;
        return true;
    }
    return false;
}

}  // namespace plumb
