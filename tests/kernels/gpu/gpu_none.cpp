#include <cstdlib>
#include <new>

#include "tests/kernels/gpu/gpu.h"

namespace plumb::testing::gpu {

std::optional<Isa> isa() {
    return {};
}

void* allocate(size_t size_bytes) {
    return ::operator new(size_bytes);
}

void release(void* memory) {
    ::operator delete(memory);
}

void run(Kernel, const KernelArgs&, bool) {
    CHECK_NOTE(false, "there is no GPU");
}

}  // namespace plumb::testing::gpu
