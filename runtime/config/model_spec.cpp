#include "runtime/config/model_spec.h"

#include <fmt/format.h>

#include "runtime/base/checked.h"

namespace plumb {
namespace {

template <typename... Args>
[[noreturn]] void bad_model(std::string_view where, fmt::format_string<Args...> format,
                            Args&&... args) {
    throw Error(ExitCode::bad_input, fmt::format("{}: model: {}", where,
                                                 fmt::format(format, std::forward<Args>(args)...)));
}

int64_t mul(int64_t a, int64_t b) {
    return checked_mul(a, b, "parameter count");
}

int64_t add(int64_t a, int64_t b) {
    return checked_add(a, b, "parameter count");
}

// Weights of the matrix multiplications of one block.
int64_t block_matmul_parameters(const ModelSpec& m) {
    const int64_t qkv_rows = add(m.attention_size(), 2 * m.key_value_size());
    const int64_t attention = mul(m.hidden_size, add(qkv_rows, m.attention_size()));
    const int64_t matrices = m.is_llama() ? 3 : 2;  // gate, up, down; or in, out
    return add(attention, mul(matrices, mul(m.hidden_size, m.intermediate_size)));
}

int64_t block_vector_parameters(const ModelSpec& m) {
    const int64_t norms = 2 * m.hidden_size * (m.is_llama() ? 1 : 2);
    const int64_t attention_biases = m.attention_size() + 2 * m.key_value_size() + m.hidden_size;
    const int64_t mlp_biases = m.intermediate_size * (m.is_llama() ? 2 : 1) + m.hidden_size;
    return norms + (m.attention_bias ? attention_biases : 0) + (m.mlp_bias ? mlp_biases : 0);
}

}  // namespace

ModelSpec model_defaults(ModelType type) {
    ModelSpec model;
    model.model_type = type;
    if (type == ModelType::llama) {
        model.norm_eps = 1e-6;
        model.rope_theta = 10000;
        model.tie_word_embeddings = false;
        model.attention_bias = false;
        model.mlp_bias = false;
    }
    return model;
}

const char* model_type_name(ModelType type) {
    return type == ModelType::gpt2 ? "gpt2" : "llama";
}

void complete_model(ModelSpec& m, std::string_view where) {
    const auto require = [&](int64_t value, const char* name, const char* gpt2_name) {
        if (value >= 1) return;
        const std::string also = !m.is_llama() && *gpt2_name ? fmt::format(" ({})", gpt2_name) : "";
        bad_model(where, "{}{} is missing; it must be at least 1", name, also);
    };
    require(m.vocab_size, "vocab_size", "");
    require(m.hidden_size, "hidden_size", "n_embd");
    require(m.num_hidden_layers, "num_hidden_layers", "n_layer");
    require(m.num_attention_heads, "num_attention_heads", "n_head");
    require(m.max_position_embeddings, "max_position_embeddings", "n_positions");
    if (m.hidden_size % m.num_attention_heads != 0)
        bad_model(where, "hidden_size {} is not divisible by num_attention_heads {}", m.hidden_size,
                  m.num_attention_heads);
    if (m.num_key_value_heads == 0) m.num_key_value_heads = m.num_attention_heads;
    if (m.head_dim == 0) m.head_dim = m.hidden_size / m.num_attention_heads;
    if (m.intermediate_size == 0 && !m.is_llama()) m.intermediate_size = 4 * m.hidden_size;
    require(m.intermediate_size, "intermediate_size", "n_inner");
    if (m.num_attention_heads % m.num_key_value_heads != 0)
        bad_model(where, "num_key_value_heads {} does not divide num_attention_heads {}",
                  m.num_key_value_heads, m.num_attention_heads);
    if (m.is_llama() && m.head_dim % 2 != 0)
        bad_model(where, "head_dim {} is odd; rotary embedding turns pairs, so it must be even",
                  m.head_dim);
    const bool gpt2_shape = m.num_key_value_heads == m.num_attention_heads &&
                            m.attention_size() == m.hidden_size && m.attention_bias && m.mlp_bias;
    if (!m.is_llama() && !gpt2_shape)
        bad_model(where,
                  "gpt2 has biases and heads * head_dim = hidden_size: found {} * {} and {} key "
                  "and value heads for hidden_size {}",
                  m.num_attention_heads, m.head_dim, m.num_key_value_heads, m.hidden_size);
    if (m.bos_token_id != -1)
        check_token_id(m.bos_token_id, m.vocab_size, fmt::format("{}: bos_token_id", where));
    if (m.eos_token_id != -1)
        check_token_id(m.eos_token_id, m.vocab_size, fmt::format("{}: eos_token_id", where));
    // Weights, gradients and two moments in fp32 must have a size at all.
    mul(parameter_count(m), 16);
}

int64_t parameter_count(const ModelSpec& m) {
    const int64_t vocabulary = mul(m.vocab_size, m.hidden_size);
    const int64_t positions = m.is_llama() ? 0 : mul(m.max_position_embeddings, m.hidden_size);
    const int64_t block = add(block_matmul_parameters(m), block_vector_parameters(m));
    const int64_t final_norm = m.hidden_size * (m.is_llama() ? 1 : 2);
    const int64_t ends = add(mul(m.tie_word_embeddings ? 1 : 2, vocabulary), positions);
    return add(add(mul(m.num_hidden_layers, block), ends), final_norm);
}

int64_t matmul_parameter_count(const ModelSpec& m) {
    return add(mul(m.num_hidden_layers, block_matmul_parameters(m)),
               mul(m.vocab_size, m.hidden_size));
}

double flops_per_token(const ModelSpec& m, int64_t context) {
    // Attention, forward: 2 products of 2 C flops for each of T/2 visible tokens; backward twice.
    const double attention = 6.0 * static_cast<double>(m.num_hidden_layers) *
                             static_cast<double>(m.attention_size()) * static_cast<double>(context);
    return 6.0 * static_cast<double>(matmul_parameter_count(m)) + attention;
}

void check_token_id(int64_t token, int64_t vocab_size, std::string_view where) {
    if (token >= 0 && token < vocab_size) return;
    throw Error(ExitCode::bad_input,
                fmt::format("{}: token id {} is outside the vocabulary; it must be from 0 to {}",
                            where, token, vocab_size - 1));
}

}  // namespace plumb
