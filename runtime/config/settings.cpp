#include "runtime/config/settings.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cstring>

#include "runtime/base/error.h"

namespace plumb {
namespace {

constexpr std::array<const char*, 2> kModelTypes = {"gpt2", "llama"};
constexpr std::array<const char*, 2> kReductions = {"fast", "exact"};
constexpr std::array<const char*, 4> kDtypes = {"auto", "fp32", "bf16", "fp16"};
constexpr std::array<const char*, 3> kRecomputeKinds = {"none", "selective", "attention"};
constexpr std::array<const char*, 4> kLrSchedules = {"cosine", "linear", "constant", "wsd"};

[[noreturn]] void not_supported(const std::string& where, std::string_view key,
                                const std::string& found, const std::string& supported) {
    throw Error(ExitCode::bad_input, fmt::format("{}: not supported yet: {} found {}, supported {}",
                                                 where, key, found, supported));
}

[[noreturn]] void not_a_value(const std::string& where, std::string_view key,
                              const std::string& text, std::string_view values) {
    throw Error(ExitCode::bad_input,
                fmt::format("{}: {} is {}; it must be {}", where, key, quote(text), values));
}

// The enum whose value is the index of `text` in `names`.
template <typename Enum, size_t count>
Enum choose(const std::array<const char*, count>& names, const std::string& text,
            const std::string& where, const char* key) {
    for (size_t i = 0; i < count; ++i)
        if (text == names[i]) return static_cast<Enum>(i);
    not_a_value(where, key, text, fmt::format("one of {}", fmt::join(names, ", ")));
}

template <typename Enum, size_t count>
std::string name_of(const std::array<const char*, count>& names, Enum value) {
    return quote(names[static_cast<size_t>(value)]);
}

void parse_model_type(RunConfig& c, const std::string& text, const std::string& where) {
    c.model.model_type = choose<ModelType>(kModelTypes, text, where, "model.model_type");
}

void parse_reduction(RunConfig& c, const std::string& text, const std::string& where) {
    c.layout.reduction = choose<Reduction>(kReductions, text, where, "layout.reduction");
}

void parse_lr_schedule(RunConfig& c, const std::string& text, const std::string& where) {
    c.run.train.lr_schedule = choose<LrSchedule>(kLrSchedules, text, where, "train.lr_schedule");
}

void parse_train_dtype(RunConfig& c, const std::string& text, const std::string& where) {
    c.run.train.dtype = choose<ComputeDtype>(kDtypes, text, where, "train.dtype");
}

void parse_generate_dtype(RunConfig& c, const std::string& text, const std::string& where) {
    c.run.generate.dtype = choose<ComputeDtype>(kDtypes, text, where, "generate.dtype");
}

void parse_schedule(RunConfig& c, const std::string& text, const std::string& where) {
    if (text == "gpipe" || text == "zb-h1" || text.rfind("interleaved:", 0) == 0)
        not_supported(where, "layout.schedule", quote(text), "\"1f1b\"");
    if (text != "1f1b") not_a_value(where, "layout.schedule", text, "1f1b");
    c.layout.schedule = text;
}

void parse_recompute(RunConfig& c, const std::string& text, const std::string& where) {
    for (size_t i = 0; i < kRecomputeKinds.size(); ++i) {
        if (text != kRecomputeKinds[i]) continue;
        c.layout.recompute = {static_cast<RecomputeKind>(i), 0};
        return;
    }
    int64_t blocks = 0;
    const char* end = text.data() + text.size();
    const bool is_block = text.rfind("block:", 0) == 0;
    const auto parsed = is_block ? std::from_chars(text.data() + std::strlen("block:"), end, blocks)
                                 : std::from_chars_result{end, std::errc::invalid_argument};
    if (parsed.ec != std::errc() || parsed.ptr != end || blocks < 1 || blocks > (1 << 16))
        not_a_value(where, "layout.recompute", text,
                    fmt::format("one of {}, or block:K with K from 1 to 65536",
                                fmt::join(kRecomputeKinds, ", ")));
    c.layout.recompute = {RecomputeKind::block, blocks};
}

std::string print_recompute(const RunConfig& c) {
    const Recompute& recompute = c.layout.recompute;
    if (recompute.kind == RecomputeKind::block)
        return fmt::format("\"block:{}\"", recompute.blocks);
    return quote(kRecomputeKinds[static_cast<size_t>(recompute.kind)]);
}

// Largest values: token ids are int32; the others keep every product of a transformer's sizes
// within the checked arithmetic that complete_model does.
constexpr double kMostTokens = 2147483647;
constexpr double kMostSteps = 1e12;
constexpr double kMostSize = 1 << 24;
constexpr double kMostRanks = 1 << 20;

constexpr Limits range(double least, double most) {
    return {least, most};
}
constexpr Limits only(double value, double least, double most) {
    return {least, most, false, true, value};
}
constexpr Limits size(double least, double most) {
    return {least, most, true};
}

#define FIELD(member) [](RunConfig& c) { return &c.member; }

using enum HashGroup;

std::vector<Setting> model_settings() {
    constexpr auto gpt2 = AppliesTo::gpt2;
    constexpr auto llama = AppliesTo::llama;
    constexpr auto all = AppliesTo::all;
    return {
        {"model.model_type",
         CodedField{parse_model_type,
                    [](const RunConfig& c) { return name_of(kModelTypes, c.model.model_type); }},
         model,
         {},
         "gpt2, llama",
         "family of the architecture"},
        {"model.vocab_size", FIELD(model.vocab_size), model, range(1, kMostTokens), "tokens",
         "size of the vocabulary"},
        {"model.hidden_size", FIELD(model.hidden_size), model, range(1, kMostSize), "",
         "width of the residual stream", "n_embd"},
        {"model.num_hidden_layers", FIELD(model.num_hidden_layers), model, range(1, 4096), "blocks",
         "number of transformer blocks", "n_layer"},
        {"model.num_attention_heads", FIELD(model.num_attention_heads), model, range(1, 1 << 16),
         "heads", "query heads; divides hidden_size", "n_head"},
        {"model.num_key_value_heads", FIELD(model.num_key_value_heads), model, range(0, 1 << 16),
         "heads", "key and value heads; divides num_attention_heads; 0: as many", "", llama},
        {"model.head_dim", FIELD(model.head_dim), model, range(0, 1 << 16), "",
         "size of a head; 0: hidden_size / num_attention_heads", "", llama},
        {"model.intermediate_size", FIELD(model.intermediate_size), model, range(0, kMostSize), "",
         "width of the feed-forward layer; 0: 4 * hidden_size (gpt2)", "n_inner"},
        {"model.max_position_embeddings", FIELD(model.max_position_embeddings), model,
         range(1, kMostTokens), "tokens", "longest context; for gpt2, rows of the position table",
         "n_positions"},
        {"model.layer_norm_epsilon", FIELD(model.norm_eps), model, range(0, 1), "",
         "added to the variance in LayerNorm", "", gpt2},
        {"model.rms_norm_eps", FIELD(model.norm_eps), model, range(0, 1), "",
         "added to the mean square in RMSNorm", "", llama},
        {"model.rope_theta", FIELD(model.rope_theta), model, range(1, 1e12), "",
         "base of the rotary angles", "", llama},
        {"model.tie_word_embeddings",
         FIELD(model.tie_word_embeddings),
         model,
         {},
         "",
         "the head is the token embedding",
         "",
         all},
        {"model.attention_bias",
         FIELD(model.attention_bias),
         model,
         {},
         "",
         "biases in the attention projections (gpt2 always has them)",
         "",
         llama},
        {"model.mlp_bias",
         FIELD(model.mlp_bias),
         model,
         {},
         "",
         "biases in the feed-forward projections (gpt2 always has them)",
         "",
         llama},
        {"model.initializer_range", FIELD(model.initializer_range), training, range(0, 10), "",
         "standard deviation of initial weights", "", all},
        {"model.bos_token_id", FIELD(model.bos_token_id), none, range(-1, kMostTokens), "token",
         "first token of a text; -1: none", "", all},
        {"model.eos_token_id", FIELD(model.eos_token_id), none, range(-1, kMostTokens), "token",
         "last token of a text; -1: none", "", all},
    };
}

std::vector<Setting> layout_settings() {
    return {
        {"layout.data", FIELD(layout.data), layout, only(1, 1, kMostRanks), "ranks",
         "replicas that share the batch", "Megatron: data parallel size"},
        {"layout.pipeline", FIELD(layout.pipeline), layout, only(1, 1, kMostRanks), "stages",
         "stages of consecutive blocks", "Megatron: pipeline_model_parallel_size"},
        {"layout.tensor", FIELD(layout.tensor), layout, only(1, 1, kMostRanks), "ranks",
         "ranks that split each matrix", "Megatron: tensor_model_parallel_size"},
        {"layout.context", FIELD(layout.context), layout, only(1, 1, kMostRanks), "ranks",
         "ranks that split each sequence", "Megatron: context_parallel_size"},
        {"layout.expert", FIELD(layout.expert), layout, only(1, 1, kMostRanks), "ranks",
         "ranks that split the experts", "Megatron: expert_model_parallel_size"},
        {"layout.zero", FIELD(layout.zero), layout, only(0, 0, 3), "level",
         "what data ranks share out: 1 optimizer state, 2 gradients, 3 weights",
         "DeepSpeed: zero_optimization.stage"},
        {"layout.reduction",
         CodedField{parse_reduction,
                    [](const RunConfig& c) { return name_of(kReductions, c.layout.reduction); }},
         layout,
         {},
         "fast, exact",
         "how gradients are summed; exact: whole micro-batches in order, same bits in any layout"},
        {"layout.schedule",
         CodedField{parse_schedule, [](const RunConfig& c) { return quote(c.layout.schedule); }},
         layout,
         {},
         "1f1b",
         "order of micro-batches in the pipeline",
         "Megatron: schedules in pipeline_parallel"},
        {"layout.recompute",
         CodedField{parse_recompute, print_recompute},
         layout,
         {},
         "none, selective, attention, block:K",
         "computed again instead of stored: outputs of norms and activation functions, the core "
         "attention, or all but one boundary every K blocks",
         "Megatron: recompute_granularity (attention: selective, block:K: full), "
         "recompute_num_layers"},
    };
}

std::vector<Setting> train_settings() {
    return {
        {"batch.sequence_length", FIELD(run.batch.sequence_length), training, range(0, kMostTokens),
         "tokens", "tokens of a sequence; 0: max_position_embeddings"},
        {"batch.micro_batch", FIELD(run.batch.micro_batch), layout, range(1, 1 << 20), "sequences",
         "sequences that pass through the model at once",
         "DeepSpeed: train_micro_batch_size_per_gpu"},
        {"batch.global_batch", FIELD(run.batch.global_batch), training, range(1, 1 << 30),
         "sequences", "sequences of a step; micro_batch times 1 to 65536",
         "DeepSpeed: train_batch_size"},
        {"train.steps", FIELD(run.train.steps), training, range(1, kMostSteps), "steps",
         "length of the run and of the learning rate's schedule"},
        {"train.stop_at", FIELD(run.train.stop_at), none, range(0, kMostSteps), "steps",
         "save and end early at this step; 0: never"},
        {"train.seed", FIELD(run.train.seed), training, range(0, 9e18), "",
         "key of initial weights, data order and samples"},
        {"train.dtype",
         CodedField{parse_train_dtype,
                    [](const RunConfig& c) { return name_of(kDtypes, c.run.train.dtype); }},
         training,
         {},
         "auto, fp32, bf16, fp16",
         "weights and activations; bf16 and fp16 keep fp32 masters; auto: as the checkpoint "
         "that is resumed, else bf16 where the CPU has AVX-512 BF16, otherwise fp32"},
        {"train.loss_scale", FIELD(run.train.loss_scale), training, range(1, 16777216), "",
         "fp16: factor of the loss at the start, a power of two; halved by a step that is not "
         "finite"},
        {"train.loss_scale_window", FIELD(run.train.loss_scale_window), training, range(1, 1 << 24),
         "steps", "fp16: finite steps after which the loss scale doubles"},
        {"train.lr", FIELD(run.train.lr), training, range(0, 100), "", "largest learning rate"},
        {"train.min_lr", FIELD(run.train.min_lr), training, range(0, 100), "",
         "learning rate at the end; at most lr"},
        {"train.warmup_steps", FIELD(run.train.warmup_steps), training, range(-1, kMostSteps),
         "steps", "steps of linear rise to lr, at most steps; -1: 20, or steps if that is less"},
        {"train.lr_schedule",
         CodedField{
             parse_lr_schedule,
             [](const RunConfig& c) { return name_of(kLrSchedules, c.run.train.lr_schedule); }},
         training,
         {},
         "cosine, linear, constant, wsd",
         "shape of the decay from lr to min_lr; wsd: constant, then falling in decay_steps"},
        {"train.decay_steps", FIELD(run.train.decay_steps), training, range(0, kMostSteps), "steps",
         "last steps of wsd, in which the learning rate falls; 0: a tenth of steps"},
        {"train.beta1", FIELD(run.train.beta1), training, range(0, 0.999999999), "",
         "decay of AdamW's first moment"},
        {"train.beta2", FIELD(run.train.beta2), training, range(0, 0.999999999), "",
         "decay of AdamW's second moment"},
        {"train.eps", FIELD(run.train.eps), training, range(1e-300, 1), "",
         "added to the root of AdamW's second moment"},
        {"train.weight_decay", FIELD(run.train.weight_decay), training, range(0, 100), "",
         "decoupled decay of parameters with two dims or more"},
        {"train.clip", FIELD(run.train.clip), training, range(0, 1e30), "",
         "largest global gradient norm; 0: no clipping"},
        {"train.eval_every", FIELD(run.train.eval_every), none, range(0, kMostSteps), "steps",
         "evaluate after so many steps; 0: never"},
        {"train.log_every", FIELD(run.train.log_every), none, range(1, 1 << 30), "steps",
         "a line on the console every so many steps; log.jsonl has every step"},
        {"train.tensorboard",
         FIELD(run.train.tensorboard),
         none,
         {},
         "",
         "TensorBoard event files in checkpoint.dir beside log.jsonl"},
        {"train.eval_batches", FIELD(run.train.eval_batches), none, range(1, 1 << 30),
         "micro-batches", "micro-batches of an evaluation"},
        {"train.sample_tokens", FIELD(run.train.sample_tokens), none, range(0, 1 << 20), "tokens",
         "tokens written at each evaluation when the data is bytes; 0: none"},
        {"train.loss_chunk", FIELD(run.train.loss_chunk), layout, range(0, kMostTokens), "tokens",
         "tokens whose logits exist at once; 0: as many as fit 32 MiB"},
    };
}

std::vector<Setting> process_settings() {
    return {
        {"data.train",
         FIELD(run.data.train),
         training,
         {},
         "path",
         "token ids to train on (PATH.bin); PATH.bin.json beside it says the bytes of an id: "
         "{\"width\": 2}"},
        {"data.valid", FIELD(run.data.valid), training, {}, "path", "token ids to evaluate on"},
        {"checkpoint.dir",
         FIELD(run.checkpoint.dir),
         none,
         {},
         "path",
         "the run's folder: checkpoints and log.jsonl"},
        {"checkpoint.every", FIELD(run.checkpoint.every), none, range(0, kMostSteps), "steps",
         "save after so many steps; 0: never, not even at the end"},
        {"checkpoint.keep_every", FIELD(run.checkpoint.keep_every), none, range(0, kMostSteps),
         "steps", "checkpoints whose step is a multiple stay for good; 0: none"},
        {"checkpoint.keep", FIELD(run.checkpoint.keep), none, range(2, 1 << 20), "checkpoints",
         "newest checkpoints that are kept"},
        {"checkpoint.resume",
         FIELD(run.checkpoint.resume),
         none,
         {},
         "auto, never, path",
         "auto: go on from the newest checkpoint in dir, if any; or from a folder"},
        {"checkpoint.chunk_bytes", FIELD(run.checkpoint.chunk_bytes), layout,
         size(1 << 10, 16 << 20), "bytes", "raw size of a chunk; a multiple of 16"},
        {"generate.context", FIELD(run.generate.context), layout, range(0, kMostTokens), "tokens",
         "prompt and new text that plumb-infer's key/value cache holds; 0: "
         "max_position_embeddings"},
        {"generate.prefill_chunk", FIELD(run.generate.prefill_chunk), layout, range(0, 1 << 20),
         "tokens", "tokens of a prompt per pass, at most the context; 0: 64"},
        {"generate.batch", FIELD(run.generate.batch), layout, range(1, 1 << 12), "sequences",
         "prompts that plumb-infer continues at once, each with a cache of its own"},
        {"generate.dtype",
         CodedField{parse_generate_dtype,
                    [](const RunConfig& c) { return name_of(kDtypes, c.run.generate.dtype); }},
         layout,
         {},
         "auto, fp32, bf16, fp16",
         "weights, activations and cache of plumb-infer; auto: those of the training"},
        {"run.device",
         FIELD(run.run.device),
         layout,
         {},
         "cpu, cuda, record",
         "cpu: this machine; cuda: its NVIDIA GPU; or a named device record, for planning"},
        {"run.threads", FIELD(run.run.threads), layout, range(0, 1 << 16), "threads",
         "threads of the kernels; 0: all that this process may use"},
        {"run.memory", FIELD(run.run.memory), none, size(0, 4.6e18), "bytes",
         "memory the run may use, as in 8GiB; of a GPU with run.device = cuda; 0: no limit"},
        {"run.graph",
         FIELD(run.run.graph),
         none,
         {},
         "",
         "on a GPU, a step runs as one CUDA graph; false: kernel by kernel, the same bits"},
        {"run.tf32",
         FIELD(run.run.tf32),
         training,
         {},
         "",
         "on a GPU, products of fp32 round their factors to tf32 (10 bits of mantissa) and run on "
         "tensor cores: faster, less exact"},
    };
}

#undef FIELD

std::string display(double value) {
    return value >= 1e15 ? fmt::format("{:g}", value) : fmt::format("{}", value);
}

// Compared as doubles: exact below 2^53, and no limit above that needs to be sharp.
template <typename T>
void check_limits(const Setting& setting, T value, const std::string& where) {
    const Limits& limits = setting.limits;
    const double number = static_cast<double>(value);
    if (!(number >= limits.least && number <= limits.most))
        throw Error(ExitCode::bad_input,
                    fmt::format("{}: {} is {}; it must be from {} to {}", where, setting.key, value,
                                display(limits.least), display(limits.most)));
    if (limits.has_only && number != limits.only)
        not_supported(where, setting.key, fmt::format("{}", value), display(limits.only));
}

}  // namespace

const std::vector<Setting>& settings() {
    static const std::vector<Setting> all = [] {
        std::vector<Setting> rows;
        for (auto part : {model_settings, layout_settings, train_settings, process_settings})
            for (const Setting& row : part()) rows.push_back(row);
        return rows;
    }();
    return all;
}

const Setting* find_setting(std::string_view key) {
    constexpr std::string_view kModel = "model.";
    const bool in_model = key.rfind(kModel, 0) == 0;
    for (const Setting& setting : settings()) {
        if (key == setting.key) return &setting;
        const bool model_row = std::string_view(setting.key).rfind(kModel, 0) == 0;
        if (in_model && model_row && *setting.known_as &&
            key.substr(kModel.size()) == setting.known_as)
            return &setting;
    }
    return nullptr;
}

const Setting& require_setting(const FoundValue& found) {
    if (const Setting* setting = find_setting(found.key)) return *setting;
    std::vector<std::string> keys = {"preset", "model"};
    for (const Setting& setting : settings()) {
        const std::string key = setting.key;
        const std::string section = key.substr(0, key.find('.'));
        if (found.key == section)
            throw Error(ExitCode::bad_input,
                        fmt::format("{}: {} is {}; it must be a table", found.where, section,
                                    describe(found.value)));
        keys.push_back(key);
        if (found.key.find('.') == std::string::npos) keys.push_back(section);
    }
    throw Error(ExitCode::bad_input,
                fmt::format("{}: unknown key {}; the nearest is {}", found.where,
                            quote(found.key.substr(0, 80)), nearest(found.key, keys)));
}

bool applies(const Setting& setting, ModelType type) {
    return setting.applies == AppliesTo::all ||
           (setting.applies == AppliesTo::llama) == (type == ModelType::llama);
}

const char* type_name(const Setting& setting) {
    if (setting.limits.is_size) return "a size";
    constexpr const char* kNames[] = {"an integer", "a number", "true or false", "a text",
                                      "a text"};
    return kNames[setting.field.index()];
}

void assign(RunConfig& config, const Setting& setting, const FoundValue& found) {
    SettingValue value = found.value;
    const auto* untyped = std::get_if<UntypedValue>(&value);
    const bool wants_text = setting.field.index() >= 3;
    if (untyped && (wants_text || setting.limits.is_size)) value = std::string(untyped->text);
    value = typed(value, found.where);
    const auto* text = std::get_if<std::string>(&value);
    if (text && !printable(*text))
        throw Error(
            ExitCode::bad_input,
            fmt::format("{}: {} has control characters or is not UTF-8", found.where, setting.key));
    const int64_t* integer = std::get_if<int64_t>(&value);
    const double* number = std::get_if<double>(&value);
    if (const auto* at = std::get_if<int64_t* (*)(RunConfig&)>(&setting.field)) {
        if (integer || (text && setting.limits.is_size)) {
            const int64_t found_value = integer ? *integer : parse_size(*text, found.where);
            check_limits(setting, found_value, found.where);
            *(*at)(config) = found_value;
            return;
        }
    } else if (const auto* real = std::get_if<double* (*)(RunConfig&)>(&setting.field)) {
        if (integer || number) {
            const double found_value = number ? *number : static_cast<double>(*integer);
            check_limits(setting, found_value, found.where);
            *(*real)(config) = found_value;
            return;
        }
    } else if (const auto* flag = std::get_if<bool* (*)(RunConfig&)>(&setting.field)) {
        if (const bool* found_value = std::get_if<bool>(&value)) {
            *(*flag)(config) = *found_value;
            return;
        }
    } else if (text) {
        if (const auto* word = std::get_if<std::string* (*)(RunConfig&)>(&setting.field))
            *(*word)(config) = *text;
        else
            std::get<CodedField>(setting.field).parse(config, *text, found.where);
        return;
    }
    throw Error(ExitCode::bad_input, fmt::format("{}: {} is {}; it must be {}", found.where,
                                                 setting.key, describe(value), type_name(setting)));
}

void check_ranges(const RunConfig& config, const std::string& where) {
    RunConfig copy = config;
    for (const Setting& setting : settings()) {
        if (!applies(setting, config.model.model_type)) continue;
        if (const auto* at = std::get_if<int64_t* (*)(RunConfig&)>(&setting.field))
            check_limits(setting, *(*at)(copy), where);
        else if (const auto* real = std::get_if<double* (*)(RunConfig&)>(&setting.field))
            check_limits(setting, *(*real)(copy), where);
    }
}

std::string print_value(const Setting& setting, const RunConfig& config) {
    // Field accessors take a mutable config because assign writes through them; a copy is cheap.
    RunConfig copy = config;
    if (const auto* at = std::get_if<int64_t* (*)(RunConfig&)>(&setting.field))
        return fmt::format("{}", *(*at)(copy));
    if (const auto* real = std::get_if<double* (*)(RunConfig&)>(&setting.field))
        return fmt::format("{}", *(*real)(copy));  // shortest that reads back to the same bits
    if (const auto* flag = std::get_if<bool* (*)(RunConfig&)>(&setting.field))
        return fmt::format("{}", *(*flag)(copy));
    if (const auto* word = std::get_if<std::string* (*)(RunConfig&)>(&setting.field))
        return quote(*(*word)(copy));
    return std::get<CodedField>(setting.field).print(config);
}

}  // namespace plumb
