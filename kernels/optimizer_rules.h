// The few numbers that an update computes once, from one source for every device: clipping, the
// loss scale's next value and AdamW's rates. What the operands mean stands at ClipOperands,
// LossScaleOperands and AdamwOperands (runtime/program/op.h).
// Path: hot.
#pragma once

#include <cmath>

#include "runtime/base/host_device.h"
#include "runtime/program/op.h"

namespace plumb {

// `sum` of grad_norm; loss_scale_2 may be nullptr. Adds to clip_4[3].
HOST_DEVICE void make_clip(const int64_t* sum, const float* loss_scale_2, double limit,
                           double* clip_4) noexcept {
    // {low, high} * 2^-80; high < 2^63, each half exact or rounded once.
    const double low = static_cast<double>(static_cast<uint64_t>(sum[0])) * 0x1p-80;
    const double high = static_cast<double>(sum[1]) * 0x1p-16;
    // A power of two: dividing by it is exact.
    const double scale = loss_scale_2 == nullptr ? 1.0 : static_cast<double>(loss_scale_2[0]);
    const double norm = std::sqrt(high + low) / scale;
    const bool finite = sum[2] == 0;
    clip_4[0] = (limit > 0.0 && norm > limit ? limit / norm : 1.0) / scale;
    clip_4[1] = norm;
    clip_4[2] = finite ? 1.0 : 0.0;
    clip_4[3] += finite ? 0.0 : 1.0;
}

HOST_DEVICE void make_next_loss_scale(const double* clip_4, double window,
                                      float* state_2) noexcept {
    constexpr float kScaleMax = 0x1p24F;
    if (clip_4[2] == 0.0) {
        state_2[0] = state_2[0] > 2.0F ? state_2[0] * 0.5F : 1.0F;
        state_2[1] = 0.0F;
        return;
    }
    state_2[1] += 1.0F;
    if (static_cast<double>(state_2[1]) < window) return;
    state_2[0] = state_2[0] < kScaleMax ? state_2[0] * 2.0F : kScaleMax;
    state_2[1] = 0.0F;
}

struct AdamwRates {
    float scale;       // of the gradient
    float keep;        // 1 - lr * decay
    float beta1_left;  // 1 - beta1
    float beta2;
    float beta2_left;
    float step;          // lr / (1 - beta1^t)
    float root_inverse;  // 1 / sqrt(1 - beta2^t)
    float eps;
    int32_t finite;  // 0: the update is skipped
};

HOST_DEVICE AdamwRates adamw_rates(const StepScalars& s, const double* clip_4,
                                   bool decayed) noexcept {
    const double decay = decayed ? s.weight_decay : 0.0;
    const bool known = clip_4[3] == s.skipped_steps;
    const double correction1 = known ? s.bias_correction1 : s.bias_correction1_skipped;
    const double correction2 = known ? s.bias_correction2 : s.bias_correction2_skipped;
    return {static_cast<float>(clip_4[0]),
            static_cast<float>(1.0 - s.lr * decay),
            static_cast<float>(1.0 - s.beta1),
            static_cast<float>(s.beta2),
            static_cast<float>(1.0 - s.beta2),
            static_cast<float>(s.lr / correction1),
            static_cast<float>(1.0 / std::sqrt(correction2)),
            static_cast<float>(s.eps),
            clip_4[2] != 0.0 ? 1 : 0};
}

}  // namespace plumb
