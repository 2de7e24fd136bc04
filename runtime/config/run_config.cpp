#include "runtime/config/run_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <filesystem>

#include "runtime/base/checked.h"
#include "runtime/config/hf_config.h"
#include "runtime/config/presets.h"
#include "runtime/config/run_file.h"
#include "runtime/config/settings.h"

namespace plumb {
namespace {

template <typename... Args>
[[noreturn]] void bad(const std::string& where, fmt::format_string<Args...> format,
                      Args&&... args) {
    throw Error(ExitCode::bad_input,
                fmt::format("{}: {}", where, fmt::format(format, std::forward<Args>(args)...)));
}

[[noreturn]] void unknown_preset(const std::string& where, const std::string& name,
                                 const char* also) {
    std::vector<std::string> names;
    for (const Preset& preset : presets()) names.emplace_back(preset.name);
    bad(where, "no preset{} is called {}; the nearest is {}", also, quote(name.substr(0, 80)),
        nearest(name, names));
}

FoundValue parse_override(const std::string& argument) {
    const std::string body = argument.rfind("--", 0) == 0 ? argument.substr(2) : argument;
    // The argument is the place: it is what the user finds again in the command.
    const std::string where = argument.size() <= 200 && printable(argument) ? argument : "override";
    const size_t equals = body.find('=');
    if (equals == std::string::npos)
        bad(where, "settings are written --section.key=value; there is no '='");
    return {body.substr(0, equals), where, UntypedValue{body.substr(equals + 1)}};
}

// Where the model comes from: a preset, a config.json, or (kind none) only a [model] table.
struct Source {
    enum Kind { none, preset, path } kind = none;
    std::string text;
    std::string where;
};

// The last of the keys `preset` and `model`; one list must not hold both.
Source find_source(const std::vector<FoundValue>& values) {
    Source source;
    for (const FoundValue& found : values) {
        const auto* foreign = std::get_if<ForeignValue>(&found.value);
        if ((found.key != "preset" && found.key != "model") ||
            (foreign && foreign->type == kEmptyTable))
            continue;
        const auto kind = found.key == "preset" ? Source::preset : Source::path;
        if (source.kind != Source::none && source.kind != kind)
            bad(found.where, "preset and model are two models; give one");
        const auto* text = std::get_if<std::string>(&found.value);
        const auto* untyped = std::get_if<UntypedValue>(&found.value);
        if (!text && !untyped)
            bad(found.where, "{} is {}; it must be a text", found.key, describe(found.value));
        source = {kind, text ? *text : untyped->text, found.where};
    }
    return source;
}

ModelSpec source_model(const Source& source, const std::string& folder,
                       std::vector<std::string>* notes) {
    if (source.kind == Source::preset) {
        const Preset* preset = find_preset(source.text);
        if (!preset) unknown_preset(source.where, source.text, "");
        return preset->as_read;
    }
    return load_hf_config((std::filesystem::path(folder) / source.text).string(), notes);
}

// The model before its single settings: from the source, or the defaults of the given family.
ModelSpec base_model(const Source& source, const std::string& folder, const std::string& name,
                     const std::vector<FoundValue>& values, std::vector<std::string>* notes) {
    RunConfig scratch;
    const FoundValue* type = nullptr;
    for (const FoundValue& found : values) {
        if (found.key != "model.model_type") continue;
        assign(scratch, require_setting(found), found);
        type = &found;
    }
    if (source.kind == Source::none) {
        if (!type)
            bad(name,
                "no model: it needs preset = \"NAME\", model = \"PATH/config.json\", or a [model] "
                "table with model_type");
        return model_defaults(scratch.model.model_type);
    }
    const ModelSpec model = source_model(source, folder, notes);
    if (type && scratch.model.model_type != model.model_type)
        bad(type->where, "model.model_type is {}, but {} is {}; the family cannot be overridden",
            model_type_name(scratch.model.model_type), source.text,
            model_type_name(model.model_type));
    return model;
}

bool is_empty_section(const FoundValue& found) {
    const auto* foreign = std::get_if<ForeignValue>(&found.value);
    if (!foreign || foreign->type != kEmptyTable) return false;
    return std::any_of(settings().begin(), settings().end(), [&](const Setting& setting) {
        return std::string_view(setting.key).rfind(found.key + ".", 0) == 0;
    });
}

RunConfig build(std::vector<FoundValue> values, const std::string& name, const std::string& folder,
                const std::vector<std::string>& overrides) {
    std::vector<FoundValue> late;
    for (const std::string& argument : overrides) late.push_back(parse_override(argument));
    Source source = find_source(late);
    const bool overridden = source.kind != Source::none;
    if (!overridden) source = find_source(values);
    values.insert(values.end(), late.begin(), late.end());

    RunConfig config;
    config.model = base_model(source, overridden ? "" : folder, name, values, &config.notes);
    for (const FoundValue& found : values) {
        if (found.key == "preset" || found.key == "model" || is_empty_section(found)) continue;
        const Setting& setting = require_setting(found);
        if (!applies(setting, config.model.model_type))
            bad(found.where, "{} is not a setting of model_type {}", setting.key,
                model_type_name(config.model.model_type));
        assign(config, setting, found);
    }
    complete_run(config, name);
    return config;
}

// Each has entries in the schedule and rows of io in the plan.
constexpr int64_t kMostMicroBatches = 65536;

void complete_batch(RunConfig& config, const std::string& where) {
    BatchSpec& batch = config.run.batch;
    const ModelSpec& model = config.model;
    if (batch.sequence_length == 0) batch.sequence_length = model.max_position_embeddings;
    // RoPE extends past the trained context (badly); a table of learned positions has an end.
    if (!model.is_llama() && batch.sequence_length > model.max_position_embeddings)
        bad(where, "batch.sequence_length is {}; it must be at most max_position_embeddings, {}",
            batch.sequence_length, model.max_position_embeddings);
    if (batch.global_batch % batch.micro_batch != 0)
        bad(where, "batch.global_batch is {}; it must be a multiple of batch.micro_batch, {}",
            batch.global_batch, batch.micro_batch);
    if (batch.micro_batch_count() > kMostMicroBatches)
        bad(where,
            "batch.global_batch is {} and batch.micro_batch {}: {} micro-batches; a step has at "
            "most {}",
            batch.global_batch, batch.micro_batch, batch.micro_batch_count(), kMostMicroBatches);
    // 64 bytes for each layer, token and widest value: more than any step keeps.
    const int64_t width = std::max({model.hidden_size, 2 * model.intermediate_size,
                                    model.attention_size() + 2 * model.key_value_size()});
    checked_mul(checked_mul(batch.micro_batch_tokens(), model.num_hidden_layers, "tokens * layers"),
                checked_mul(width, 64, "bytes of a token"), "bytes of a micro-batch");
    checked_mul(config.run.train.steps, batch.step_tokens(), "train.steps * tokens of a step");
}

}  // namespace

int64_t automatic_loss_chunk(int64_t vocab_size, int64_t micro_batch_tokens, bool on_gpu) {
    const int64_t fitting = on_gpu ? static_cast<int64_t>(std::bit_floor(
                                         static_cast<uint64_t>(512 * kMiB / (vocab_size * 4))))
                                   : 32 * kMiB / (vocab_size * 4) / 16 * 16;
    return std::min(std::max<int64_t>(fitting, 16), micro_batch_tokens);
}

void complete_run(RunConfig& config, const std::string& where) {
    complete_model(config.model, where);
    check_ranges(config, where);
    complete_batch(config, where);
    TrainSpec& train = config.run.train;
    const int64_t micro_batch_tokens = config.run.batch.micro_batch_tokens();
    if (train.loss_chunk == 0)
        train.loss_chunk = automatic_loss_chunk(config.model.vocab_size, micro_batch_tokens,
                                                config.run.run.device.starts_with("cuda"));
    if (train.loss_chunk > micro_batch_tokens)
        bad(where, "train.loss_chunk is {}; it must be at most the tokens of a micro-batch, {}",
            train.loss_chunk, micro_batch_tokens);
    if (std::exp2(std::round(std::log2(train.loss_scale))) != train.loss_scale)
        bad(where, "train.loss_scale is {}; it must be a power of two", train.loss_scale);
    if (train.min_lr > train.lr)
        bad(where, "train.min_lr is {}; it must be at most train.lr, {}", train.min_lr, train.lr);
    if (train.warmup_steps == -1) train.warmup_steps = std::min<int64_t>(20, train.steps);
    if (train.warmup_steps > train.steps)
        bad(where, "train.warmup_steps is {}; it must be at most train.steps, {}",
            train.warmup_steps, train.steps);
    if (train.decay_steps == 0) train.decay_steps = std::max<int64_t>(1, train.steps / 10);
    if (train.decay_steps > train.steps)
        bad(where, "train.decay_steps is {}; it must be at most train.steps, {}", train.decay_steps,
            train.steps);
    if (config.run.checkpoint.dir.empty())
        bad(where, "checkpoint.dir is empty; it must name a folder, . for the current one");
    if (config.run.checkpoint.chunk_bytes % 16 != 0)
        bad(where, "checkpoint.chunk_bytes is {}; it must be a multiple of 16",
            config.run.checkpoint.chunk_bytes);
    const int64_t context = config.model.max_position_embeddings;
    if (config.run.generate.context == 0) config.run.generate.context = context;
    if (config.run.generate.context > context)
        bad(where, "generate.context is {}; it must be at most max_position_embeddings, {}",
            config.run.generate.context, context);
    int64_t& prefill = config.run.generate.prefill_chunk;
    if (prefill == 0) prefill = std::min<int64_t>(64, context);
    if (prefill > context)
        bad(where, "generate.prefill_chunk is {}; it must be at most max_position_embeddings, {}",
            prefill, context);
}

RunConfig parse_run(const std::string& text, const std::string& name, const std::string& folder,
                    const std::vector<std::string>& overrides) {
    return build(parse_run_file(text, name), name, folder, overrides);
}

RunConfig load_run(const std::string& name_or_file, const std::vector<std::string>& overrides) {
    if (find_preset(name_or_file))
        return build({{"preset", name_or_file, name_or_file}}, name_or_file, "", overrides);
    const std::filesystem::path path(name_or_file);
    const bool is_json = path.extension() == ".json";
    std::error_code ignored;
    const bool looks_like_file = is_json || path.extension() == ".toml" ||
                                 name_or_file.find('/') != std::string::npos ||
                                 std::filesystem::exists(path, ignored);
    if (!looks_like_file) unknown_preset(name_or_file, name_or_file, " or file");
    if (is_json) return build({{"model", name_or_file, name_or_file}}, name_or_file, "", overrides);
    return parse_run(read_text_file(name_or_file), name_or_file, path.parent_path().string(),
                     overrides);
}

}  // namespace plumb
