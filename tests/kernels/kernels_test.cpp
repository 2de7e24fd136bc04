#include <gtest/gtest.h>

#include <array>

#include "tests/kernels/bound_case.h"
#include "tests/kernels/reference.h"

namespace plumb::testing {
namespace {

// Saved values that a backward op takes from its forward op are made by the reference forward.
void fill_saved(const KernelCase& c, Values* values) {
    auto& v = *values;
    const auto round = [](Dtype dtype, double x) {
        return dtype == Dtype::f32 ? static_cast<double>(static_cast<float>(x))
                                   : rounded_to(dtype, x);
    };
    const auto take = [&](const Operands<double>& operands, int from, int to) {
        for (size_t i = 0; i < v[static_cast<size_t>(to)].size(); ++i)
            v[static_cast<size_t>(to)][i] =
                round(c.dtype(to), operands[static_cast<size_t>(from)][i]);
    };
    if (c.kind == OpKind::norm_backward) {
        KernelCase forward =
            norm_case(c.shape[0].rows(), c.shape[0].last(), c.attrs.norm.kind, false, true);
        Operands<double> o = {v[4], v[5], v[4], v[6], {}};
        run_reference(forward, test_scalars(), &o);
        take(o, 1, 5);
    }
    if (c.kind == OpKind::attention_backward) {
        const AttentionAttrs& a = c.attrs.attention;
        KernelCase forward = attention_case(OpKind::attention, c.shape[0].dim[0], c.shape[0].dim[1],
                                            {a.heads, a.kv_heads, a.head_size});
        Operands<double> o = {v[3], v[4], v[2], v[5]};
        run_reference(forward, test_scalars(), &o);
        take(o, 0, 3);
        take(o, 1, 4);
    }
}

// Rounding is monotonic: a result within the fp32 error of the expected value is stored as
// something between the two ends of that interval, rounded.
void compare(const KernelCase& c, BoundCase& bound, const Operands<Tracked>& expected, Isa isa) {
    for (int i = 0; i < c.operands(); ++i) {
        const auto& e = expected[static_cast<size_t>(i)];
        int64_t wrong = 0;
        size_t first = 0;
        for (size_t j = 0; j < e.size(); ++j) {
            const double got = bound.get(i, static_cast<int64_t>(j)), t = tolerance_of(e[j]);
            if (got >= rounded_to(c.dtype(i), e[j].value - t) &&
                got <= rounded_to(c.dtype(i), e[j].value + t))
                continue;
            if (wrong++ == 0) first = j;
        }
        if (wrong == 0) continue;
        ADD_FAILURE() << c.name << " " << isa_name(isa) << " operand " << i << ": " << wrong
                      << " of " << e.size() << " elements out of tolerance, the first " << first
                      << ": " << bound.get(i, static_cast<int64_t>(first)) << " instead of "
                      << e[first].value << " +- " << tolerance_of(e[first]);
    }
}

Operands<Tracked> expected_of(const KernelCase& c, const Values& values, Isa isa) {
    Operands<Tracked> expected;
    for (const auto& v : values) expected.emplace_back(v.begin(), v.end());
    run_reference(c, test_scalars(), &expected, rounds_weights(c, isa));
    return expected;
}

// On a GPU the bias of a product of 16-bit values enters it rounded (kernels/cuda/matmul.cu).
bool round_bias(const KernelCase& c, Values* values) {
    if (c.kind != OpKind::matmul || !is_half(c.value_dtype)) return false;
    for (double& x : (*values)[MatmulOperands::bias]) x = rounded_to(c.value_dtype, x);
    return true;
}

class SmallCases : public ::testing::TestWithParam<KernelCase> {};

// Every instruction set against fp64 within the fp32 error of the op; 1, 2 and 3 threads bit-equal.
TEST_P(SmallCases, MatchTheReference) {
    KernelCase c = GetParam();
    if (c.kind == OpKind::adamw) c.attrs.state.decay = 1;
    Values values = fill_case(c, 5);
    fill_saved(c, &values);
    Operands<Tracked> expected = expected_of(c, values, Isa::portable);
    for (const Isa isa : tested_isas()) {
        if (rounds_weights(c, isa) || (is_cuda(isa) && round_bias(c, &values)))
            expected = expected_of(c, values, isa);
        BoundCase one(c, values, isa, 1);
        one.poison_outputs();
        one.run();
        EXPECT_TRUE(one.red_zones_intact()) << c.name << " " << isa_name(isa);
        compare(c, one, expected, isa);
        for (const int32_t threads : {2, 3}) {
            BoundCase many(c, values, isa, threads);
            many.poison_outputs();
            many.run();
            EXPECT_TRUE(many.red_zones_intact()) << c.name << " " << isa_name(isa);
            for (int i = 0; i < c.operands(); ++i)
                EXPECT_EQ(std::memcmp(one.operand(i).data(), many.operand(i).data(),
                                      static_cast<size_t>(one.operand(i).size_bytes())),
                          0)
                    << c.name << " " << isa_name(isa) << " operand " << i << " threads " << threads;
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Kernels, SmallCases, ::testing::ValuesIn(small_cases_of_all_dtypes()),
                         [](const auto& tested) {
                             return std::to_string(tested.index) + "_" + tested.param.name;
                         });

// What recomputation of activations rests on: gelu of the saved argument is the epilogue's output,
// by the bit, for streamed rows and for tiles, whole and ragged, in every value dtype.
void check_gelu_apart(int64_t n, int64_t i, int64_t o, Dtype dtype, Isa isa) {
    const KernelCase product = in_dtype(matmul_case(n, i, o, {true, true, true, false}), dtype);
    const KernelCase apart = in_dtype(flat_case(OpKind::gelu, n * o), dtype);
    BoundCase fused(product, fill_case(product, 7), isa, 1);
    fused.run();
    BoundCase gelu(apart, fill_case(apart, 7), isa, 1);
    Buffer& x = gelu.operand(GeluOperands::x);
    Buffer& y = gelu.operand(GeluOperands::y);
    std::memcpy(x.data(), fused.operand(MatmulOperands::pre).data(),
                static_cast<size_t>(x.size_bytes()));
    gelu.run();
    EXPECT_EQ(std::memcmp(y.data(), fused.operand(MatmulOperands::y).data(),
                          static_cast<size_t>(y.size_bytes())),
              0)
        << product.name << " " << isa_name(isa);
}

TEST(Gelu, HasTheBitsOfTheEpilogue) {
    for (const auto& [n, i, o] : {std::array<int64_t, 3>{3, 64, 65}, {24, 513, 97}, {97, 40, 11}})
        for (const Isa isa : tested_isas())
            for (const Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::f16})
                if (kernel_of(OpKind::matmul, dtype, isa) != nullptr)
                    check_gelu_apart(n, i, o, dtype, isa);
}

}  // namespace
}  // namespace plumb::testing
