// The layout of the CUDA kernels' scratch, shared by the kernels and the traits. It depends on
// shapes only, never on the GPU, so that the bits of a result do not either.
// Path: hot.
#pragma once

#include "runtime/base/types.h"

namespace plumb::cuda {}  // namespace plumb::cuda
