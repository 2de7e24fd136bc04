#include <gtest/gtest.h>

#include "tests/kernels/bound_case.h"

namespace plumb::testing {
namespace {

class Inference : public ::testing::TestWithParam<Isa> {};

// Attention with a cache, prefilled in any chunks and decoded token by token, is attention: the
// same sums in another order, each output an average of values of size about 1, so within a few
// hundred ulps of 1 at most and in fact within 1e-6.
TEST_P(Inference, CachedAttentionOfAnyChunkingIsAttention) {
    const int64_t batch = 2, tokens = 141, width = (4 + 2 * 2) * 24;
    const Heads heads{4, 2, 24};
    const KernelCase full = attention_case(OpKind::attention, batch, tokens, heads);
    Values values = fill_case(full, 3);
    std::fill(values[3].begin(), values[3].end(), 0.0);
    BoundCase expected(full, values, GetParam(), 1);
    expected.run();
    for (const int64_t chunk : {1, 3, 5, 64, 70, 141}) {
        Values cache;
        for (int64_t begin = 0; begin < tokens; begin += chunk) {
            // The last chunk keeps its size; what is past the end is padding.
            const KernelCase part =
                attention_case(OpKind::attention_cached, batch, chunk, heads, tokens);
            Values v = fill_case(part, 4);
            if (begin == 0)
                for (const size_t side : {1U, 2U})
                    std::fill(v[side].begin(), v[side].end(),
                              std::numeric_limits<double>::quiet_NaN());
            else
                v[1] = cache[0], v[2] = cache[1];
            for (int64_t b = 0; b < batch; ++b)
                for (int64_t t = 0; t < chunk; ++t) {
                    const bool real = begin + t < tokens;
                    v[4][static_cast<size_t>(b * chunk + t)] =
                        real ? static_cast<double>(begin + t) : -1.0;
                    for (int64_t i = 0; real && i < width; ++i)
                        v[3][static_cast<size_t>((b * chunk + t) * width + i)] =
                            values[2][static_cast<size_t>((b * tokens + begin + t) * width + i)];
                }
            BoundCase bound(part, v, GetParam(), 2);
            bound.run();
            cache.assign(2, {});
            for (const int side : {1, 2})
                for (int64_t i = 0; i < part.shape[side].elements(); ++i)
                    cache[static_cast<size_t>(side - 1)].push_back(bound.get(side, i));
            for (int64_t b = 0; b < batch; ++b)
                for (int64_t t = 0; t < chunk; ++t)
                    for (int64_t i = 0; i < 4 * 24; ++i) {
                        const double o = bound.get(0, (b * chunk + t) * 96 + i);
                        if (begin + t >= tokens)
                            ASSERT_EQ(o, 0.0);
                        else
                            ASSERT_NEAR(o, expected.get(0, (b * tokens + begin + t) * 96 + i), 1e-6)
                                << "chunk " << chunk << " token " << begin + t;
                    }
        }
    }
}

// A row that streams its weights has the same bits among any number of rows.
TEST_P(Inference, ARowOfADecodeDependsOnNoOther) {
    const int64_t rows_max = 21;
    for (const auto& [inputs, outputs] : {std::pair<int64_t, int64_t>{37, 19}, {64, 150}}) {
        const Epilogue epilogue{true, true, false, true};
        KernelCase whole = matmul_case(rows_max, inputs, outputs, epilogue);
        whole.attrs.matmul.by_row = 1;
        const Values values = fill_case(whole, 5);
        BoundCase all(whole, values, GetParam(), 2);
        all.run();
        for (int64_t rows = 1; rows < rows_max; ++rows) {
            KernelCase part = matmul_case(rows, inputs, outputs, epilogue);
            part.attrs.matmul.by_row = 1;
            // The last rows of all.
            Values v = values;
            const int64_t skipped = rows_max - rows;
            v[2].erase(v[2].begin(), v[2].begin() + skipped * inputs);
            v[5].erase(v[5].begin(), v[5].begin() + skipped * outputs);
            BoundCase some(part, v, GetParam(), 1);
            some.run();
            ASSERT_EQ(std::memcmp(some.at<float>(0), all.at<float>(0) + skipped * outputs,
                                  static_cast<size_t>(rows * outputs) * sizeof(float)),
                      0)
                << rows << " rows of " << inputs << " to " << outputs;
        }
    }
}

TEST_P(Inference, LossIgnoresATargetOfWeightZeroOnly) {
    const KernelCase c = head_loss_case(true, 5, 8, 33, 2);
    Values values = fill_case(c, 6);
    values[5] = {1, 2, 1 << 30, -7, 32};
    values[6] = {0.5, 1, 0, 0, 2};
    values[0] = {0};
    BoundCase all(c, values, GetParam(), 1);
    all.run();
    for (int64_t i = 0; i < 8; ++i) {
        EXPECT_EQ(all.get(1, 2 * 8 + i), 0.0);
        EXPECT_EQ(all.get(1, 3 * 8 + i), 0.0);
    }
    EXPECT_GT(all.get(0, 0), 0.0);
    values[6][3] = 1;
    ::testing::GTEST_FLAG(death_test_style) = "threadsafe";
    EXPECT_DEATH(BoundCase(c, values, GetParam(), 1).run(), "target id outside the vocabulary");
}

INSTANTIATE_TEST_SUITE_P(Kernels, Inference, ::testing::ValuesIn(tested_isas()),
                         [](const auto& tested) { return std::string(isa_name(tested.param)); });

TEST(Dispatch, EveryOpButTheHostOpsHasAKernelInEveryTable) {
    for (const Isa isa : tested_isas()) {
        const KernelTable& table = kernel_table(isa);
        EXPECT_EQ(table.isa, isa);
        for (int kind = 0; kind < kOpKindCount; ++kind) {
            const bool host = op_row(static_cast<OpKind>(kind)).lane == Lane::host;
            EXPECT_EQ(table.kernel[kind][0] == nullptr, host) << kind;
        }
    }
}

// An op with operands of the value dtype has kernels of all three; the digest of f16 weights is
// that of their f32 masters.
TEST(Dispatch, OpsOnValuesHaveKernelsOfEveryValueDtype) {
    for (const Isa isa : tested_isas())
        for (int kind = 0; kind < kOpKindCount; ++kind) {
            const OpRow& row = op_row(static_cast<OpKind>(kind));
            bool values = false;
            for (int i = 0; i < row.operand_count; ++i)
                values |= row.operand[i].rule != DtypeRule::fixed;
            const Kernel* kernel = kernel_table(isa).kernel[kind];
            EXPECT_EQ(kernel[value_index(Dtype::bf16)] != nullptr, values) << row.name;
            EXPECT_EQ(kernel[value_index(Dtype::f16)] != nullptr,
                      values && row.kind != OpKind::digest)
                << row.name;
        }
}

TEST(Dispatch, DeviceRecords) {
    const DeviceRecord host = host_device(2);
    EXPECT_STREQ(host.name, "host");
    EXPECT_EQ(host.isa, host_isa());
    EXPECT_EQ(host.threads, 2);
    for (const Isa isa : {Isa::portable, Isa::avx2, Isa::avx512, Isa::avx512_bf16}) {
        DeviceRecord record{};
        ASSERT_TRUE(named_device((std::string("cpu-") + isa_name(isa)).c_str(), 5, &record));
        EXPECT_EQ(record.isa, isa);
        EXPECT_EQ(record.threads, 5);
    }
    DeviceRecord record{};
    for (const Isa isa : {Isa::sm80, Isa::sm90}) {
        ASSERT_TRUE(named_device((std::string("cuda-") + isa_name(isa)).c_str(), 5, &record));
        EXPECT_EQ(record.isa, isa);
        EXPECT_EQ(record.threads, 1);  // threads are a CPU's
    }
    EXPECT_FALSE(named_device("cpu-mmx", 1, &record));
    EXPECT_FALSE(named_device("cuda-sm81", 1, &record));
}

// Scratch of a GPU depends on shapes only, so that the bits of a result do not depend on the GPU.
TEST(Traits, ScratchOfCudaKernelsIsAlignedAndTheSameForEveryGpu) {
    DeviceRecord sm80{}, sm90{};
    ASSERT_TRUE(named_device("cuda-sm80", 1, &sm80) && named_device("cuda-sm90", 1, &sm90));
    std::vector<KernelCase> cases = small_cases_of_all_dtypes();
    for (const KernelCase& c : model_cases(4, 1024, 768, 50257))
        for (const Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::f16})
            if (kernel_table(Isa::portable).kernel[static_cast<int>(c.kind)][value_index(dtype)] !=
                nullptr)
                cases.push_back(in_dtype(c, dtype));
    for (const KernelCase& c : cases) {
        const int64_t bytes = cuda_traits().scratch_bytes(c.op(), c.shape, sm80);
        EXPECT_GE(bytes, 0) << c.name;
        EXPECT_EQ(bytes % kAlignBytes, 0) << c.name;
        EXPECT_EQ(cuda_traits().scratch_bytes(c.op(), c.shape, sm90), bytes) << c.name;
    }
}

// A plan made for more threads must give each of them its part, and never less than one thread's.
TEST(Traits, ScratchGrowsWithThreadsAndIsZeroWhereNothingIsNeeded) {
    for (const Isa isa : {Isa::portable, Isa::avx2, Isa::avx512, Isa::avx512_bf16}) {
        DeviceRecord one{}, four{};
        const std::string name = std::string("cpu-") + isa_name(isa);
        ASSERT_TRUE(named_device(name.c_str(), 1, &one) && named_device(name.c_str(), 4, &four));
        const auto bytes = [](const KernelCase& c, const DeviceRecord& device) {
            return cpu_traits().scratch_bytes(c.op(), c.shape, device);
        };
        for (const KernelCase& c : small_cases()) {
            EXPECT_GE(bytes(c, four), bytes(c, one)) << c.name;
            EXPECT_EQ(bytes(c, one) % kAlignBytes, 0) << c.name;
        }
        EXPECT_EQ(bytes(matmul_case(1, 768, 50257, {}), one), 0);
        EXPECT_EQ(bytes(flat_case(OpKind::adamw, 1000), four), 0);
        EXPECT_GT(bytes(matmul_case(64, 64, 64, {}), one), 0);
        KernelCase decode = matmul_case(64, 64, 64, {});
        decode.attrs.matmul.by_row = 1;
        EXPECT_EQ(bytes(decode, four), 0);
        // One row of fp64 weights for each thread that has a row.
        EXPECT_EQ(bytes(sample_case(1, 1000), four), 8000);
        EXPECT_EQ(bytes(sample_case(3, 1000), four), 24000);
        EXPECT_EQ(bytes(sample_case(9, 1000), four), 32000);
    }
}

}  // namespace
}  // namespace plumb::testing
