// Whole programs of small GPT-2 and Llama models, interpreted in fp64 with the reference kernels:
// the gradients that autodiff recorded against central differences of the loss that the same
// program computes. Covers every gradient rule, in place accumulation, tied heads, recompute,
// exact reduction, packed segments and uneven loss weights.
#include <gtest/gtest.h>

#include <map>
#include <vector>

#include "runtime/base/random.h"
#include "runtime/models/model_program.h"
#include "runtime/program/op_table.h"
#include "tests/kernels/reference.h"

namespace plumb {
namespace {

class Interpreter {
  public:
    explicit Interpreter(const Program& program) : program_(program) {}

    // Storage of a tensor's root, in elements; io rows per micro-batch.
    std::vector<double>& storage(TensorId id, int32_t micro_batch) {
        const TensorId root = program_.root(id);
        const Tensor& tensor = program_.tensors[static_cast<size_t>(root)];
        const int32_t row = tensor.role == Role::io_row ? micro_batch : 0;
        std::vector<double>& data = storage_[{root, row}];
        data.resize(static_cast<size_t>(tensor.size_bytes / dtype_bytes(tensor.dtype)), 0.0);
        return data;
    }
    double* data(TensorId id, int32_t micro_batch = 0) {
        const Tensor& tensor = program_.tensors[static_cast<size_t>(id)];
        return storage(id, micro_batch).data() +
               program_.root_offset_bytes(id) / dtype_bytes(tensor.dtype);
    }

    void run(const Entry& entry, const StepScalars& scalars) {
        const Section& section = program_.sections[static_cast<size_t>(entry.section)];
        for (int i = section.first_op; i < section.first_op + section.op_count; ++i)
            run_op(program_.ops[static_cast<size_t>(i)], entry.micro_batch, scalars);
    }

  private:
    void run_op(const Op& op, int32_t micro_batch, const StepScalars& scalars) {
        testing::KernelCase c;
        c.kind = op.kind;
        c.attrs = op.attrs;
        c.micro_batch = micro_batch;
        Shape shape[kMaxOperands];
        operand_shapes(program_, op, shape);
        testing::Operands<double> operands;
        for (int k = 0; k < op.operand_count; ++k) {
            c.shape[k] = shape[k];
            const auto size = static_cast<size_t>(shape[k].elements());
            if (op.operand[k] == kNoTensor) {
                operands.emplace_back();
            } else {
                const double* from = data(op.operand[k], micro_batch);
                operands.emplace_back(from, from + size);
            }
        }
        testing::run_reference(c, scalars, &operands);
        for (int k = 0; k < op.operand_count; ++k)
            if (op.operand[k] != kNoTensor && operand_access(op, k) != Access::read)
                std::copy(operands[static_cast<size_t>(k)].begin(),
                          operands[static_cast<size_t>(k)].end(), data(op.operand[k], micro_batch));
    }

    const Program& program_;
    std::map<std::pair<TensorId, int32_t>, std::vector<double>> storage_;
};

ModelSpec small_model(ModelType type, bool tied) {
    ModelSpec model = model_defaults(type);
    model.vocab_size = 11;
    model.hidden_size = 12;
    model.num_hidden_layers = 3;
    model.num_attention_heads = 2;
    model.num_key_value_heads = type == ModelType::llama ? 1 : 2;
    model.head_dim = 6;
    model.intermediate_size = 10;
    model.max_position_embeddings = 8;
    model.tie_word_embeddings = tied;
    if (type == ModelType::llama) {
        model.attention_bias = tied;
        model.mlp_bias = tied;
    }
    model.bos_token_id = model.eos_token_id = -1;
    return model;
}

struct Variant {
    const char* name;
    ModelType type;
    bool tied;
    Recompute recompute;
    Reduction reduction;
};

constexpr Recompute kSelective{RecomputeKind::selective, 0};
constexpr Recompute kAttention{RecomputeKind::attention, 0};
constexpr Recompute every(int64_t blocks) {
    return {RecomputeKind::block, blocks};
}

class GradientTest : public ::testing::TestWithParam<Variant> {};

TEST_P(GradientTest, MatchesCentralDifferences) {
    const Variant& variant = GetParam();
    RunConfig config;
    config.model = small_model(variant.type, variant.tied);
    config.layout.recompute = variant.recompute;
    config.layout.reduction = variant.reduction;
    config.run.batch = {7, 2, 4};
    config.run.train.loss_chunk = 3;
    config.run.train.sample_tokens = 0;
    config.run.train.dtype = ComputeDtype::fp32;
    complete_run(config, "test");
    const KernelTraits none{
        "none", [](const Op&, const Shape*, const DeviceRecord&) { return int64_t{0}; }};
    const Program program = build_program(
        config, {none, DeviceRecord{}, StagingBytes{64, 64, 64, 64, 64}}, Purpose::train);
    Interpreter memory(program);
    const auto random = [](uint64_t stream, int64_t i) {
        return random_uniform(stream, static_cast<uint64_t>(i)) - 0.5;
    };
    for (size_t p = 0; p < program.params.size(); ++p) {
        const Param& param = program.params[p];
        const double base = param.name.ends_with(".gain") ? 1.0 : 0.0;
        for (int64_t i = 0; i < param.elements(); ++i)
            memory.data(param.weight)[i] = base + 0.6 * random(100 + p, i);
    }
    double weight_sum = 0;
    for (int32_t m = 0; m < 2; ++m) {
        for (int64_t n = 0; n < 14; ++n) {
            const int64_t t = n % 7;
            memory.data(program.io.tokens, m)[n] = static_cast<double>((n * 5 + m * 3 + 1) % 11);
            memory.data(program.io.targets, m)[n] = static_cast<double>((n * 7 + m) % 11);
            const double weight = n % 3 == 0 ? 0.0 : 0.5 + static_cast<double>(n % 2);
            memory.data(program.io.loss_weights, m)[n] = weight;
            weight_sum += weight;
            // Two documents per sequence: positions restart at token 4.
            memory.data(program.io.segment_start, m)[n] = t < 4 ? 0.0 : 4.0;
            memory.data(program.io.positions, m)[n] = static_cast<double>(t < 4 ? t : t - 4);
        }
    }
    StepScalars scalars{};
    scalars.inverse_weight_sum = 1 / weight_sum;
    const auto loss = [&] {
        *memory.data(program.io.loss) = 0;
        Entry entry = program.phase(PhaseKind::evaluate)->entries[0];
        for (entry.micro_batch = 0; entry.micro_batch < program.micro_batch_count;
             ++entry.micro_batch)
            memory.run(entry, scalars);
        return *memory.data(program.io.loss) / weight_sum;
    };
    const double evaluated = loss();
    *memory.data(program.io.loss) = 0;
    for (const Entry& entry : program.phase(PhaseKind::step)->entries)
        if (!is_update(program, entry)) memory.run(entry, scalars);
    EXPECT_NEAR(*memory.data(program.io.loss) / weight_sum, evaluated, 1e-12);
    // A random direction in each parameter, and in its every third element alone.
    for (size_t p = 0; p < program.params.size(); ++p) {
        const Param& param = program.params[p];
        const std::vector<double> start(memory.data(param.weight),
                                        memory.data(param.weight) + param.elements());
        for (const int64_t stride : {1, 3}) {
            std::vector<double> direction(start.size());
            double expected = 0;
            for (size_t i = 0; i < start.size(); ++i) {
                const auto k = static_cast<int64_t>(i);
                direction[i] = k % stride == 0 ? random(500 + p, k) : 0.0;
                double gradient = memory.data(param.grad)[k];
                for (const GradUse& use : param.further_uses)
                    if (use.grad != kNoTensor) gradient += memory.data(use.grad)[k];
                expected += gradient * direction[i];
            }
            const double step = 1e-5;
            const auto moved = [&](double factor) {
                for (size_t i = 0; i < start.size(); ++i)
                    memory.data(param.weight)[i] = start[i] + factor * step * direction[i];
                return loss();
            };
            const double difference = (moved(1) - moved(-1)) / (2 * step);
            std::copy(start.begin(), start.end(), memory.data(param.weight));
            // Truncation about step^2 = 1e-10; rounding 1e-16 / step = 1e-11.
            EXPECT_NEAR(difference, expected, 2e-9 + 1e-7 * std::abs(expected))
                << param.name << " stride " << stride;
        }
    }
}

INSTANTIATE_TEST_SUITE_P(
    Models, GradientTest,
    ::testing::Values(
        Variant{"gpt2", ModelType::gpt2, true, {}, Reduction::fast},
        Variant{"gpt2_recompute", ModelType::gpt2, true, every(2), Reduction::fast},
        Variant{"gpt2_selective", ModelType::gpt2, true, kSelective, Reduction::fast},
        Variant{"gpt2_exact", ModelType::gpt2, true, every(1), Reduction::exact},
        Variant{"llama", ModelType::llama, false, {}, Reduction::fast},
        Variant{"llama_attention", ModelType::llama, false, kAttention, Reduction::fast},
        Variant{"llama_exact", ModelType::llama, false, every(3), Reduction::exact},
        Variant{"llama_tied_bias", ModelType::llama, true, every(1), Reduction::exact}),
    [](const auto& variant) { return std::string(variant.param.name); });

}  // namespace
}  // namespace plumb
