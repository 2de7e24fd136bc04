#include "runtime/config/presets.h"

namespace plumb {
namespace {

ModelSpec gpt2(int64_t vocab, int64_t context, int64_t hidden, int64_t layers, int64_t heads) {
    ModelSpec m = model_defaults(ModelType::gpt2);
    m.vocab_size = vocab;
    m.max_position_embeddings = context;
    m.hidden_size = hidden;
    m.num_hidden_layers = layers;
    m.num_attention_heads = heads;
    if (vocab == 50257) m.bos_token_id = m.eos_token_id = 50256;
    return m;
}

ModelSpec llama2(int64_t hidden, int64_t layers, int64_t heads, int64_t kv_heads, int64_t ffn) {
    ModelSpec m = model_defaults(ModelType::llama);
    m.vocab_size = 32000;
    m.max_position_embeddings = 4096;
    m.hidden_size = hidden;
    m.num_hidden_layers = layers;
    m.num_attention_heads = heads;
    m.num_key_value_heads = kv_heads;
    m.intermediate_size = ffn;
    m.norm_eps = 1e-5;
    m.bos_token_id = 1;
    m.eos_token_id = 2;
    return m;
}

ModelSpec llama3(int64_t hidden, int64_t layers, int64_t heads, int64_t kv_heads, int64_t ffn) {
    ModelSpec m = llama2(hidden, layers, heads, kv_heads, ffn);
    m.vocab_size = 128256;
    m.max_position_embeddings = 8192;
    m.rope_theta = 500000;
    m.bos_token_id = 128000;
    m.eos_token_id = 128001;
    return m;
}

std::vector<Preset> make_presets() {
    std::vector<Preset> rows = {
        {"tiny", "bytes as tokens; trains in minutes on two cores", gpt2(256, 256, 128, 4, 4), {}},
        {"gpt2-124m", "GPT-2 small", gpt2(50257, 1024, 768, 12, 12), {}},
        {"gpt2-355m", "GPT-2 medium", gpt2(50257, 1024, 1024, 24, 16), {}},
        {"gpt2-774m", "GPT-2 large", gpt2(50257, 1024, 1280, 36, 20), {}},
        {"gpt2-1558m", "GPT-2 XL", gpt2(50257, 1024, 1600, 48, 25), {}},
        // Table 2.1 of the GPT-3 paper says d_model 5140, but also 40 heads of 128, which is 5120.
        // Its alternating sparse attention is dense here.
        {"gpt3-13b",
         "GPT-3 13B; hidden 40 x 128 = 5120 (the paper's 5140 is not), dense attention",
         gpt2(50257, 2048, 5120, 40, 40),
         {}},
        {"gpt3-175b", "GPT-3 175B, dense attention", gpt2(50257, 2048, 12288, 96, 96), {}},
        // OPT has ReLU and two unused rows in its position table.
        {"opt-1.3b", "the shape of OPT-1.3B, with GELU", gpt2(50272, 2048, 2048, 24, 32), {}},
        {"llama2-7b", "Llama 2 7B", llama2(4096, 32, 32, 32, 11008), {}},
        {"llama2-13b", "Llama 2 13B", llama2(5120, 40, 40, 40, 13824), {}},
        {"llama2-70b", "Llama 2 70B", llama2(8192, 80, 64, 8, 28672), {}},
        {"llama3-8b", "Llama 3 8B", llama3(4096, 32, 32, 8, 14336), {}},
    };
    for (Preset& row : rows) {
        row.model = row.as_read;
        complete_model(row.model, row.name);
    }
    return rows;
}

}  // namespace

const std::vector<Preset>& presets() {
    static const std::vector<Preset> rows = make_presets();
    return rows;
}

const Preset* find_preset(const std::string& name) {
    for (const Preset& row : presets())
        if (row.name == name) return &row;
    return nullptr;
}

}  // namespace plumb
