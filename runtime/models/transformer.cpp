#include "runtime/models/transformer.h"

#include <cmath>

namespace plumb {

const Transformer::Family& Transformer::family_of(ModelType type) {
    static constexpr Family kFamilies[] = {
        // gpt2
        {.norm = NormKind::layer,
         .norm_bias = true,
         .learned_positions = true,
         .rope = false,
         .gated_mlp = false,
         .scaled_residual_init = true},
        // llama
        {.norm = NormKind::rms,
         .norm_bias = false,
         .learned_positions = false,
         .rope = true,
         .gated_mlp = true,
         .scaled_residual_init = false},
    };
    static_assert(static_cast<int>(ModelType::gpt2) == 0 &&
                  static_cast<int>(ModelType::llama) == 1);
    return kFamilies[static_cast<int>(type)];
}

Transformer::Transformer(Builder& builder, const ModelSpec& model, const StateNeeds& needs)
    : b_(builder), model_(model), family_(family_of(model.model_type)) {
    const double deviation = model.initializer_range;
    b_.begin_unit("embed");
    tokens_ = declare("embed.tokens", make_shape(model.vocab_size, model.hidden_size), deviation,
                      0.0, model.tie_word_embeddings ? 2 : 1);
    if (family_.learned_positions)
        positions_ =
            declare("embed.positions", make_shape(model.max_position_embeddings, model.hidden_size),
                    deviation, 0.0);
    for (int64_t layer = 0; layer < model.num_hidden_layers; ++layer) {
        b_.begin_unit("block." + std::to_string(layer));
        blocks_.push_back(declare_block(layer));
    }
    b_.begin_unit("head");
    final_norm_ = declare_norm("final_norm");
    if (!model.tie_word_embeddings)
        head_ =
            declare("head.weight", make_shape(model.vocab_size, model.hidden_size), deviation, 0.0);
    b_.allocate_units(needs);
}

ParamId Transformer::declare(const std::string& name, const Shape& shape, double deviation,
                             double constant, int uses) {
    Param param;
    param.name = name;
    param.shape = shape;
    param.init = {deviation, constant};
    param.decay = shape.rank >= 2;
    return b_.declare(std::move(param), uses);
}

ParamId Transformer::declare_vector(bool present, const std::string& name, int64_t size,
                                    double constant) {
    return present ? declare(name, make_shape(size), 0.0, constant) : -1;
}

Transformer::NormParams Transformer::declare_norm(const std::string& name) {
    NormParams params;
    params.gain = declare_vector(true, name + ".gain", model_.hidden_size, 1.0);
    params.bias = declare_vector(family_.norm_bias, name + ".bias", model_.hidden_size, 0.0);
    return params;
}

// The order matters: q, k, v and gate, up lie adjacent, so that each group is one matrix.
Transformer::Block Transformer::declare_block(int64_t layer) {
    const std::string prefix = "block." + std::to_string(layer) + ".";
    const int64_t hidden = model_.hidden_size;
    const int64_t q_size = model_.attention_size();
    const int64_t kv_size = model_.key_value_size();
    const int64_t mlp_size = model_.intermediate_size;
    const double deviation = model_.initializer_range;
    // GPT-2 (Radford et al. 2019): residual projections start smaller, by the number of them.
    const double residual_deviation =
        family_.scaled_residual_init
            ? deviation / std::sqrt(2.0 * static_cast<double>(model_.num_hidden_layers))
            : deviation;
    const auto matrix = [&](const char* name, int64_t outputs, int64_t inputs, double sigma) {
        return declare(prefix + name + ".weight", make_shape(outputs, inputs), sigma, 0.0);
    };
    const auto attention_bias = [&](const char* name, int64_t size) {
        return declare_vector(model_.attention_bias, prefix + name + ".bias", size, 0.0);
    };
    const auto mlp_bias = [&](const char* name, int64_t size) {
        return declare_vector(model_.mlp_bias, prefix + name + ".bias", size, 0.0);
    };
    Block block;
    block.norm1 = declare_norm(prefix + "norm1");
    block.q.weight = matrix("attention.q", q_size, hidden, deviation);
    block.k.weight = matrix("attention.k", kv_size, hidden, deviation);
    block.v.weight = matrix("attention.v", kv_size, hidden, deviation);
    block.q.bias = attention_bias("attention.q", q_size);
    block.k.bias = attention_bias("attention.k", kv_size);
    block.v.bias = attention_bias("attention.v", kv_size);
    block.out.weight = matrix("attention.out", hidden, q_size, residual_deviation);
    block.out.bias = attention_bias("attention.out", hidden);
    block.norm2 = declare_norm(prefix + "norm2");
    if (family_.gated_mlp) block.gate.weight = matrix("mlp.gate", mlp_size, hidden, deviation);
    block.up.weight = matrix("mlp.up", mlp_size, hidden, deviation);
    if (family_.gated_mlp) block.gate.bias = mlp_bias("mlp.gate", mlp_size);
    block.up.bias = mlp_bias("mlp.up", mlp_size);
    block.down.weight = matrix("mlp.down", hidden, mlp_size, residual_deviation);
    block.down.bias = mlp_bias("mlp.down", hidden);
    return block;
}

TensorId Transformer::bias(const Linear& linear) {
    return linear.bias < 0 ? kNoTensor : b_.weight(linear.bias);
}

TensorId Transformer::norm(TensorId x, const NormParams& params) {
    return b_.norm(family_.norm, model_.norm_eps, x, b_.weight(params.gain),
                   params.bias < 0 ? kNoTensor : b_.weight(params.bias));
}

AttentionAttrs Transformer::attention_attrs() const {
    AttentionAttrs attrs{};
    attrs.scale = 1.0 / std::sqrt(static_cast<double>(model_.head_dim));
    attrs.rope_theta = model_.rope_theta;
    attrs.heads = static_cast<int32_t>(model_.num_attention_heads);
    attrs.kv_heads = static_cast<int32_t>(model_.num_key_value_heads);
    attrs.head_size = static_cast<int32_t>(model_.head_dim);
    return attrs;
}

template <typename Record>
TensorId Transformer::segment(bool again, Record record) {
    if (again) b_.recompute_begin();
    const TensorId y = record();
    if (again) b_.recompute_end();
    return y;
}

// A segment holds what is recomputed and the matmul that consumes it: its product leaves the
// segment, so it is saved and not made again, while nothing else outlives the forward.
TensorId Transformer::attention_part(TensorId x, const Block& block, int64_t layer,
                                     TensorId positions, const Attend& attend,
                                     RecomputeKind recompute) {
    const TensorId w = b_.weight({block.q.weight, block.k.weight, block.v.weight});
    const TensorId qkv_bias =
        block.q.bias < 0 ? kNoTensor : b_.weight({block.q.bias, block.k.bias, block.v.bias});
    const TensorId qkv = segment(recompute == RecomputeKind::selective,
                                 [&] { return b_.matmul(norm(x, block.norm1), w, qkv_bias); });
    if (family_.rope) b_.rope(qkv, positions, attention_attrs());
    return segment(recompute == RecomputeKind::attention, [&] {
        return b_.matmul(attend(layer, qkv), b_.weight(block.out.weight), bias(block.out), x);
    });
}

TensorId Transformer::mlp_part(TensorId x, const Block& block, RecomputeKind recompute) {
    const bool again = recompute == RecomputeKind::selective;
    // GELU is an epilogue of its matmul, except where it must be computed again without it.
    const TensorId h = segment(again, [&] {
        const TensorId y = norm(x, block.norm2);
        if (!family_.gated_mlp)
            return b_.matmul(y, b_.weight(block.up.weight), bias(block.up), kNoTensor,
                             again ? Activation::none : Activation::gelu_tanh);
        const TensorId gate_up_bias =
            block.up.bias < 0 ? kNoTensor : b_.weight({block.gate.bias, block.up.bias});
        return b_.matmul(y, b_.weight({block.gate.weight, block.up.weight}), gate_up_bias);
    });
    return segment(again, [&] {
        const TensorId y = family_.gated_mlp ? b_.swiglu(h) : again ? b_.gelu(h) : h;
        return b_.matmul(y, b_.weight(block.down.weight), bias(block.down), x);
    });
}

TensorId Transformer::hidden(TensorId tokens, TensorId positions, const Attend& attend,
                             const Recompute& recompute) {
    b_.scope("embed");
    const TensorId wpe = positions_ < 0 ? kNoTensor : b_.weight(positions_);
    TensorId x = b_.embed(b_.weight(tokens_), wpe, tokens, positions);
    const auto layers = static_cast<int64_t>(blocks_.size());
    for (int64_t layer = 0; layer < layers; ++layer) {
        b_.scope("block." + std::to_string(layer));
        const Block& block = blocks_[static_cast<size_t>(layer)];
        const bool by_blocks = recompute.kind == RecomputeKind::block;
        if (by_blocks && layer % recompute.blocks == 0) b_.recompute_begin();
        x = attention_part(x, block, layer, positions, attend, recompute.kind);
        x = mlp_part(x, block, recompute.kind);
        if (by_blocks && ((layer + 1) % recompute.blocks == 0 || layer + 1 == layers))
            b_.recompute_end();
    }
    b_.scope("head");
    return norm(x, final_norm_);
}

TensorId Transformer::head() {
    return head_ < 0 ? b_.weight(tokens_, 1) : b_.weight(head_);
}

}  // namespace plumb
