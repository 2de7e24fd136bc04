#include "runtime/config/hf_config.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "runtime/base/error.h"
#include "runtime/config/settings.h"

namespace plumb {
namespace {

using Json = nlohmann::json;

constexpr int kMaxDepth = 32;

template <typename... Args>
[[noreturn]] void bad(const std::string& name, fmt::format_string<Args...> format, Args&&... args) {
    throw Error(ExitCode::bad_input,
                fmt::format("{}: {}", name, fmt::format(format, std::forward<Args>(args)...)));
}

Json parse_json(const std::string& text, const std::string& name) {
    const auto bounded = [&](int depth, Json::parse_event_t, Json&) {
        if (depth > kMaxDepth) bad(name, "nested more than {} levels deep", kMaxDepth);
        return true;
    };
    try {
        return Json::parse(text, bounded);
    } catch (const Json::parse_error& error) {
        const size_t at = std::min(error.byte > 0 ? error.byte - 1 : 0, text.size());
        const auto line =
            1 + std::count(text.begin(), text.begin() + static_cast<ptrdiff_t>(at), '\n');
        const size_t line_start = at == 0 ? std::string::npos : text.rfind('\n', at - 1);
        const size_t column = line_start == std::string::npos ? at + 1 : at - line_start;
        const std::string_view what = error.what();
        // what() is "[json.exception.parse_error.101] parse error at line 1, column 5: ..."
        const size_t detail = what.find(": ");
        bad(fmt::format("{}:{}:{}", name, line, column), "not JSON: {}",
            detail == std::string_view::npos ? what : what.substr(detail + 2));
    } catch (const Json::exception& error) {  // a number that is out of range
        bad(name, "not JSON: {}", error.what());
    }
}

SettingValue to_value(const Json& json, const std::string& where) {
    switch (json.type()) {
        case Json::value_t::number_unsigned:
            if (json.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX))
                bad(where, "the integer {} does not fit 63 bits", json.get<uint64_t>());
            return json.get<int64_t>();
        case Json::value_t::number_integer:
            return json.get<int64_t>();
        case Json::value_t::number_float:
            return json.get<double>();
        case Json::value_t::boolean:
            return json.get<bool>();
        case Json::value_t::string:
            return json.get<std::string>();
        case Json::value_t::array:
            return ForeignValue{"a list"};
        case Json::value_t::object:
            return ForeignValue{"a table"};
        default:
            return ForeignValue{"null"};
    }
}

std::string shown(const Json& json) {
    std::string text = json.dump(-1, ' ', true, Json::error_handler_t::replace);
    return text.size() <= 80 ? text : text.substr(0, 77) + "...";
}

// The value under `key`, or nullptr when it is absent or null: model_defaults() stands, and a size
// that has none there is asked for.
const Json* present(const Json& config, const char* key) {
    const auto at = config.find(key);
    return at == config.end() || at->is_null() ? nullptr : &*at;
}

// A key that changes the mathematics unless it holds this neutral value (JSON text).
struct Neutral {
    AppliesTo applies;
    const char* key;
    const char* value;
};

constexpr Neutral kNeutral[] = {
    {AppliesTo::gpt2, "scale_attn_weights", "true"},
    {AppliesTo::gpt2, "scale_attn_by_inverse_layer_idx", "false"},
    {AppliesTo::gpt2, "add_cross_attention", "false"},
    {AppliesTo::llama, "hidden_act", "\"silu\""},
    {AppliesTo::llama, "partial_rotary_factor", "1.0"},
    {AppliesTo::llama, "use_sliding_window", "false"},
    {AppliesTo::llama, "use_qk_norm", "false"},
    {AppliesTo::all, "is_encoder_decoder", "false"},
};

// Keys that may only be absent or null.
constexpr const char* kForeign[] = {
    "sliding_window",          "quantization_config",  "num_experts",
    "num_local_experts",       "n_routed_experts",     "attn_logit_softcapping",
    "final_logit_softcapping", "embedding_multiplier", "residual_multiplier",
    "attention_multiplier",    "logits_scaling",
};

void check_neutral(const Json& config, ModelType type, const std::string& name) {
    const auto wanted_type = type == ModelType::gpt2 ? AppliesTo::gpt2 : AppliesTo::llama;
    for (const Neutral& row : kNeutral) {
        const Json* value = present(config, row.key);
        const bool concerned = row.applies == AppliesTo::all || row.applies == wanted_type;
        if (concerned && value && *value != Json::parse(row.value))
            bad(name, "{} is {}; supported: {}", row.key, shown(*value), row.value);
    }
    for (const char* key : kForeign)
        if (const Json* value = present(config, key))
            bad(name, "{} is {}; it changes the model and is supported only when null", key,
                shown(*value));
    if (const Json* layers = present(config, "layer_types"))
        for (const Json& layer : *layers)
            if (layer != "full_attention")
                bad(name, "layer_types has {}; supported: \"full_attention\"", shown(layer));
    if (type != ModelType::gpt2) return;
    const Json* activation = present(config, "activation_function");
    if (activation && *activation != "gelu_new" && *activation != "gelu_pytorch_tanh")
        bad(name, "activation_function is {}; supported: \"gelu_new\", \"gelu_pytorch_tanh\"",
            shown(*activation));
}

void note_dropout(const Json& config, const std::string& name, std::vector<std::string>* notes) {
    std::string found;
    for (const char* key : {"embd_pdrop", "attn_pdrop", "resid_pdrop", "attention_dropout"}) {
        const Json* value = present(config, key);
        if (value && *value != 0)
            found += fmt::format("{}{} {}", found.empty() ? "" : ", ", key, shown(*value));
    }
    if (!found.empty())
        notes->push_back(fmt::format("{}: dropout is not applied ({})", name, found));
}

void read_key(RunConfig& config, const Setting& setting, const Json& value, const char* key,
              const std::string& name) {
    const std::string where = name + ": " + key;
    const bool token_list = value.is_array() && !value.empty() &&
                            std::string_view(key).find("_token_id") != std::string_view::npos;
    // Several end tokens: the first is the one that ends a document.
    const Json& single = token_list ? value.front() : value;
    assign(config, setting, {setting.key, where, to_value(single, where)});
}

// rope_scaling (transformers 4) and rope_parameters (5), when they say "no scaling".
void read_rope(RunConfig& config, const Json& json, const std::string& name) {
    for (const char* table_key : {"rope_scaling", "rope_parameters"}) {
        const Json* table = present(json, table_key);
        if (!table) continue;
        if (!table->is_object())
            bad(name, "{} is {}; it must be a table", table_key, shown(*table));
        for (const auto& [key, value] : table->items()) {
            const bool is_type = key == "rope_type" || key == "type";
            const bool is_neutral = (is_type && (value == "default" || value.is_null())) ||
                                    (key == "partial_rotary_factor" && value == 1.0);
            if (is_neutral) continue;
            if (key != "rope_theta")
                bad(name, "{} has {}: {}; only plain RoPE (rope_type \"default\") is supported",
                    table_key, shown(key), shown(value));
            read_key(config, *find_setting("model.rope_theta"), value, "rope_theta", name);
        }
    }
}

}  // namespace

ModelSpec parse_hf_config(const std::string& text, const std::string& name,
                          std::vector<std::string>* notes) {
    const Json json = parse_json(text, name);
    if (!json.is_object()) bad(name, "holds {}; it must be a table", shown(json));
    const Json* type_value = present(json, "model_type");
    if (!type_value || (*type_value != "gpt2" && *type_value != "llama"))
        bad(name, "model_type is {}; supported: \"gpt2\", \"llama\"",
            type_value ? shown(*type_value) : "missing");
    const ModelType type = *type_value == "gpt2" ? ModelType::gpt2 : ModelType::llama;
    check_neutral(json, type, name);
    if (notes) note_dropout(json, name, notes);

    RunConfig config;
    config.model = model_defaults(type);
    for (const Setting& setting : settings()) {
        constexpr std::string_view kModel = "model.";
        const std::string_view full = setting.key;
        if (full.rfind(kModel, 0) != 0 || full == "model.model_type" || !applies(setting, type))
            continue;
        const char* key = setting.key + kModel.size();
        const Json* value = present(json, key);
        const Json* short_value = type == ModelType::gpt2 && *setting.known_as
                                      ? present(json, setting.known_as)
                                      : nullptr;
        if (value && short_value && *value != *short_value)
            bad(name, "{} is {} but {} is {}; they must be equal", key, shown(*value),
                setting.known_as, shown(*short_value));
        if (value)
            read_key(config, setting, *value, key, name);
        else if (short_value)
            read_key(config, setting, *short_value, setting.known_as, name);
    }
    if (type == ModelType::llama) read_rope(config, json, name);
    // The first GPT-2 files call n_positions n_ctx.
    if (const Json* context = present(json, "n_ctx");
        context && type == ModelType::gpt2 && config.model.max_position_embeddings == 0)
        read_key(config, *find_setting("model.max_position_embeddings"), *context, "n_ctx", name);
    ModelSpec checked = config.model;
    complete_model(checked, name);
    return config.model;
}

ModelSpec load_hf_config(const std::string& path, std::vector<std::string>* notes) {
    return parse_hf_config(read_text_file(path), path, notes);
}

}  // namespace plumb
