#include "kernels/cuda/gemm_choices.h"

#include <gtest/gtest.h>

#include "kernels/kernels.h"

namespace plumb::cuda {
namespace {

const GemmHeading kHere = {"NVIDIA H200", 130002, 32 * kMiB};

ProductKey product(int64_t m) {
    ProductKey p = {};
    p.m = m;
    p.n = p.k = p.a_stride = p.b_stride = p.c_stride = 64;
    p.a_align = p.b_align = p.c_align = 16;
    return p;
}
GemmEntry entry(int64_t m, uint8_t algorithm) {
    return {product(m), 1500, 4, {algorithm}};
}

// The products of a run whose algorithms are found by measuring.
void choose(GemmChoices* choices, std::initializer_list<int64_t> sizes, uint8_t algorithm) {
    for (const int64_t m : sizes) {
        choices->bind(product(m));
        if (const GemmEntry* given = choices->given(product(m)))
            choices->take(*given);
        else
            choices->add_tuned(entry(m, algorithm), 2.5);
    }
}
uint8_t algorithm_in(const std::string& text, int64_t m) {
    GemmTable table;
    EXPECT_EQ(parse_gemm_table(text, &table), "");
    const GemmEntry* found = find_entry(table, product(m));
    return found == nullptr ? 0 : found->algorithm[0];
}

TEST(GemmChoices, AreOffUntilTheyAreUsed) {
    GemmChoices choices;
    EXPECT_FALSE(choices.measures());
    EXPECT_EQ(choices.products().table, "");
    EXPECT_EQ(choices.use(kHere, "", false), "");
    EXPECT_FALSE(choices.measures());
    EXPECT_EQ(choices.use(kHere, ""), "");
    EXPECT_TRUE(choices.measures());
    EXPECT_EQ(choices.given(product(1)), nullptr);
}

TEST(GemmChoices, WhatOneRunMeasuredTheNextTakes) {
    GemmChoices first;
    ASSERT_EQ(first.use(kHere, ""), "");
    choose(&first, {3, 1, 2}, 7);
    const GpuProducts products = first.products();
    EXPECT_EQ(products.tuned, 3);
    EXPECT_EQ(products.taken, 0);
    EXPECT_EQ(products.tuning_ms, 7.5);

    GemmChoices second;
    ASSERT_EQ(second.use(kHere, products.table), "");
    choose(&second, {2, 3, 1}, 8);
    EXPECT_EQ(second.products().tuned, 0);
    EXPECT_EQ(second.products().taken, 3);
    EXPECT_EQ(second.products().table, products.table);

    // One with another shape more keeps what it does not use.
    GemmChoices third;
    ASSERT_EQ(third.use(kHere, products.table), "");
    choose(&third, {2, 9}, 8);
    EXPECT_EQ(third.products().tuned, 1);
    EXPECT_EQ(third.products().taken, 1);
    const std::string table = third.products().table;
    for (const int64_t m : {1, 2, 3}) EXPECT_EQ(algorithm_in(table, m), 7);
    EXPECT_EQ(algorithm_in(table, 9), 8);
}

TEST(GemmChoices, AnAlgorithmThatIsRefusedIsReplaced) {
    GemmChoices first, second;
    first.use(kHere, "");
    choose(&first, {1, 2}, 7);
    ASSERT_EQ(second.use(kHere, first.products().table), "");
    second.add_tuned(entry(1, 9), 1);
    EXPECT_EQ(algorithm_in(second.products().table, 1), 9);
    EXPECT_EQ(algorithm_in(second.products().table, 2), 7);
}

TEST(GemmChoices, ATableOfAnotherMachineOrDamagedIsNotUsed) {
    GemmChoices first;
    first.use(kHere, "");
    choose(&first, {1, 2}, 7);
    const std::string table = first.products().table;
    GemmHeading newer = kHere;
    newer.cublaslt_version = 130100;
    GemmChoices second;
    EXPECT_EQ(second.use(newer, table), "its cuBLASLt is 130002, this one is 130100");
    EXPECT_EQ(second.given(product(1)), nullptr);
    choose(&second, {1}, 8);
    EXPECT_EQ(second.products().tuned, 1);
    EXPECT_EQ(algorithm_in(second.products().table, 1), 8);
    EXPECT_EQ(algorithm_in(second.products().table, 2), 0);

    GemmChoices third;
    EXPECT_EQ(third.use(kHere, table.substr(0, table.size() / 2)).rfind("line ", 0), 0u);
    EXPECT_TRUE(third.measures());
    EXPECT_EQ(third.given(product(1)), nullptr);
}

// A process that trains in one folder and then in another: its products are made once.
TEST(GemmChoices, WhatIsChosenStaysForTheNextFolder) {
    GemmChoices choices;
    choices.use(kHere, "");
    choose(&choices, {1}, 7);
    GemmChoices elsewhere;
    elsewhere.use(kHere, "");
    choose(&elsewhere, {1, 2}, 9);
    ASSERT_EQ(choices.use(kHere, elsewhere.products().table), "");
    EXPECT_EQ(choices.products().tuned + choices.products().taken, 0);
    EXPECT_EQ(algorithm_in(choices.products().table, 1), 7);
    EXPECT_EQ(algorithm_in(choices.products().table, 2), 9);
}

// A program's products are hashed, whatever else is in the table or was bound before it.
TEST(GemmChoices, TheHashIsOfWhatIsBound) {
    GemmChoices first, second;
    first.use(kHere, "");
    EXPECT_EQ(first.products().bound_hash, Hash128{});
    choose(&first, {2, 1}, 7);
    const Hash128 both = first.products().bound_hash;
    choose(&first, {3}, 7);
    const GpuProducts three = first.products();
    EXPECT_NE(three.bound_hash, both);

    ASSERT_EQ(second.use(kHere, three.table), "");
    choose(&second, {1, 2}, 9);
    EXPECT_EQ(second.products().bound_hash, both);
    EXPECT_EQ(second.products().table, three.table);
    second.use(kHere, three.table);
    EXPECT_EQ(second.products().bound_hash, Hash128{}) << "another program";
    second.bind(product(2));
    EXPECT_NE(second.products().bound_hash, both) << "and no others of this process";
    second.bind(product(1));
    second.bind(product(2));
    EXPECT_EQ(second.products().bound_hash, both) << "known, and bound again";

    GemmChoices other;
    other.use(kHere, "");
    choose(&other, {1, 2}, 8);
    EXPECT_NE(other.products().bound_hash, both);
}

#ifdef PLUMB_CUDA_EMULATION

TEST(GemmChoices, OfTheEmulatedGpuAreKeptToo) {
    const auto gpu = open_gpu();
    EXPECT_EQ(gpu->use_products("nonsense", true), "line 1: it is missing or cut");
    const int64_t before = gpu->products().tuned;
    const Attrs attrs = {};
    // A shape that no other test has.
    Shape shape[kMaxOperands] = {};
    shape[MatmulOperands::y] = make_shape(71, 24);
    shape[MatmulOperands::x] = make_shape(71, 40);
    shape[MatmulOperands::w] = make_shape(24, 40);
    void* data[kMaxOperands] = {};
    const auto allocate = [&](int64_t size_bytes) { return gpu->allocate(size_bytes); };
    for (const int i : {MatmulOperands::y, MatmulOperands::x, MatmulOperands::w})
        data[i] = allocate(shape[i].elements() * 4);
    DeviceRecord device;
    ASSERT_TRUE(named_device("cuda-sm80", 1, &device));
    Op op;
    op.kind = OpKind::matmul;
    op.dtype = Dtype::f32;
    const int64_t scratch_bytes = cuda_traits().scratch_bytes(op, shape, device);
    void* scratch = allocate(scratch_bytes);
    KernelArgs args{&attrs, shape, data, scratch, scratch_bytes, nullptr, 0, 1};
    args.stream = gpu->stream(GpuLane::compute);
    const Kernel kernel = kernel_table(Isa::sm80).kernel[static_cast<int>(OpKind::matmul)][0];
    for (const bool tf32 : {false, true, false}) {
        args.tf32 = tf32;
        gpu->begin_preparing();
        kernel(args);
        gpu->end_preparing();
    }
    const GpuProducts products = gpu->products();
    EXPECT_EQ(products.tuned, before + 2);
    GemmTable table;
    ASSERT_EQ(parse_gemm_table(products.table, &table), "");
    EXPECT_EQ(table.heading.gpu, gpu->name());
    int64_t found = 0;
    for (const GemmEntry& e : table.entries) found += e.product.m == 71 && e.product.k == 40;
    EXPECT_EQ(found, 2);
    EXPECT_EQ(gpu->use_products(products.table, true), "");
    for (void* memory :
         {data[MatmulOperands::y], data[MatmulOperands::x], data[MatmulOperands::w], scratch})
        gpu->release(memory);
}

#endif

}  // namespace
}  // namespace plumb::cuda
