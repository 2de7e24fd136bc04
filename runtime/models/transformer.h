// The decoder-only transformer, GPT-2 and Llama from one recording: the family's row says which
// norm, position encoding and feed-forward, the ModelSpec which biases and head. Parameters are
// declared once, in flat units (embedding, one per block, head); forward passes are recorded as
// often as sections need them.
//
// Parameter names, global shapes ([outputs, inputs] for every matrix):
//   embed.tokens VD   embed.positions SD (gpt2)
//   block.i.norm1.gain D (.bias D, gpt2)   block.i.norm2.* likewise
//   block.i.attention.{q,k,v,out}.weight (.bias)
//   block.i.mlp.{gate (llama), up, down}.weight (.bias)
//   final_norm.gain D (.bias D, gpt2)   head.weight VD (when not tied)
// Path: cold.
#pragma once

#include <functional>
#include <vector>

#include "runtime/config/run_config.h"
#include "runtime/program/builder.h"

namespace plumb {

class Transformer {
  public:
    // Declares the parameters into units of the builder and allocates them.
    Transformer(Builder& builder, const ModelSpec& model, const StateNeeds& needs);

    // Attention of block `layer` on qkv_BT((H+2G)K): over the sequence, or through a cache.
    using Attend = std::function<TensorId(int64_t layer, TensorId qkv)>;

    // Records tokens_BT -> hidden_BTD after the final norm, with recompute segments as asked. That
    // last norm is never recomputed: the backward begins with reading it, when the stash is full.
    TensorId hidden(TensorId tokens, TensorId positions, const Attend& attend,
                    const Recompute& recompute = {});

    // The head's weight_VD; tied or its own.
    TensorId head();

    AttentionAttrs attention_attrs() const;

  private:
    // What tells one family of models from another: a row per ModelType in transformer.cpp.
    struct Family {
        NormKind norm;
        bool norm_bias;
        bool learned_positions;     // added to the token's embedding
        bool rope;                  // positions turned into q and k
        bool gated_mlp;             // SwiGLU; otherwise GELU
        bool scaled_residual_init;  // residual projections start smaller, by their number
    };
    static const Family& family_of(ModelType type);

    struct Linear {
        ParamId weight = -1;
        ParamId bias = -1;
    };
    struct NormParams {
        ParamId gain = -1;
        ParamId bias = -1;
    };
    struct Block {
        NormParams norm1, norm2;
        Linear q, k, v, out, gate, up, down;
    };

    ParamId declare(const std::string& name, const Shape& shape, double deviation, double constant,
                    int uses = 1);
    ParamId declare_vector(bool present, const std::string& name, int64_t size, double constant);
    NormParams declare_norm(const std::string& name);
    Block declare_block(int64_t layer);
    TensorId norm(TensorId x, const NormParams& params);
    TensorId bias(const Linear& linear);
    TensorId attention_part(TensorId x, const Block& block, int64_t layer, TensorId positions,
                            const Attend& attend, RecomputeKind recompute);
    TensorId mlp_part(TensorId x, const Block& block, RecomputeKind recompute);
    // What `record` records, as one recompute segment if `again`.
    template <typename Record>
    TensorId segment(bool again, Record record);

    Builder& b_;
    ModelSpec model_;
    const Family& family_;
    ParamId tokens_ = -1;
    ParamId positions_ = -1;
    ParamId head_ = -1;
    NormParams final_norm_;
    std::vector<Block> blocks_;
};

}  // namespace plumb
