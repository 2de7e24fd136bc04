// Mean loss over a part of a token file, in micro-batches of the program's evaluate section: the
// training state is read, never changed.
// Path: hot.
#pragma once

#include "runtime/engine/data_loader.h"
#include "runtime/engine/session.h"

namespace plumb {

// Fills the io row of a micro-batch with consecutive sequences of the loader, the first of which
// has index `first`; returns the sum of their loss weights.
double fill_io_row(Session& session, const DataLoader& loader, int64_t first,
                   int32_t micro_batch) noexcept;

// Loss per unit of weight over `batch_count` micro-batches from the loader's start; fewer when its
// sequences end. Uses io rows and scratch: call between steps.
double evaluate(Session& session, const DataLoader& loader, int64_t batch_count) noexcept;

}  // namespace plumb
