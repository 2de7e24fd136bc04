// What a model is: the numbers of a Hugging Face config.json under their Hugging Face names, for
// the two families the transformer builder knows. GPT-2: learned positions, LayerNorm, GELU (tanh
// form), biases everywhere. Llama: RoPE, RMSNorm, SwiGLU, grouped-query attention, optional biases.
// There is no dropout. A spec that came out of load_run (run_config.h) is complete and consistent:
// no field still means "derive it". Counts of parameters and of flops live here because every
// program must report the same ones.
// Path: cold.
#pragma once

#include <string_view>

#include "runtime/base/types.h"

namespace plumb {

enum class ModelType : int32_t { gpt2, llama };

struct ModelSpec {
    ModelType model_type = ModelType::gpt2;
    int64_t vocab_size = 0;
    int64_t hidden_size = 0;
    int64_t num_hidden_layers = 0;
    int64_t num_attention_heads = 0;
    int64_t num_key_value_heads = 0;      // as read, 0: num_attention_heads
    int64_t head_dim = 0;                 // as read, 0: hidden_size / num_attention_heads
    int64_t intermediate_size = 0;        // HF gpt2: n_inner; as read, 0: 4 * hidden_size (gpt2)
    int64_t max_position_embeddings = 0;  // gpt2: rows of the position table
    double norm_eps = 1e-5;               // HF: layer_norm_epsilon (gpt2), rms_norm_eps (llama)
    double rope_theta = 0;                // llama only; 0 for gpt2
    bool tie_word_embeddings = true;      // the head is the token embedding
    bool attention_bias = true;           // q, k, v and output projections; always for gpt2
    bool mlp_bias = true;                 // feed-forward projections; always for gpt2
    double initializer_range = 0.02;      // standard deviation of initial weights
    int64_t bos_token_id = -1;            // -1: none
    int64_t eos_token_id = -1;

    bool operator==(const ModelSpec&) const = default;

    bool is_llama() const { return model_type == ModelType::llama; }
    int64_t attention_size() const { return num_attention_heads * head_dim; }
    int64_t key_value_size() const { return num_key_value_heads * head_dim; }
};

// A spec with Hugging Face's defaults of this family; sizes without a default are 0.
ModelSpec model_defaults(ModelType type);

const char* model_type_name(ModelType type);

// Fills in what may be derived (see the fields above), then checks what no single range can: sizes
// divide, heads group, RoPE pairs, token ids, products that must fit 63 bits. `where` names the
// source in errors. Throws Error (bad_input) with both numbers. Doing it twice changes nothing.
void complete_model(ModelSpec& model, std::string_view where);

// All parameters, each stored one once (a tied head is the embedding).
int64_t parameter_count(const ModelSpec& model);

// N of the flop count: weights that enter a matrix multiplication, once each. The head counts
// whether tied or not; embedding look-ups, biases and norm gains do not.
int64_t matmul_parameter_count(const ModelSpec& model);

// Model flops of training on one token, forward and backward, in sequences of `context` tokens:
// 6 N + 6 L C T, where C = heads * head_dim and causal attention does half of the T x T products.
// The one function behind every mfu that is printed. Recomputation is not counted.
double flops_per_token(const ModelSpec& model, int64_t context);

// Throws Error naming the token, where it was found and the vocabulary, unless 0 <= token < size.
void check_token_id(int64_t token, int64_t vocab_size, std::string_view where);

}  // namespace plumb
