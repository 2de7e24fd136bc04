#include <gtest/gtest.h>

#include "tests/kernels/bound_case.h"

// Packed products of bf16 matrices (more than 8 rows) have the same bits on every instruction set
// and with any number of threads, whether pairs are multiplied by vdpbf16ps or in fp32
// (kernels/cpu/products.h).

namespace plumb::testing {
namespace {

std::vector<KernelCase> cases() {
    // K odd and even, within one block of 512 and beyond it; tiles whole and in part.
    std::vector<KernelCase> cases;
    for (const int64_t k : {1, 2, 33, 512, 513, 1031}) {
        cases.push_back(matmul_case(9, k, 5, {true, false, false, false}));
        cases.push_back(matmul_case(37, k, 67, {true, false, false, true}));
        cases.push_back(matmul_dx_case(37, 67, k, k % 2 == 0));
        cases.push_back(matmul_dw_case(k, 67, 37, true, true));
    }
    KernelCase wide = matmul_case(25, 515, 40, {false, false, false, false});
    wide.attrs.matmul.wide = 1;
    wide.name += "_wide";
    cases.push_back(wide);
    cases.push_back(matmul_case(1157, 514, 33, {false, false, false, false}));
    cases.push_back(matmul_case(13, 514, 1031, {false, false, false, false}));
    for (KernelCase& c : cases) c = in_dtype(c, Dtype::bf16);
    return cases;
}

TEST(MatmulBits, Bf16IsTheSameOnEveryInstructionSet) {
    for (const KernelCase& c : cases()) {
        Values values = fill_case(c, 8);
        // No product near the subnormals, which vdpbf16ps takes and makes as zero.
        for (auto& operand : values)
            for (double& x : operand)
                if (std::fabs(x) < 0x1p-20) x = 0;
        BoundCase first(c, values, Isa::portable, 1);
        first.poison_outputs();
        first.run();
        for (const Isa isa : tested_isas()) {
            if (is_cuda(isa)) continue;
            for (const int32_t threads : {1, 2, 3}) {
                BoundCase other(c, values, isa, threads);
                other.poison_outputs();
                other.run();
                for (int i = 0; i < c.operands(); ++i)
                    EXPECT_EQ(std::memcmp(first.operand(i).data(), other.operand(i).data(),
                                          static_cast<size_t>(first.operand(i).size_bytes())),
                              0)
                        << c.name << " " << isa_name(isa) << " threads " << threads << " operand "
                        << i;
            }
        }
    }
}

}  // namespace
}  // namespace plumb::testing
