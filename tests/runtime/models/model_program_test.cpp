#include "runtime/models/model_program.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "kernels/kernels.h"
#include "runtime/config/presets.h"
#include "runtime/program/op_table.h"

namespace plumb {
namespace {

Program program_of(const std::string& preset, const std::vector<std::string>& overrides,
                   Purpose purpose = Purpose::train) {
    RunConfig config = load_run(preset, overrides);
    if (config.run.train.dtype == ComputeDtype::automatic)
        config.run.train.dtype = ComputeDtype::fp32;
    DeviceRecord device{};
    named_device("cpu-avx512", 2, &device);
    return build_program(config, {cpu_traits(), device, StagingBytes{64, 64, 64, 64, 64}}, purpose);
}

TEST(ModelProgram, EveryPresetHasItsPublishedParameters) {
    for (const Preset& preset : presets()) {
        int64_t elements = 0;
        std::set<std::string> names;
        for (const Param& param : model_parameters(preset.model)) {
            elements += param.elements();
            EXPECT_TRUE(names.insert(param.name).second) << param.name;
            EXPECT_EQ(param.decay, param.shape.rank >= 2) << param.name;
        }
        EXPECT_EQ(elements, parameter_count(preset.model)) << preset.name;
    }
}

// Matrices, activations and caches have the value dtype; statistics, gradients, moments, 1-D
// parameters and logits are fp32.
TEST(ModelProgram, MixedPrecisionKeepsInFp32WhatMustBe) {
    for (const auto& [name, value, master] :
         {std::tuple{"bf16", Dtype::bf16, Dtype::u16}, {"fp16", Dtype::f16, Dtype::f32}}) {
        const Program program =
            program_of("tiny", {std::string("--train.dtype=") + name, "--train.sample_tokens=8"});
        for (const Param& param : program.params) {
            const auto dtype = [&](TensorId id) {
                return program.tensors[static_cast<size_t>(id)].dtype;
            };
            EXPECT_EQ(dtype(param.weight), param.is_matrix() ? value : Dtype::f32) << param.name;
            EXPECT_EQ(param.master != kNoTensor, param.is_matrix()) << param.name;
            if (param.is_matrix()) {
                EXPECT_EQ(dtype(param.master), master) << param.name;
            }
            EXPECT_EQ(dtype(param.grad), Dtype::f32);
            EXPECT_EQ(dtype(param.moment1), Dtype::f32);
        }
        for (const Tensor& tensor : program.tensors) {
            if (tensor.role == Role::kv_cache) {
                EXPECT_EQ(tensor.dtype, value) << tensor.name;
            }
            if (tensor.role != Role::activation && tensor.role != Role::saved) continue;
            const bool statistic = tensor.name.find("stats") != std::string::npos ||
                                   tensor.name.find("lse") != std::string::npos;
            EXPECT_EQ(tensor.dtype, statistic ? Dtype::f32 : value) << tensor.name;
        }
        EXPECT_EQ(program.io.loss_scale != kNoTensor, value == Dtype::f16);
    }
}

// Flops of the recorded step against the one function behind every mfu. Both count the head three
// times 2NV; the program's attention counts its five backward products and T+1 for T.
TEST(ModelProgram, FlopsOfAStepAgreeWithTheFormula) {
    for (const char* preset : {"gpt2-124m", "llama2-7b"}) {
        const RunConfig config =
            load_run(preset, {"--batch.micro_batch=1", "--batch.global_batch=1"});
        const Program program =
            program_of(preset, {"--batch.micro_batch=1", "--batch.global_batch=1"});
        double flops = 0, attention = 0;
        for (const Entry& entry : program.phase(PhaseKind::step)->entries) {
            const Section& s = program.sections[static_cast<size_t>(entry.section)];
            for (int i = s.first_op; i < s.first_op + s.op_count; ++i) {
                const Op& op = program.ops[static_cast<size_t>(i)];
                Shape shape[kMaxOperands];
                operand_shapes(program, op, shape);
                const double f = op_flops(op, shape);
                const bool is_attention =
                    op.kind == OpKind::attention || op.kind == OpKind::attention_backward;
                (is_attention ? attention : flops) += f;
            }
        }
        const double tokens = static_cast<double>(config.run.batch.step_tokens());
        const double products = 6.0 * static_cast<double>(matmul_parameter_count(config.model));
        EXPECT_DOUBLE_EQ(flops, products * tokens) << preset;
        // 2 + 5 products recorded where the formula counts 2 + 4.
        const double expected =
            flops_per_token(config.model, config.run.batch.sequence_length) - products;
        EXPECT_NEAR(attention * 6 / 7, expected * tokens, 2e-3 * expected * tokens) << preset;
    }
}

TEST(ModelProgram, NoTensorIsQuadraticInTokensAndFullLogitsNeverExist) {
    const Program program = program_of("gpt2-124m", {"--train.loss_chunk=64"});
    const int64_t tokens = 1024, vocabulary = 50257, micro_batch_tokens = 4 * 1024;
    for (const Tensor& tensor : program.tensors) {
        if (tensor.role == Role::weight || tensor.role == Role::grad || tensor.role == Role::moment)
            continue;
        int dims_of_tokens = 0;
        for (int i = 0; i < tensor.shape.rank; ++i)
            dims_of_tokens += tensor.shape.dim[i] == tokens ? 1 : 0;
        EXPECT_LE(dims_of_tokens, 1) << tensor.name;
        EXPECT_LT(tensor.size_bytes, vocabulary * micro_batch_tokens * 4 / 8) << tensor.name;
    }
}

TEST(ModelProgram, RecomputeShrinksTheStashToBoundaries) {
    const auto saved = [](const Program& program) {
        int64_t bytes = 0;
        for (const Tensor& tensor : program.tensors)
            if (tensor.role == Role::saved && tensor.alias_of == kNoTensor)
                bytes += tensor.size_bytes;
        return bytes;
    };
    const int64_t boundary = 4 * 1024 * 768 * 4;
    const Program block1 = program_of("gpt2-124m", {"--layout.recompute=block:1"});
    // Inputs of 12 blocks, the last block's output, the final norm's output and statistics.
    EXPECT_EQ(saved(block1), 14 * boundary + 4 * 1024 * 2 * 4);
    const Program block4 = program_of("gpt2-124m", {"--layout.recompute=block:4"});
    EXPECT_EQ(saved(block4), 5 * boundary + 4 * 1024 * 2 * 4);
    EXPECT_GT(saved(program_of("gpt2-124m", {})), 8 * saved(block1));
}

// In floats per token and block: two norm outputs with their statistics and one activation
// function's output; or the attention's output and a log-sum-exp per head.
TEST(ModelProgram, SelectiveAndAttentionSaveAllButWhatTheyRecompute) {
    const auto saved = [](const char* preset, const char* recompute) {
        const Program program =
            program_of(preset, {std::string("--layout.recompute=") + recompute,
                                "--batch.micro_batch=1", "--batch.global_batch=1"});
        int64_t bytes = 0;
        for (const Tensor& tensor : program.tensors)
            if (tensor.role == Role::saved && tensor.alias_of == kNoTensor)
                bytes += tensor.size_bytes;
        return bytes;
    };
    for (const char* preset : {"gpt2-124m", "llama3-8b"}) {
        const RunConfig config = load_run(preset, {});
        const ModelSpec& model = config.model;
        const int64_t tokens = config.run.batch.sequence_length;
        const int64_t none = saved(preset, "none");
        const int64_t norms = 2 * (model.hidden_size + 2), activation = model.intermediate_size;
        EXPECT_EQ(none - saved(preset, "selective"),
                  4 * tokens * model.num_hidden_layers * (norms + activation))
            << preset;
        EXPECT_EQ(none - saved(preset, "attention"),
                  4 * tokens * model.num_hidden_layers *
                      (model.attention_size() + model.num_attention_heads))
            << preset;
    }
}

// The backward runs again only what is cheap: no product of a matrix twice.
TEST(ModelProgram, SelectiveRecomputationRepeatsNoMatmul) {
    const auto backward = [](const char* preset, const char* recompute) {
        const Program program =
            program_of(preset, {std::string("--layout.recompute=") + recompute});
        const Section& s =
            program.sections[static_cast<size_t>(program.section(SectionKind::backward))];
        std::map<OpKind, int64_t> count;
        for (int i = s.first_op; i < s.first_op + s.op_count; ++i)
            ++count[program.ops[static_cast<size_t>(i)].kind];
        return count;
    };
    const int64_t blocks = load_run("gpt2-124m").model.num_hidden_layers;
    auto selective = backward("gpt2-124m", "selective");
    EXPECT_EQ(selective[OpKind::norm], 2 * blocks);
    EXPECT_EQ(selective[OpKind::gelu], blocks);
    EXPECT_EQ(selective[OpKind::matmul] + selective[OpKind::attention], 0);
    auto attention = backward("gpt2-124m", "attention");
    EXPECT_EQ(attention[OpKind::attention], blocks);
    EXPECT_EQ(attention[OpKind::matmul] + attention[OpKind::norm], 0);
}

TEST(ModelProgram, PhasesOfTrainingAndGeneration) {
    const Program train = program_of("tiny", {});
    for (int phase = 0; phase < kPhaseCount; ++phase)
        EXPECT_NE(train.phase(static_cast<PhaseKind>(phase)), nullptr);
    const Program silent = program_of("tiny", {"--train.sample_tokens=0"});
    EXPECT_EQ(silent.phase(PhaseKind::generate), nullptr);
    const Program generate = program_of("tiny", {}, Purpose::generate);
    EXPECT_EQ(generate.phase(PhaseKind::step), nullptr);
    EXPECT_NE(generate.phase(PhaseKind::generate), nullptr);
    for (const Tensor& tensor : generate.tensors) {
        EXPECT_NE(tensor.role, Role::grad) << tensor.name;
        EXPECT_NE(tensor.role, Role::moment) << tensor.name;
    }
}

TEST(ModelProgram, ScoringIsTheEvaluationAlone) {
    const std::vector<std::string> batch = {"--batch.micro_batch=2", "--batch.global_batch=6"};
    const Program train = program_of("tiny", batch);
    const Program score = program_of("tiny", batch, Purpose::score);
    ASSERT_EQ(score.phases.size(), 2u);
    EXPECT_NE(score.phase(PhaseKind::load), nullptr);
    EXPECT_EQ(score.phase(PhaseKind::evaluate)->entries.size(), 1u);
    EXPECT_EQ(score.micro_batch_count, 1);
    for (const Tensor& tensor : score.tensors) {
        EXPECT_NE(tensor.role, Role::grad) << tensor.name;
        EXPECT_NE(tensor.role, Role::moment) << tensor.name;
        EXPECT_NE(tensor.role, Role::kv_cache) << tensor.name;
    }
    const auto ops = [](const Program& program) {
        const Section& s =
            program.sections[static_cast<size_t>(program.section(SectionKind::evaluate))];
        std::vector<OpKind> kinds;
        for (int i = s.first_op; i < s.first_op + s.op_count; ++i)
            kinds.push_back(program.ops[static_cast<size_t>(i)].kind);
        return kinds;
    };
    EXPECT_EQ(ops(score), ops(train));
}

TEST(ModelProgram, ABatchHasACacheForEachSequence) {
    const Program program = program_of("tiny", {"--generate.batch=3"}, Purpose::generate);
    for (const Tensor& tensor : program.tensors)
        if (tensor.role == Role::kv_cache) {
            EXPECT_EQ(tensor.shape.dim[0], 3) << tensor.name;
        }
    const auto dims = [&](TensorId id) {
        return program.tensors[static_cast<size_t>(id)].shape.dim[0];
    };
    EXPECT_EQ(dims(program.io.prompt_tokens), 1);
    EXPECT_EQ(dims(program.io.next_token), 3);
    EXPECT_EQ(dims(program.io.logits), 3);
    // Training samples one text, whatever the batch.
    const Program train = program_of("tiny", {"--generate.batch=3"});
    EXPECT_EQ(train.tensors[static_cast<size_t>(train.io.logits)].shape.dim[0], 1);
    // The bits of a decode's rows depend on no other row, those of a prefill need not.
    for (const SectionKind kind : {SectionKind::prefill, SectionKind::decode}) {
        const Section& s = program.sections[static_cast<size_t>(program.section(kind))];
        int by_row = 0, matmuls = 0;
        for (int i = s.first_op; i < s.first_op + s.op_count; ++i) {
            const Op& op = program.ops[static_cast<size_t>(i)];
            if (op.kind != OpKind::matmul) continue;
            ++matmuls;
            by_row += op.attrs.matmul.by_row;
        }
        EXPECT_EQ(by_row, kind == SectionKind::decode ? matmuls : 1) << section_kind_name(kind);
    }
}

TEST(ModelProgram, TheCacheHoldsTheContextAskedFor) {
    const Program program = program_of("tiny", {"--generate.context=24"}, Purpose::generate);
    int caches = 0;
    for (const Tensor& tensor : program.tensors) {
        if (tensor.role != Role::kv_cache) continue;
        ++caches;
        EXPECT_EQ(tensor.shape.dim[1], 24) << tensor.name;
    }
    EXPECT_EQ(caches, 2 * load_run("tiny").model.num_hidden_layers);
    const Tensor& prompt = program.tensors[static_cast<size_t>(program.io.prompt_tokens)];
    EXPECT_EQ(prompt.shape.dim[1], 24) << "a chunk of 64 is cut to the context";
}

TEST(ModelProgram, EvaluationSavesNothing) {
    const Program program = program_of("llama2-7b", {});
    const Section& s =
        program.sections[static_cast<size_t>(program.section(SectionKind::evaluate))];
    for (int i = s.first_op; i < s.first_op + s.op_count; ++i) {
        const Op& op = program.ops[static_cast<size_t>(i)];
        for (int k = 0; k < op.operand_count; ++k)
            if (op.operand[k] != kNoTensor) {
                EXPECT_NE(program.tensors[static_cast<size_t>(op.operand[k])].role, Role::saved);
            }
    }
}

}  // namespace
}  // namespace plumb
