// The GPU of the tests, in one of three forms that CMake chooses: a real one (gpu_cuda.cpp, preset
// cuda), the emulation (gpu_emulated.cpp), or none (gpu_none.cpp, under sanitizers).
// Path: cold.
#pragma once

#include <cstddef>
#include <optional>

#include "kernels/kernels.h"

namespace plumb::testing::gpu {

// Whose kernels run; nothing where there is no GPU.
std::optional<Isa> isa();

// Memory that the host and the GPU can use.
void* allocate(size_t size_bytes);
void release(void* memory);

// Runs a kernel of the GPU to its end, as when it is bound first; `reversed`: whatever may happen
// in any order happens in the reversed one, where that can be chosen.
void run(Kernel kernel, const KernelArgs& args, bool reversed);

template <typename T>
struct Allocator {
    using value_type = T;
    Allocator() = default;
    template <typename U>
    explicit Allocator(const Allocator<U>&) {}
    T* allocate(size_t count) { return static_cast<T*>(gpu::allocate(count * sizeof(T))); }
    void deallocate(T* memory, size_t) { release(memory); }
    bool operator==(const Allocator&) const { return true; }
};

}  // namespace plumb::testing::gpu
