#include <gtest/gtest.h>

#include "tests/kernels/bound_case.h"

namespace plumb::testing {
namespace {

class Inference : public ::testing::TestWithParam<Isa> {};

KernelCase sample_case(int64_t b, int64_t v) {
    KernelCase c = flat_case(OpKind::sample, b);
    c.shape[1] = make_shape(b, v);
    return c;
}

TEST_P(Inference, GreedyTakesTheLowestOfEquals) {
    const KernelCase c = sample_case(3, 101);
    Values values = fill_case(c, 1);
    for (const int64_t at : {17, 18, 100}) values[1][static_cast<size_t>(at)] = 9.0;
    values[1][101] = 9.0;
    std::fill(values[1].begin() + 202, values[1].end(), -3.0);
    BoundCase bound(c, values, GetParam(), 2);
    bound.scalars.temperature = 0;
    bound.run();
    EXPECT_EQ(bound.at<int32_t>(0)[0], 17);
    EXPECT_EQ(bound.at<int32_t>(0)[1], 0);
    EXPECT_EQ(bound.at<int32_t>(0)[2], 0);
}

// Frequencies of 20,000 draws are within five standard deviations of softmax(logits / T), draws are
// repeatable, and the key matters.
TEST_P(Inference, SamplingFollowsTheSoftmax) {
    const int64_t batch = 200, vocabulary = 7;
    const KernelCase c = sample_case(batch, vocabulary);
    Values values = fill_case(c, 2);
    for (int64_t i = 0; i < batch * vocabulary; ++i)
        values[1][static_cast<size_t>(i)] = static_cast<double>(i % vocabulary) * 0.5;
    BoundCase bound(c, values, GetParam(), 1);
    std::vector<double> count(static_cast<size_t>(vocabulary));
    std::vector<int32_t> draws;
    for (uint64_t turn = 0; turn < 100; ++turn) {
        bound.scalars.sample_counter = turn;
        bound.run();
        for (int64_t b = 0; b < batch; ++b) {
            draws.push_back(bound.at<int32_t>(0)[b]);
            count.at(static_cast<size_t>(draws.back())) += 1;
        }
    }
    double total = 0;
    for (int64_t i = 0; i < vocabulary; ++i) total += std::exp(static_cast<double>(i) * 0.5 / 0.8);
    const double n = static_cast<double>(draws.size());
    for (int64_t i = 0; i < vocabulary; ++i) {
        const double p = std::exp(static_cast<double>(i) * 0.5 / 0.8) / total;
        EXPECT_NEAR(count[static_cast<size_t>(i)] / n, p, 5 * std::sqrt(p * (1 - p) / n)) << i;
    }
    bound.scalars.sample_counter = 99;
    bound.run();
    for (int64_t b = 0; b < batch; ++b)
        EXPECT_EQ(bound.at<int32_t>(0)[b], draws[static_cast<size_t>(99 * batch + b)]);
    bound.scalars.sample_key += 1;
    bound.run();
    int64_t same = 0;
    for (int64_t b = 0; b < batch; ++b)
        same += bound.at<int32_t>(0)[b] == draws[static_cast<size_t>(99 * batch + b)] ? 1 : 0;
    EXPECT_LT(same, batch * 3 / 4);
}

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

INSTANTIATE_TEST_SUITE_P(Kernels, Inference, ::testing::ValuesIn(host_isas()),
                         [](const auto& tested) { return std::string(isa_name(tested.param)); });

TEST(Dispatch, EveryOpButTheHostOpsHasAKernelInEveryTable) {
    for (const Isa isa : host_isas()) {
        const KernelTable& table = kernel_table(isa);
        EXPECT_EQ(table.isa, isa);
        for (int kind = 0; kind < kOpKindCount; ++kind) {
            const bool host = op_row(static_cast<OpKind>(kind)).lane == Lane::host;
            EXPECT_EQ(table.kernel[kind][0] == nullptr, host) << kind;
        }
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
    EXPECT_FALSE(named_device("cpu-mmx", 1, &record));
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
    }
}

}  // namespace
}  // namespace plumb::testing
