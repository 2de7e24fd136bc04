// A parameter is declared once, by the model: canonical layout-free name, global shape, how it
// starts, whether it decays and trains, and the unit (usually one block) it belongs to. A unit's
// parameters lie end to end in declaration order in one flat buffer: the granule of the optimizer,
// of ZeRO slices and of gathers. Adjacent parameters can so be seen as one matrix (q, k, v).
// Path: cold.
#pragma once

#include <string>
#include <vector>

#include "runtime/program/op.h"

namespace plumb {

using ParamId = int32_t;
using UnitId = int32_t;
inline constexpr UnitId kNoUnit = -1;

// Initial values: normal with this deviation, keyed by (seed, name, global element), or a constant
// when deviation is 0.
struct InitRule {
    double deviation = 0.0;
    double constant = 0.0;
};

struct GradUse {
    TensorId grad = kNoTensor;
    TensorId part = kNoTensor;
};

struct Param {
    std::string name;
    Shape shape;
    InitRule init;
    bool decay = false;  // weight decay applies (matrices and embeddings, never 1-D)
    bool trainable = true;
    int32_t growable_dim = -1;  // the dim that may grow between checkpoint and run (vocabulary)
    UnitId unit = -1;
    int64_t unit_offset = 0;  // elements from the start of the unit
    TensorId weight = kNoTensor;
    TensorId master = kNoTensor;  // what completes a 16-bit weight to fp32 (op_table.h)
    TensorId grad = kNoTensor;
    // A tied parameter keeps one accumulator per further use in exact mode (a full tensor, with
    // its own micro-batch part), folded into `grad` once per step in order of use.
    std::vector<GradUse> further_uses;
    TensorId moment1 = kNoTensor;
    TensorId moment2 = kNoTensor;
    int64_t elements() const { return shape.elements(); }
    bool is_matrix() const { return shape.rank >= 2; }
};

// The elements of a unit: its matrices end to end in the order of declaration, then its 1-D
// parameters. Gradients and moments are flat over all of them. Matrices have the value dtype, 1-D
// parameters are always fp32, so weights are two tensors.
struct Unit {
    std::string name;
    int64_t elements = 0;
    int64_t matrix_elements = 0;
    std::vector<ParamId> params;     // in the order of their elements
    TensorId weight = kNoTensor;     // of the matrices
    TensorId master = kNoTensor;     // beside `weight`, when its dtype has fewer bits than fp32
    TensorId vectors = kNoTensor;    // weights of the 1-D parameters
    TensorId grad = kNoTensor;       // the step's sum
    TensorId grad_part = kNoTensor;  // one micro-batch's gradient (exact reduction only)
    TensorId moment1 = kNoTensor;
    TensorId moment2 = kNoTensor;
};

}  // namespace plumb
