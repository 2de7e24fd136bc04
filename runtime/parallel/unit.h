// What happens to flat units between backward passes and the next step: folding gradients in a
// fixed order, their global norm, clipping, and the optimizer over pieces of equal weight decay.
// A rank's share of a unit is a range of its flat elements (ZeRO); with one rank it is all of it.
// Path: cold.
#pragma once

#include "runtime/program/builder.h"

namespace plumb {

// Records, into the open `reduce` section, the addition of one micro-batch's gradient parts to the
// step's sums in order of micro-batches (exact reduction).
void record_fold_parts(Builder& builder);

// Records the update sections of a step, in the order in which they run. The first one folds
// further uses of tied parameters in order of use and makes the norm of all gradients and the clip
// factor and the next loss scale; then each unit has one, with AdamW: it may start while a save
// still reads later units. `sum` (4 i64) and `clip` (4 f64) are io tensors, `loss_scale` (2 f32) is
// state or kNoTensor.
std::vector<SectionId> record_update(Builder& builder, TensorId sum, TensorId clip,
                                     TensorId loss_scale);

}  // namespace plumb
