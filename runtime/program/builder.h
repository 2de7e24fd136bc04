// The builder records programs: it declares units and parameters, opens sections, and appends ops
// whose shapes are checked against the op table at once and whose scratch is asked from the kernel
// traits. Models read like the paper: `x = b.norm(x, gain, bias)`. Names of tensors are made from
// the scope (scope("block.3")) and the op. Nothing here knows an address.
// Path: cold.
#pragma once

#include <initializer_list>
#include <span>
#include <string>
#include <vector>

#include "runtime/program/kernel_traits.h"
#include "runtime/program/op_table.h"
#include "runtime/program/program.h"

namespace plumb {

// What the tensors of a unit are needed for.
struct StateNeeds {
    bool training = true;         // gradients, moments and masters
    bool gradient_parts = false;  // one micro-batch's gradient apart (exact reduction)
    Dtype dtype = Dtype::f32;     // of matrices: f32, bf16 or f16
};

// An op of the forward pass as autodiff sees it: ops of one recompute segment share its number.
struct TapeEntry {
    Op op;
    int32_t segment = -1;
};

class Builder {
  public:
    Builder(const KernelTraits& traits, const DeviceRecord& device)
        : traits_(traits), device_(device) {}

    // Units and parameters. Parameters go to the unit opened last; allocate_units makes the flat
    // tensors once all are declared.
    void begin_unit(std::string name);
    ParamId declare(Param param, int uses = 1);
    void allocate_units(const StateNeeds& needs);

    // The weight of a parameter for its use number `use`.
    TensorId weight(ParamId param, int use = 0);
    // Adjacent parameters of equal trailing dims seen as one, their first dims added.
    TensorId weight(std::initializer_list<ParamId> params);
    // The accumulator of the gradient of a weight tensor made by weight(); kNoTensor when frozen.
    TensorId weight_grad(TensorId weight);

    // A view of one of a unit's tensors from the first element of `first`, a parameter of it, on.
    enum class UnitTensor : uint8_t { weight, master, grad, grad_part, moment1, moment2 };
    TensorId unit_view(std::string name, const Param& first, UnitTensor what, const Shape& shape);

    // A tensor by itself. Roles activation and saved belong to the open section.
    TensorId tensor(std::string name, Dtype dtype, const Shape& shape, Role role);
    // A part of another tensor's storage.
    TensorId view(std::string name, TensorId of, const Shape& shape, int64_t offset_bytes);

    // Sections. A forward section keeps a tape.
    SectionId begin_section(SectionKind kind, std::string name, int32_t chunk = 0,
                            UnitId unit = -1);
    void end_section();
    void scope(std::string prefix) { scope_ = std::move(prefix); }
    // Recorded again before its backward instead of saved; only its boundary is kept.
    void recompute_begin();
    void recompute_end();
    std::vector<TapeEntry> take_tape();

    // Appends an op; operands in the order of its *Operands enum.
    void record(OpKind kind, const Attrs& attrs, std::span<const TensorId> operands);
    void record(OpKind kind, const Attrs& attrs, std::initializer_list<TensorId> operands) {
        record(kind, attrs, std::span<const TensorId>(operands.begin(), operands.size()));
    }

    // Ops of models. Optional outputs nobody reads are dropped by finish().
    TensorId embed(TensorId wte, TensorId wpe, TensorId tokens, TensorId positions);
    TensorId norm(NormKind kind, double eps, TensorId x, TensorId gamma, TensorId beta);
    TensorId matmul(TensorId x, TensorId w, TensorId bias, TensorId residual = kNoTensor,
                    Activation activation = Activation::none);
    TensorId gelu(TensorId x);
    TensorId swiglu(TensorId gate_up);
    void rope(TensorId qkv, TensorId positions, const AttentionAttrs& attrs);
    TensorId attention(TensorId qkv, TensorId segment_start, const AttentionAttrs& attrs);
    TensorId attention_cached(TensorId qkv, TensorId k_cache, TensorId v_cache, TensorId positions,
                              TensorId sequences, const AttentionAttrs& attrs);
    void head_loss(TensorId loss, TensorId x, TensorId w, TensorId targets, TensorId loss_weights,
                   TensorId loss_scale, int64_t chunk);
    TensorId select_rows(TensorId x, TensorId rows);

    const Shape& shape(TensorId id) const { return at(id).shape; }
    const Tensor& at(TensorId id) const { return program_.tensors[static_cast<size_t>(id)]; }
    Program& program() { return program_; }
    const DeviceRecord& device() const { return device_; }

    // Drops optional outputs that nobody reads, marks what a later section reads as saved in its
    // slot class, and hands out the program.
    Program finish();

  private:
    friend void differentiate(Builder& builder, const std::vector<TapeEntry>& tape);
    void lay_out(Unit* unit);
    TensorId add_weight(const std::string& name, const Param& param, const Shape& shape, int use);
    TensorId make_activation(const char* what, const Shape& shape, Dtype dtype);
    Dtype value_dtype(const OpRow& row, const Op& op) const;
    void append(const Op& op);
    void drop_unread_outputs();
    void mark_saved();

    const KernelTraits& traits_;
    DeviceRecord device_;
    Program program_;
    StateNeeds needs_;
    bool allocated_ = false;
    std::vector<int32_t> use_of_;      // by tensor id: which use of its parameter a weight view is
    std::vector<TensorId> grad_view_;  // by tensor id of a weight view
    std::vector<TapeEntry> tape_;
    SectionId section_ = -1;
    std::string scope_;
    int32_t segment_ = -1;
    int32_t segment_count_ = 0;
};

}  // namespace plumb
