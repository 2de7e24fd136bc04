#include "runtime/models/model_program.h"

#include <algorithm>

#include "runtime/base/check.h"
#include "runtime/base/digest.h"
#include "runtime/base/random.h"
#include "runtime/models/transformer.h"
#include "runtime/parallel/schedule.h"
#include "runtime/parallel/unit.h"
#include "runtime/program/autodiff.h"

namespace plumb {

namespace {

Entry entry(SectionId section, int32_t micro_batch = 0) {
    Entry made;
    made.section = section;
    made.micro_batch = micro_batch;
    return made;
}

class Recorder {
  public:
    Recorder(const RunConfig& config, const ProgramInputs& inputs, Purpose purpose)
        : config_(config),
          inputs_(inputs),
          purpose_(purpose),
          trains_(purpose == Purpose::train),
          exact_(config.layout.reduction == Reduction::exact),
          dtype_(program_dtype(config, purpose)),
          b_(inputs.traits, inputs.device),
          model_(b_, config.model, StateNeeds{trains_, trains_ && exact_, dtype_}) {}

    Program run() {
        Program& program = b_.program();
        program.io.scalars =
            b_.tensor("step_scalars", Dtype::u8, make_shape(sizeof(StepScalars)), Role::io);
        if (purpose_ != Purpose::generate) make_rows();
        if (trains_) {
            make_training_io();
            record_initialise();
        }
        record_load();
        if (trains_) {
            record_digest();
            record_step();
        }
        if (purpose_ != Purpose::generate) record_evaluate();
        if (trains_) record_save();
        if (purpose_ == Purpose::generate || (trains_ && config_.run.train.sample_tokens > 0))
            record_generate();
        if (trains_ && config_.run.checkpoint.every > 0) save_beside_training();
        return b_.finish();
    }

  private:
    IoTensors& io() { return b_.program().io; }

    void add_phase(PhaseKind kind, std::vector<Entry> entries) {
        b_.program().phases.push_back({kind, std::move(entries)});
    }

    void make_training_io() {
        io().grad_sum = b_.tensor("grad_sum", Dtype::i64, make_shape(4), Role::io);
        io().clip = b_.tensor("clip", Dtype::f64, make_shape(4), Role::io);
        io().digest = b_.tensor("digest", Dtype::i64, make_shape(2), Role::io);
        if (dtype_ == Dtype::f16)
            io().loss_scale = b_.tensor("loss_scale", Dtype::f32, make_shape(2), Role::state);
    }

    // The rows of tokens that sections over whole sequences read, and their loss.
    void make_rows() {
        const BatchSpec& batch = config_.run.batch;
        const Shape row = make_shape(batch.micro_batch, batch.sequence_length);
        b_.program().micro_batch_count =
            trains_ ? static_cast<int32_t>(batch.micro_batch_count()) : 1;
        io().loss = b_.tensor("loss", Dtype::f64, make_shape(1), Role::io);
        io().tokens = b_.tensor("tokens", Dtype::i32, row, Role::io_row);
        io().targets = b_.tensor("targets", Dtype::i32, row, Role::io_row);
        io().loss_weights = b_.tensor("loss_weights", Dtype::f32, row, Role::io_row);
        io().positions = b_.tensor("positions", Dtype::i32, row, Role::io_row);
        io().segment_start = b_.tensor("segment_start", Dtype::i32, row, Role::io_row);
    }

    // Gradients are zero between uses; this makes them so for the first time.
    void zero_gradients() {
        std::vector<TensorId> grads;
        for (size_t i = 0; i < b_.program().tensors.size(); ++i) {
            const Tensor& tensor = b_.program().tensors[i];
            if (tensor.role == Role::grad && tensor.alias_of == kNoTensor)
                grads.push_back(static_cast<TensorId>(i));
        }
        for (const TensorId id : grads) b_.record(OpKind::zero, {}, {id});
    }

    void initialise_loss_scale() {
        if (io().loss_scale == kNoTensor) return;
        b_.record(OpKind::zero, {}, {io().loss_scale});
        Attrs attrs;
        attrs.state = {};
        attrs.state.value = config_.run.train.loss_scale;
        b_.record(OpKind::init, attrs,
                  {b_.view("loss_scale.scale", io().loss_scale, make_shape(1), 0), kNoTensor});
    }

    void record_initialise() {
        const SectionId section = b_.begin_section(SectionKind::initialise, "initialise");
        const auto seed = static_cast<uint64_t>(config_.run.train.seed);
        for (const Param& param : std::vector<Param>(b_.program().params)) {
            Attrs attrs;
            attrs.state = {};
            attrs.state.key = random_key(seed, param.name);
            attrs.state.std = param.init.deviation;
            attrs.state.value = param.init.constant;
            b_.record(OpKind::init, attrs, {param.weight, param.master});
        }
        for (const Unit& unit : std::vector<Unit>(b_.program().units)) {
            if (unit.grad == kNoTensor) continue;
            b_.record(OpKind::zero, {}, {unit.moment1});
            b_.record(OpKind::zero, {}, {unit.moment2});
        }
        initialise_loss_scale();
        zero_gradients();
        b_.end_section();
        add_phase(PhaseKind::initialise, {entry(section)});
    }

    void record_codec(OpKind kind, int64_t raw_bytes, int64_t index_bytes, int64_t passage_bytes) {
        const StagingBytes& staging = inputs_.staging;
        const auto buffer = [&](const char* name, int64_t bytes) {
            return bytes == 0 ? kNoTensor
                              : b_.tensor(std::string("staging.") + name, Dtype::u8,
                                          make_shape(bytes), Role::staging);
        };
        const TensorId passage = buffer("passage", passage_bytes);
        if (passage != kNoTensor) io().passage = passage;
        b_.record(kind, {},
                  {buffer("raw", raw_bytes), buffer("planes", staging.planes),
                   buffer("stored", staging.stored), buffer("context", staging.context),
                   buffer("index", index_bytes), passage});
    }

    void record_load() {
        const SectionId zero = b_.begin_section(SectionKind::load, "load");
        // A checkpoint of another dtype has no loss scale.
        initialise_loss_scale();
        if (trains_) zero_gradients();
        record_codec(OpKind::checkpoint_read, inputs_.staging.raw, 0, inputs_.staging.passage);
        b_.end_section();
        add_phase(PhaseKind::load, {entry(zero)});
    }

    Transformer::Attend over_sequence() {
        return [this](int64_t, TensorId qkv) {
            return b_.attention(qkv, io().segment_start, model_.attention_attrs());
        };
    }

    void record_loss(TensorId x) {
        b_.head_loss(io().loss, x, model_.head(), io().targets, io().loss_weights, io().loss_scale,
                     config_.run.train.loss_chunk);
    }

    void record_step() {
        StepSections sections;
        sections.forward = b_.begin_section(SectionKind::forward, "forward");
        record_loss(
            model_.hidden(io().tokens, io().positions, over_sequence(), config_.layout.recompute));
        b_.end_section();
        const std::vector<TapeEntry> tape = b_.take_tape();
        sections.backward = b_.begin_section(SectionKind::backward, "backward");
        differentiate(b_, tape);
        b_.end_section();
        if (exact_) {
            sections.reduce = b_.begin_section(SectionKind::reduce, "reduce");
            record_fold_parts(b_);
            b_.end_section();
        }
        sections.update = record_update(b_, io().grad_sum, io().clip, io().loss_scale);
        add_phase(PhaseKind::step, single_stage_step(sections, b_.program().micro_batch_count));
        count_slots(b_.program().phases.back().entries, b_.program().slot_count);
    }

    void record_evaluate() {
        const SectionId section = b_.begin_section(SectionKind::evaluate, "evaluate");
        record_loss(model_.hidden(io().tokens, io().positions, over_sequence()));
        b_.end_section();
        add_phase(PhaseKind::evaluate, {entry(section)});
    }

    // Of all that a checkpoint holds: the end of the phase load, which was added last.
    void record_digest() {
        const SectionId section = b_.begin_section(SectionKind::digest, "digest");
        bool begin = true;
        const auto add = [&](const char* stream, const std::string& name, TensorId id,
                             TensorId low = kNoTensor) {
            Attrs attrs;
            attrs.state = {};
            attrs.state.key = digest_key(stream, name);
            attrs.state.begin = begin ? 1 : 0;
            begin = false;
            b_.record(OpKind::digest, attrs, {io().digest, id, low});
        };
        for (const Param& param : std::vector<Param>(b_.program().params)) {
            // The 32-bit masters: fp32 weights, the pair with bf16 weights, beside fp16 weights.
            const bool pair = b_.at(param.weight).dtype == Dtype::bf16;
            if (pair || param.master == kNoTensor)
                add("param", param.name, param.weight, param.master);
            else
                add("param", param.name, param.master);
            if (param.moment1 == kNoTensor) continue;
            add("moment1", param.name, param.moment1);
            add("moment2", param.name, param.moment2);
        }
        if (io().loss_scale != kNoTensor) add("state", "loss_scale", io().loss_scale);
        b_.end_section();
        b_.program().phases.back().entries.push_back(entry(section));
    }

    void record_save() {
        const SectionId section = b_.begin_section(SectionKind::save, "save");
        record_codec(OpKind::checkpoint_write, inputs_.staging.live, inputs_.staging.index, 0);
        b_.end_section();
        add_phase(PhaseKind::save, {entry(section)});
    }

    // The saving thread reads weights, moments and state, which only `update` changes; training
    // goes on meanwhile, and so do the evaluations and samples between its steps.
    void save_beside_training() {
        const SectionId section = b_.program().section(SectionKind::save);
        for (Phase& phase : b_.program().phases)
            if (phase.kind == PhaseKind::step || phase.kind == PhaseKind::evaluate ||
                phase.kind == PhaseKind::generate)
                phase.beside.push_back(section);
    }

    void make_generate_io(int64_t batch, int64_t context) {
        const auto make = [&](const char* name, Dtype dtype, const Shape& shape) {
            return b_.tensor(name, dtype, shape, Role::io);
        };
        const int64_t vocabulary = config_.model.vocab_size;
        const int64_t chunk = std::min(config_.run.generate.prefill_chunk, context);
        io().prompt_tokens = make("prompt_tokens", Dtype::i32, make_shape(1, chunk));
        io().prompt_positions = make("prompt_positions", Dtype::i32, make_shape(1, chunk));
        io().prompt_rows = make("prompt_rows", Dtype::i32, make_shape(1));
        io().prompt_sequence = make("prompt_sequence", Dtype::i32, make_shape(1));
        io().first_token = make("first_token", Dtype::i32, make_shape(1));
        io().next_token = make("next_token", Dtype::i32, make_shape(batch));
        io().next_position = make("next_position", Dtype::i32, make_shape(batch, 1));
        io().new_tokens = make("new_tokens", Dtype::i32, make_shape(batch, context));
        io().seen = make("seen", Dtype::u8, make_shape(batch, vocabulary));
        io().draws = make("draws", Dtype::i64, make_shape(batch, 2));
        io().logits = make("logits", Dtype::f32, make_shape(batch, vocabulary));
    }

    // Prefill of one chunk of one sequence's prompt, and one decode step of all sequences, both
    // ending in sampled tokens.
    void record_generate() {
        const int64_t batch = trains_ ? 1 : config_.run.generate.batch;
        const int64_t context =
            trains_ ? config_.run.batch.sequence_length : config_.run.generate.context;
        const ModelSpec& model = config_.model;
        make_generate_io(batch, context);
        std::vector<TensorId> keys, values;
        const Shape cache = make_shape(batch, context, model.num_key_value_heads, model.head_dim);
        for (int64_t layer = 0; layer < model.num_hidden_layers; ++layer) {
            const std::string prefix = "block." + std::to_string(layer) + ".";
            keys.push_back(b_.tensor(prefix + "keys", dtype_, cache, Role::kv_cache));
            values.push_back(b_.tensor(prefix + "values", dtype_, cache, Role::kv_cache));
        }
        const auto pass = [&](TensorId tokens, TensorId positions, TensorId sequences) {
            return model_.hidden(tokens, positions, [&](int64_t layer, TensorId qkv) {
                const auto l = static_cast<size_t>(layer);
                return b_.attention_cached(qkv, keys[l], values[l], positions, sequences,
                                           model_.attention_attrs());
            });
        };
        const auto finish = [&](TensorId last, TensorId logits, TensorId token,
                                TensorId sequences) {
            Attrs attrs;
            attrs.matmul = {Activation::none, 0, 1, 1};
            b_.record(OpKind::matmul, attrs,
                      {logits, kNoTensor, last, model_.head(), kNoTensor, kNoTensor});
            b_.record(OpKind::sample, {}, {token, logits, io().seen, io().draws, sequences});
        };
        const SectionId prefill = b_.begin_section(SectionKind::prefill, "prefill");
        const TensorId first = b_.view("logits", io().logits, make_shape(1, model.vocab_size), 0);
        finish(b_.select_rows(pass(io().prompt_tokens, io().prompt_positions, io().prompt_sequence),
                              io().prompt_rows),
               first, io().first_token, io().prompt_sequence);
        b_.end_section();
        const SectionId decode = b_.begin_section(SectionKind::decode, "decode");
        const TensorId tokens = b_.view("next_token", io().next_token, make_shape(batch, 1), 0);
        const TensorId x = pass(tokens, io().next_position, kNoTensor);
        // One row per sequence: the last one is the only one.
        finish(b_.view("last", x, make_shape(batch, model.hidden_size), 0), io().logits,
               io().next_token, kNoTensor);
        b_.end_section();
        add_phase(PhaseKind::generate, {entry(prefill), entry(decode)});
    }

    const RunConfig& config_;
    const ProgramInputs& inputs_;
    Purpose purpose_;
    bool trains_;
    bool exact_;
    Dtype dtype_;
    Builder b_;
    Transformer model_;
};

}  // namespace

Dtype program_dtype(const RunConfig& config, Purpose purpose) {
    ComputeDtype dtype = config.run.train.dtype;
    if (purpose != Purpose::train && config.run.generate.dtype != ComputeDtype::automatic)
        dtype = config.run.generate.dtype;
    CHECK_NOTE(dtype != ComputeDtype::automatic, "the dtype is not resolved");
    return dtype == ComputeDtype::bf16   ? Dtype::bf16
           : dtype == ComputeDtype::fp16 ? Dtype::f16
                                         : Dtype::f32;
}

const char* value_dtype_name(Dtype dtype) {
    return dtype == Dtype::bf16 ? "bf16" : dtype == Dtype::f16 ? "fp16" : "fp32";
}

Program build_program(const RunConfig& config, const ProgramInputs& inputs, Purpose purpose) {
    return Recorder(config, inputs, purpose).run();
}

std::vector<Param> model_parameters(const ModelSpec& model) {
    const KernelTraits none{
        "none", [](const Op&, const Shape*, const DeviceRecord&) { return int64_t{0}; }};
    Builder builder(none, DeviceRecord{});
    const Transformer transformer(builder, model, StateNeeds{false, false, Dtype::f32});
    return std::move(builder.program().params);
}

}  // namespace plumb
