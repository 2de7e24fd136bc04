// The paths of the CUDA attention kernels that the case table does not reach: every padded head
// size, heads that are whole packs and heads that are not, more keys than a tile, heads too wide
// for the tiles, a decode of several parts with many query heads. Bounds are those of the table:
// the fp64 reference with the error that each element may have.
#include <gtest/gtest.h>

#include "tests/kernels/bound_case.h"
#include "tests/kernels/reference.h"

namespace plumb::testing {
namespace {

class AttentionTiles : public ::testing::TestWithParam<Isa> {};

void expect_reference(const KernelCase& c, const Values& values, Isa isa) {
    Operands<Tracked> expected;
    for (const auto& v : values) expected.emplace_back(v.begin(), v.end());
    run_reference(c, test_scalars(), &expected, rounds_weights(c, isa));
    BoundCase one(c, values, isa, 1), reversed(c, values, isa, 2);
    for (BoundCase* bound : {&one, &reversed}) {
        bound->poison_outputs();
        bound->run();
        EXPECT_TRUE(bound->red_zones_intact()) << c.name;
    }
    for (int i = 0; i < c.operands(); ++i) {
        const auto& e = expected[static_cast<size_t>(i)];
        for (size_t j = 0; j < e.size(); ++j) {
            const double got = one.get(i, static_cast<int64_t>(j)), t = tolerance_of(e[j]);
            ASSERT_GE(got, rounded_to(c.dtype(i), e[j].value - t))
                << c.name << " " << i << " " << j;
            ASSERT_LE(got, rounded_to(c.dtype(i), e[j].value + t))
                << c.name << " " << i << " " << j;
        }
        EXPECT_EQ(std::memcmp(one.operand(i).data(), reversed.operand(i).data(),
                              static_cast<size_t>(one.operand(i).size_bytes())),
                  0)
            << c.name << " " << i;
    }
}

// The backward case of what the forward reference gives, d_o scaled.
void expect_gradients(int64_t b, int64_t t, Heads heads, Dtype dtype, double scale, Isa isa) {
    const KernelCase forward = in_dtype(attention_case(OpKind::attention, b, t, heads), dtype);
    const KernelCase c = in_dtype(attention_case(OpKind::attention_backward, b, t, heads), dtype);
    Values values = fill_case(c, 9);
    Values o = {values[3], values[4], values[2], values[5]};
    run_reference(forward, test_scalars(), &o);
    for (size_t i = 0; i < o[0].size(); ++i)
        values[3][i] = dtype == Dtype::f32 ? static_cast<double>(static_cast<float>(o[0][i]))
                                           : rounded_to(dtype, o[0][i]);
    for (size_t i = 0; i < o[1].size(); ++i)
        values[4][i] = static_cast<double>(static_cast<float>(o[1][i]));
    for (double& x : values[1]) x = rounded_to(dtype, x * scale);
    expect_reference(c, values, isa);
}

TEST_P(AttentionTiles, ForwardOfEveryHeadSize) {
    for (const int64_t size : {8, 16, 64, 80, 96, 128})
        for (const Dtype dtype : {Dtype::bf16, Dtype::f16}) {
            const KernelCase c =
                in_dtype(attention_case(OpKind::attention, 1, 19, {2, 1, size}), dtype);
            expect_reference(c, fill_case(c, 7), GetParam());
        }
    for (const int64_t size : {100, 200, 256, 264})
        for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) {
            const KernelCase c =
                in_dtype(attention_case(OpKind::attention, 1, 9, {1, 1, size}), dtype);
            expect_reference(c, fill_case(c, 7), GetParam());
        }
}

// Several blocks of queries, warps in them and tiles of keys, in each shape of block.
TEST_P(AttentionTiles, ForwardOfManyTiles) {
    for (const auto& [tokens, heads] :
         {std::pair<int64_t, Heads>{150, {2, 1, 16}}, {290, {1, 1, 72}}, {150, {1, 1, 136}}}) {
        const KernelCase c =
            in_dtype(attention_case(OpKind::attention, 1, tokens, heads), Dtype::bf16);
        Values values = fill_case(c, 8);
        expect_reference(c, values, GetParam());
        // One segment.
        std::fill(values[3].begin(), values[3].end(), 0.0);
        expect_reference(c, values, GetParam());
    }
}

TEST_P(AttentionTiles, BackwardOfEveryHeadSize) {
    for (const int64_t size : {16, 64, 80, 96, 128})
        for (const Dtype dtype : {Dtype::bf16, Dtype::f16})
            expect_gradients(1, 11, {2, 1, size}, dtype, 1.0, GetParam());
    for (const int64_t size : {100, 200, 264})
        for (const Dtype dtype : {Dtype::f32, Dtype::bf16})
            expect_gradients(1, 9, {1, 1, size}, dtype, 1.0, GetParam());
}

TEST_P(AttentionTiles, BackwardOfManyTiles) {
    for (const Dtype dtype : {Dtype::bf16, Dtype::f16})
        expect_gradients(1, 140, {2, 1, 16}, dtype, 1.0, GetParam());
    expect_gradients(1, 150, {2, 1, 72}, Dtype::bf16, 1.0, GetParam());
    expect_gradients(1, 80, {1, 1, 136}, Dtype::bf16, 1.0, GetParam());
}

// Gradients of scores beyond f16 on either side.
TEST_P(AttentionTiles, BackwardOfLargeAndSmallGradients) {
    for (const double scale : {0x1p-14, 0x1p13})
        expect_gradients(1, 37, {2, 2, 24}, Dtype::f16, scale, GetParam());
    for (const double scale : {0x1p-60, 0x1p60})
        expect_gradients(1, 37, {2, 2, 24}, Dtype::bf16, scale, GetParam());
}

TEST_P(AttentionTiles, DecodeOfSeveralParts) {
    for (const int64_t size : {5, 128, 136})
        for (const Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::f16}) {
            const KernelCase c = in_dtype(
                attention_case(OpKind::attention_cached, 2, 2, {5, 1, size}, 140, 3), dtype);
            expect_reference(c, fill_case(c, 12), GetParam());
        }
}

// What a row gives depends on no other row, nor on the size of the cache.
TEST_P(AttentionTiles, ADecodeDependsOnItsOwnRowOnly) {
    using O = AttentionCachedOperands;
    const Heads heads{4, 2, 40};
    const int64_t row = 2 * 40, all = 150;
    for (const int64_t tokens : {1, 7}) {
        const KernelCase c =
            in_dtype(attention_case(OpKind::attention_cached, 3, tokens, heads, all), Dtype::bf16);
        const Values values = fill_case(c, 13);
        BoundCase three(c, values, GetParam(), 1);
        three.run();
        const int64_t cache =
            static_cast<int64_t>(values[O::positions][static_cast<size_t>(tokens * 3 - 1)]) + 1;
        const KernelCase d = in_dtype(
            attention_case(OpKind::attention_cached, 1, tokens, heads, cache), Dtype::bf16);
        Values last(static_cast<size_t>(d.operands()));
        for (const int i : {O::o, O::qkv, O::positions}) {
            const auto& from = values[static_cast<size_t>(i)];
            last[static_cast<size_t>(i)].assign(from.begin() + d.shape[i].elements() * 2,
                                                from.end());
        }
        for (const int i : {O::k_cache, O::v_cache}) {
            const auto from = values[static_cast<size_t>(i)].begin() + 2 * all * row;
            last[static_cast<size_t>(i)].assign(from, from + cache * row);
        }
        BoundCase one(d, last, GetParam(), 2);
        one.run();
        EXPECT_EQ(std::memcmp(one.at<uint16_t>(O::o),
                              three.at<uint16_t>(O::o) + 2 * d.shape[O::o].elements(),
                              static_cast<size_t>(d.shape[O::o].elements()) * 2),
                  0)
            << tokens;
    }
}

INSTANTIATE_TEST_SUITE_P(Kernels, AttentionTiles, ::testing::ValuesIn(tested_isas()),
                         [](const auto& tested) { return std::string(isa_name(tested.param)); });

}  // namespace
}  // namespace plumb::testing
