// The logical tensors of a training state as a checkpoint sees them: one record per parameter and
// stream, in a fixed order: param, master_lo (bf16) or master (fp16), moment1, moment2 of each
// parameter in declaration order, then state. And how values of one dtype are loaded into another:
// every checkpoint of a model loads into every dtype, exactly where the values allow it.
// Path: cold.
#pragma once

#include <vector>

#include "formats/checkpoint_layout.h"
#include "runtime/program/param.h"

namespace plumb {

// `dtype`: the value dtype of the program that has this state.
std::vector<TensorRecord> state_records(const std::vector<Param>& params, bool training,
                                        Dtype dtype);

// Where the weights of one parameter lie: `weight` f32, bf16 or f16, and what completes 16 bits to
// an fp32 master (u16 beside bf16, f32 beside f16; nullptr when the session does not train).
struct WeightPlace {
    Dtype dtype;
    void* weight;
    void* master;
};

// Sets elements [first, first + count) from `values` of a stream: "param" (f32, bf16, f16) or
// "master" (f32) sets the whole value, rounded to what the place holds; "master_lo" (u16) adds the
// low half to the bf16 "param" that was put before.
void put_weights(const WeightPlace& place, int64_t first, int64_t count, const char* stream,
                 Dtype dtype, const void* values) noexcept;

}  // namespace plumb
