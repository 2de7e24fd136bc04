#include <new>

#include "kernels/cuda/prepare.h"
#include "tests/kernels/gpu/cuda_emulation.h"
#include "tests/kernels/gpu/gpu.h"

namespace plumb::testing::gpu {

std::optional<Isa> isa() {
    return Isa::sm80;
}

void* allocate(size_t size_bytes) {
    return ::operator new(size_bytes);
}

void release(void* memory) {
    ::operator delete(memory);
}

void run(Kernel kernel, const KernelArgs& args, bool reversed) {
    cuda::emulation::set_reversed(reversed);
    {
        const cuda::Preparing preparing;
        kernel(args);
    }
    kernel(args);
    cuda::emulation::set_reversed(false);
}

}  // namespace plumb::testing::gpu
