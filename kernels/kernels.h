// The kernels' one face. Every kernel has the same signature: operands by the positions of its
// *Operands enum (runtime/program/op.h), shapes already checked by the op table and asserted first
// thing in the kernel. Kernels allocate nothing, throw nothing, and split work over outputs, never
// over a sum, so that thread counts do not change bits. Kernels of a GPU only put launches on a
// stream: operands, scratch and scalars are addresses of the device, which the host never reads.
// Path: hot.
#pragma once

#include "runtime/base/check.h"
#include "runtime/program/kernel_traits.h"
#include "runtime/program/op.h"

namespace plumb {

struct KernelArgs {
    const Attrs* attrs;
    const Shape* shape;  // per operand; rank 0 when absent
    void* const* data;   // per operand; nullptr when absent
    void* scratch;       // traits.scratch_bytes(...) bytes, 64-byte aligned
    int64_t scratch_bytes;
    const StepScalars* scalars;
    int32_t micro_batch;
    int32_t threads;         // size of the OpenMP team to use; CPU only
    void* stream = nullptr;  // cudaStream_t to launch on; CUDA only
    bool tf32 = false;       // products of f32 may round their factors to tf32; CUDA only

    template <typename T>
    T* at(int operand) const {
        return static_cast<T*>(data[operand]);
    }
    bool has(int operand) const { return data[operand] != nullptr; }
};

using Kernel = void (*)(const KernelArgs&) noexcept;

// Kernels of one instruction set, indexed by OpKind and value_index(op.dtype); nullptr where an op
// has no such value dtype, and for host ops.
struct KernelTable {
    Isa isa;
    bool on_gpu;  // operands are addresses of a GPU's memory
    Kernel kernel[kOpKindCount][kValueDtypeCount];
};

// The best instruction set of this machine, and the table of any that it supports. A GPU's are
// there when CUDA is compiled in, or its emulation (tests).
Isa host_isa() noexcept;
bool has_kernels(Isa isa) noexcept;
const KernelTable& kernel_table(Isa isa) noexcept;

// Whether the device multiplies bf16 faster than fp32.
bool computes_in_bf16(const DeviceRecord& device) noexcept;

// Traits of the kernels of a device: one function for all CPUs, one for all GPUs (the record names
// which of them).
const KernelTraits& kernel_traits(Isa isa) noexcept;
const KernelTraits& cpu_traits() noexcept;
const KernelTraits& cuda_traits() noexcept;

// This machine, threads as given. Named "host".
DeviceRecord host_device(int32_t threads) noexcept;
// The names of fixed records, for plans that must not depend on the machine that makes them: number
// `index` from 0, nullptr behind the last.
const char* device_name(int index) noexcept;
// The record of one; false when the name is unknown.
bool named_device(const char* name, int32_t threads, DeviceRecord* record) noexcept;

// Peak flop/s of `threads` threads on values of a dtype: multiply-adds on registers only, best of
// several runs; of pairs of bf16 where the instruction set has them, of fp32 otherwise. Every "% of
// peak" of every program is over this one figure.
double measure_peak_flops(Isa isa, int32_t threads, Dtype dtype) noexcept;
// Sustained bytes/s of reading a buffer larger than the caches with `threads` threads.
double measure_read_bandwidth(int32_t threads, void* buffer, int64_t size_bytes) noexcept;

}  // namespace plumb
