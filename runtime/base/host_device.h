// HOST_DEVICE: a function that runs on the CPU and on the GPU, so that what both must agree on has
// one source. Always inlined: CPU kernels are compiled once per instruction set and must not leave
// a function that the linker could pick for another (scripts/check_isa_symbols.sh).
// Path: hot.
#pragma once

#ifdef __CUDACC__
#define HOST_DEVICE __host__ __device__ __forceinline__
#else
#define HOST_DEVICE [[gnu::always_inline]] inline
#endif
