// The learning rate of every step as a pure function of the step and the settings, so that a
// resumed run continues where it was. Warm-up rises linearly over the first warmup_steps and
// reaches lr in the last of them; after it lr falls to min_lr, which is reached in the last step:
// cosine (Loshchilov & Hutter 2017), linear, constant (never falls) or wsd (constant, then linear
// over the last decay_steps; Hu et al. 2024).
// Path: hot.
#pragma once

#include "runtime/config/run_spec.h"

namespace plumb {

// `step` counts from 0 and may lie beyond train.steps (min_lr, or lr when constant).
double learning_rate(const TrainSpec& train, int64_t step) noexcept;

}  // namespace plumb
