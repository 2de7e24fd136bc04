#include "trainer/lr_schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace plumb {

double learning_rate(const TrainSpec& train, int64_t step) noexcept {
    // Counting the step itself: 1 in the first step, so that no step has rate 0 for nothing.
    const int64_t done = step + 1;
    if (done <= train.warmup_steps)
        return train.lr * static_cast<double>(done) / static_cast<double>(train.warmup_steps);
    if (train.lr_schedule == LrSchedule::constant) return train.lr;
    int64_t first = train.warmup_steps;
    if (train.lr_schedule == LrSchedule::wsd)
        first = std::max(first, train.steps - train.decay_steps);
    if (done <= first) return train.lr;
    const int64_t falling = train.steps - first;
    if (done >= first + falling) return train.min_lr;
    const double progress = static_cast<double>(done - first) / static_cast<double>(falling);
    const double share = train.lr_schedule == LrSchedule::cosine
                             ? 0.5 * (1.0 + std::cos(std::numbers::pi * progress))
                             : 1.0 - progress;
    return train.min_lr + (train.lr - train.min_lr) * share;
}

}  // namespace plumb
