// Autodiff: walks the tape of a forward section backwards and calls the gradient rule of each op,
// which records gradient ops into the backward section. A value's gradient is one tensor; values
// with several consumers accumulate in place. Parameters without a gradient (frozen) prune.
// Recompute segments are recorded again just before their gradients, from their saved boundary.
// Path: cold.
#pragma once

#include <vector>

#include "runtime/program/builder.h"

namespace plumb {

// What a gradient rule may ask. Tensor ids of the op given to a rule are already those that the
// backward section must read (recomputed ones where recomputed).
class Gradient {
  public:
    explicit Gradient(Builder& builder) : builder_(builder) {}

    Builder& builder() { return builder_; }

    // The gradient of a value, complete when the rule of its producer runs; kNoTensor when nothing
    // downstream needs it.
    TensorId of(TensorId value) const;

    // Whether the gradient of `value` leads to a trainable parameter.
    bool needed(TensorId value) const;

    // The tensor in which to put the gradient of `value`: *accumulate tells whether it already
    // holds a part of it.
    TensorId target(TensorId value, bool* accumulate);

    // The gradient of `from` is also (a part of) the gradient of `to`: moves the tensor, or adds it
    // when `to` has one already. `from`'s gradient must not be read afterwards.
    void hand_over(TensorId from, TensorId to);

    // The accumulator of a parameter's gradient (a view shaped like `weight`); kNoTensor when the
    // parameter is frozen or `weight` is kNoTensor.
    TensorId parameter(TensorId weight);

  private:
    friend void differentiate(Builder& builder, const std::vector<TapeEntry>& tape);
    Builder& builder_;
    std::vector<TensorId> gradient_;  // by tensor id
    std::vector<char> needed_;        // by tensor id
};

// Records the gradients of everything on the tape into the builder's open (backward) section.
void differentiate(Builder& builder, const std::vector<TapeEntry>& tape);

}  // namespace plumb
