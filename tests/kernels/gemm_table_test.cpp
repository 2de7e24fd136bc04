#include "kernels/cuda/gemm_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <memory>

#include "runtime/base/hash.h"
#include "runtime/base/random.h"

namespace plumb::cuda {
namespace {

ProductKey some_product(int64_t m) {
    ProductKey p = {};
    p.m = m;
    p.n = 768;
    p.k = 3072;
    p.a_stride = p.b_stride = 3072;
    p.c_stride = 768;
    p.a_align = p.b_align = p.c_align = 16;
    p.bias_align = 8;
    p.in = Dtype::bf16;
    p.out = Dtype::f32;
    p.b_transposed = true;
    return p;
}

GemmEntry some_entry(int64_t m) {
    GemmEntry e;
    e.product = some_product(m);
    e.time_ns = 12'045 + m;
    e.tried = 8;
    for (size_t i = 0; i < e.algorithm.size(); ++i)
        e.algorithm[i] = static_cast<uint8_t>(static_cast<size_t>(m) * 31 + i * 7);
    return e;
}

GemmTable some_table(int64_t products) {
    GemmTable table{{"NVIDIA H200", 130002, 32 * kMiB}, {}};
    for (int64_t m = 1; m <= products; ++m) table.entries.push_back(some_entry(m));
    return table;
}

// A text with another hash at its end: the one that it should have.
std::string sealed(const std::string& lines) {
    const Hash128 hash = hash128(lines.data(), static_cast<int64_t>(lines.size()));
    return lines + "xxh3 " + to_hex(hash) + "\n";
}
std::string unsealed(const GemmTable& table) {
    const std::string text = format_gemm_table(table);
    return text.substr(0, text.find("xxh3 "));
}

// What is said of a table whose lines have `from` replaced by `to`, under the right hash.
std::string refusal(const std::string& from, const std::string& to) {
    std::string lines = unsealed(some_table(2));
    const size_t at = lines.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    lines.replace(at, from.size(), to);
    GemmTable untouched = some_table(1);
    const std::string error = parse_gemm_table(sealed(lines), &untouched);
    EXPECT_EQ(untouched, some_table(1));
    return error;
}

TEST(GemmTable, IsALineOfTextPerProduct) {
    GemmTable table = some_table(1);
    table.entries[0].algorithm = {0x0F, 0xA0};
    EXPECT_EQ(unsealed(table),
              "plumb gemm algorithms 1\n"
              "gpu NVIDIA H200\n"
              "cublaslt 130002\n"
              "workspace 33554432\n"
              "products 1\n"
              "m n k in out a a_stride b b_stride c_stride a_align b_align c_align add_align "
              "bias_align tf32 time_us tried algorithm\n"
              "1 768 3072 bf16 f32 rows 3072 columns 3072 768 16 16 16 0 8 0 12.046 8 0fa0" +
                  std::string(124, '0') + "\n");
}

TEST(GemmTable, ReadsWhatItWrites) {
    for (const int64_t products : {0, 1, 2, 37, 1024}) {
        const GemmTable table = some_table(products);
        const std::string text = format_gemm_table(table);
        EXPECT_LE(static_cast<int64_t>(text.size()), kGemmTableBytesMax);
        GemmTable read;
        ASSERT_EQ(parse_gemm_table(text, &read), "");
        EXPECT_EQ(read, table);
    }
}

TEST(GemmTable, TheLongestLinesFit) {
    GemmTable table = some_table(kProductsMax);
    constexpr int64_t kLong = (int64_t{1} << 48) - 2 * kProductsMax;
    for (GemmEntry& e : table.entries) {
        ProductKey& p = e.product;
        p.m += kLong;
        p.n = p.k = p.a_stride = p.b_stride = p.c_stride = kLong;
        p.a_transposed = true;
        p.add_align = p.bias_align = kAlignMax;
        e.time_ns = 999'999'999'999;
    }
    const std::string text = format_gemm_table(table);
    EXPECT_LE(static_cast<int64_t>(text.size()), kGemmTableBytesMax);
    GemmTable read;
    ASSERT_EQ(parse_gemm_table(text, &read), "");
    EXPECT_EQ(read, table);
}

TEST(GemmTable, EqualTablesAreEqualTexts) {
    GemmTable table = some_table(9);
    const std::string text = format_gemm_table(table);
    std::reverse(table.entries.begin(), table.entries.end());
    EXPECT_EQ(format_gemm_table(table), text);
}

TEST(GemmTable, RefusesALineByItsNumber) {
    const std::pair<std::pair<const char*, const char*>, const char*> cases[] = {
        {{"algorithms 1", "algorithms 2"}, "line 1: it must be \"plumb gemm algorithms 1\""},
        {{"gpu ", "cpu "}, "line 2: it must begin with \"gpu \""},
        {{"130002", "13000200000"}, "line 3: cublaslt is \"13000200000\"; it must be from 0 to "},
        {{"workspace 33554432", "workspace"}, "line 4: workspace is \"\"; it must be from 0 to "},
        {{"products 2", "products 1025"},
         "line 5: products is \"1025\"; it must be from 0 to 1024"},
        {{"products 2", "products 2 "}, "its hash or spelling is not what was written"},
        {{"products 2", "products 3"}, "line 9: m is \"xxh3\"; it must be from 1 to "},
        {{"products 2", "products 1"}, "line 8: it must begin with \"xxh3 \""},
        {{"m n k", "m k n"}, "line 6: it must name the columns"},
        {{"\n1 768", "\n0 768"}, "line 7: m is \"0\"; it must be from 1 to 281474976710656"},
        {{"\n1 768", "\n-1 768"}, "line 7: m is \"-1\"; "},
        {{"\n1 768", "\n99999999999999999999 768"}, "line 7: m is \"99999999999999999999\"; "},
        {{"\n1 768", "\n1x 768"}, "line 7: m is \"1x\"; "},
        {{"\n1 768", "\n1\x1b[2J 768"}, "line 7: m is \"1?[2J\"; "},
        {{"\n1 768", "\n01 768"}, "its hash or spelling is not what was written"},
        {{"\n1 768", "\n1  768"}, "line 7: n is \"\"; "},
        {{"\n1 768", "\n3 768"}, "line 8: products must be in order, each once"},
        {{"\n1 768", "\n2 768"}, "line 8: products must be in order, each once"},
        {{"bf16 f32", "f64 f32"}, "line 7: in is \"f64\"; it must be f32 or bf16 or f16"},
        {{"rows", "cols"}, "line 7: a is \"cols\"; it must be rows or columns"},
        {{" 16 ", " 15 "}, "line 7: a_align is no power of two"},
        {{" 16 ", " 32 "}, "line 7: a_align is \"32\"; it must be from 1 to 16"},
        {{" 16 ", " 0 "}, "line 7: a_align is \"0\"; it must be from 1 to 16"},
        {{" 0 8 0 ", " 0 8 1 "}, "line 7: tf32 is \"1\"; it must be from 0 to 0"},
        {{"12.046", "12.46"}, "its hash or spelling is not what was written"},
        {{"12.046", "12"}, "line 7: time_us's fraction is \"\"; it must be from 0 to 999"},
        {{"12.046 8", "12.046 9"}, "line 7: tried is \"9\"; it must be from 1 to 8"},
        {{" 8 1f", " 8 1"}, "line 7: the algorithm has 127 digits; it must have 128"},
        {{" 8 1f", " 8 1g"}, "line 7: the algorithm is not in hex"},
        {{" 8 1f", " 8 1F"}, "its hash or spelling is not what was written"},
        {{"\n2 768", " \n2 768"}, "its hash or spelling is not what was written"},
        {{"\n2 768", " 5\n2 768"}, "line 7: there is more in it than there should be"},
    };
    for (const auto& [change, expected] : cases)
        EXPECT_EQ(refusal(change.first, change.second).rfind(expected, 0), 0u)
            << refusal(change.first, change.second) << " instead of " << expected;
}

TEST(GemmTable, RefusesWhatWasCutOrLengthened) {
    const std::string text = format_gemm_table(some_table(3));
    GemmTable read;
    for (size_t size = 0; size < text.size(); ++size)
        EXPECT_NE(parse_gemm_table(text.substr(0, size), &read), "") << size;
    EXPECT_EQ(parse_gemm_table("", &read), "line 1: it is missing or cut");
    EXPECT_EQ(parse_gemm_table(text + "x", &read), "line 11: there should be no more lines");
    EXPECT_EQ(parse_gemm_table(text + std::string(kMiB, 'x'), &read).rfind("it has ", 0), 0u);
    EXPECT_EQ(read, GemmTable{});
}

// Bits of a sound table flipped at random, alone and by the handful, under the hash that was
// written and, as what a wrong program would write, under the right one.
TEST(GemmTable, FlippedBitsNeverMakeAnEntry) {
    const GemmTable table = some_table(5);
    const std::string text = format_gemm_table(table);
    int64_t accepted = 0;
    for (uint64_t turn = 0; turn < 20000; ++turn) {
        std::string damaged = text;
        const int flips = turn % 3 == 0 ? 1 : 1 + static_cast<int>(turn % 7);
        for (int f = 0; f < flips; ++f) {
            const uint64_t bits = random_key(turn, std::to_string(f));
            damaged[bits / 8 % text.size()] ^= static_cast<char>(1 << bits % 8);
        }
        GemmTable read;
        const std::string error = parse_gemm_table(damaged, &read);
        if (damaged == text) continue;  // flipped twice
        EXPECT_NE(error, "") << damaged;
        EXPECT_EQ(read, GemmTable{});
        const std::string lines = damaged.substr(0, damaged.find("xxh3 "));
        if (!parse_gemm_table(sealed(lines), &read).empty()) continue;
        EXPECT_EQ(format_gemm_table(read), sealed(lines));
        ++accepted;
    }
    EXPECT_GT(accepted, 0);  // a digit for a digit: the hash is what finds it
}

TEST(GemmTable, OfAnotherMachineSaysInWhatItDiffers) {
    const GemmHeading here = some_table(0).heading;
    EXPECT_EQ(difference(here, here), "");
    EXPECT_EQ(difference({"NVIDIA A100", 130002, 32 * kMiB}, here),
              "its GPU is NVIDIA A100, this one is NVIDIA H200");
    EXPECT_EQ(difference({"NVIDIA H200", 120402, 32 * kMiB}, here),
              "its cuBLASLt is 120402, this one is 130002");
    EXPECT_EQ(difference({"NVIDIA H200", 130002, kMiB}, here),
              "its workspace has 1048576 bytes, this one 33554432");
}

TEST(GemmTable, FindsAProductByAllOfItsKey) {
    const GemmTable table = some_table(20);
    for (const GemmEntry& e : table.entries) EXPECT_EQ(find_entry(table, e.product), &e);
    ProductKey other = some_product(7);
    other.a_align = 8;
    EXPECT_EQ(find_entry(table, other), nullptr);
    EXPECT_EQ(find_entry(table, some_product(21)), nullptr);
    EXPECT_EQ(find_entry(GemmTable{}, other), nullptr);
}

TEST(GemmTable, WhatIsChosenNowReplacesWhatWasChosenBefore) {
    GemmTable now = some_table(0);
    now.entries = {some_entry(12), some_entry(3)};
    now.entries[1].time_ns = 1;
    const GemmTable both = merged(some_table(10), now);
    ASSERT_EQ(both.entries.size(), 11u);
    EXPECT_EQ(find_entry(both, some_product(3))->time_ns, 1);
    EXPECT_EQ(*find_entry(both, some_product(4)), some_entry(4));
    EXPECT_EQ(*find_entry(both, some_product(12)), some_entry(12));
    GemmTable read;
    EXPECT_EQ(parse_gemm_table(format_gemm_table(both), &read), "");

    now.entries.push_back(some_entry(5000));
    const GemmTable full = merged(some_table(kProductsMax), now);
    EXPECT_EQ(full.entries.size(), static_cast<size_t>(kProductsMax));
    EXPECT_EQ(*find_entry(full, some_product(5000)), some_entry(5000));
    EXPECT_EQ(find_entry(full, some_product(kProductsMax)), nullptr);
}

TEST(GemmTable, ItsFileIsNamedSafelyAndForOneHeading) {
    const GemmHeading h200 = {"NVIDIA H200", 130002, 32 * kMiB};
    const std::string name = table_file_name(h200);
    EXPECT_EQ(name.substr(0, 28), "gemm_algorithms-NVIDIA-H200-");
    EXPECT_EQ(name.size(), 28u + 8 + 4);
    EXPECT_EQ(table_file_name(h200), name);
    for (const GemmHeading& other : {GemmHeading{"NVIDIA-H200", 130002, 32 * kMiB},
                                     GemmHeading{"NVIDIA H200", 130003, 32 * kMiB},
                                     GemmHeading{"NVIDIA H200", 130002, 16 * kMiB}})
        EXPECT_NE(table_file_name(other), name);
    const std::string hostile = table_file_name({"../\n\xff" + std::string(1000, 'x'), 1, 1});
    EXPECT_EQ(hostile.substr(0, 21), "gemm_algorithms------");
    EXPECT_EQ(hostile.find_first_of("/\n\xff"), std::string::npos);
    EXPECT_LT(hostile.size(), 80u);
}

TEST(GemmTable, TheHashIsOfAlgorithmsAndNotOfTimes) {
    const GemmTable table = some_table(3);
    const Hash128 hash = algorithms_hash(table);
    GemmTable other = table;
    for (GemmEntry& e : other.entries) e.time_ns += 5, e.tried = 2;
    EXPECT_EQ(algorithms_hash(other), hash);
    const auto expect_other = [&](const char* what, const auto& change) {
        GemmTable changed = table;
        change(changed);
        EXPECT_NE(algorithms_hash(changed), hash) << what;
    };
    expect_other("algorithm", [](GemmTable& t) { t.entries[1].algorithm[63] ^= 1; });
    expect_other("size", [](GemmTable& t) { t.entries[1].product.k = 7; });
    expect_other("alignment", [](GemmTable& t) { t.entries[1].product.bias_align = 4; });
    expect_other("one more", [](GemmTable& t) { t.entries.push_back(some_entry(4)); });
    expect_other("GPU", [](GemmTable& t) { t.heading.gpu = "NVIDIA A100"; });
    expect_other("library", [](GemmTable& t) { t.heading.cublaslt_version = 130100; });
    EXPECT_EQ(algorithms_hash(some_table(0)), Hash128{});
}

TEST(GemmTable, NearTiesGoToTheFirstCandidate) {
    constexpr float kNever = std::numeric_limits<float>::infinity();
    const auto choose = [](std::initializer_list<float> us) {
        return choose_candidate(us.begin(), static_cast<int>(us.size()));
    };
    EXPECT_EQ(choose({10}), 0);
    EXPECT_EQ(choose({10, 9}), 1);
    EXPECT_EQ(choose({10.05F, 11, 10}), 0);
    EXPECT_EQ(choose({10.2F, 10.05F, 10}), 1);
    EXPECT_EQ(choose({kNever, 11, 10.95F}), 1);
    EXPECT_EQ(choose({kNever, kNever}), 0);
}

Gemm some_gemm(const char* data) {
    return {64,
            32,
            16,
            Dtype::bf16,
            {data, 16, false},
            {data, 16, true},
            Dtype::f32,
            const_cast<char*>(data),
            32};
}

TEST(ProductKey, KnowsAlignmentsButNotAddresses) {
    alignas(64) static char data[1024];
    const ProductKey key = key_of(some_gemm(data));
    EXPECT_EQ(key.m, 64);
    EXPECT_EQ(key.a_align, 16);
    EXPECT_EQ(key.add_align, 0);
    EXPECT_EQ(key.bias_align, 0);
    EXPECT_EQ(key_of(some_gemm(data + 16)), key);
    EXPECT_EQ(key_of(some_gemm(data + 24)).c_align, 8);
    Gemm g = some_gemm(data);
    g.add = data + 64;
    g.bias = data + 4;
    EXPECT_EQ(key_of(g).add_align, 16);
    EXPECT_EQ(key_of(g).bias_align, 4);
}

TEST(ProductKey, KnowsTf32OfF32Only) {
    Gemm g = some_gemm(nullptr);
    g.tf32 = true;
    EXPECT_FALSE(key_of(g).tf32);
    g.in = Dtype::f32;
    EXPECT_TRUE(key_of(g).tf32);
}

TEST(ProductIndex, FindsEachOfAllItHasRoomFor) {
    const auto index = std::make_unique<ProductIndex>();
    // Keys that differ in one field each, then in m alone.
    std::vector<ProductKey> keys(12, some_product(1));
    keys[0].m = keys[1].n = keys[2].k = keys[3].a_stride = keys[4].b_stride = keys[5].c_stride = 99;
    keys[6].a_align = keys[7].add_align = keys[8].bias_align = 4;
    keys[9].in = keys[10].out = Dtype::f16;
    keys[11].tf32 = true;
    for (int64_t m = 2; keys.size() < static_cast<size_t>(kProductsMax); ++m)
        if (m != 99) keys.push_back(some_product(m * 64));
    for (const ProductKey& key : keys) {
        EXPECT_EQ(index->find(key), -1);
        const int number = index->add(key);
        EXPECT_EQ(index->key(number), key);
    }
    for (size_t i = 0; i < keys.size(); ++i) EXPECT_EQ(index->find(keys[i]), static_cast<int>(i));
    EXPECT_EQ(index->find(some_product(1)), -1);
    EXPECT_EQ(index->count(), kProductsMax);
    EXPECT_DEATH(index->add(some_product(1)), "more kinds of products");
}

}  // namespace
}  // namespace plumb::cuda
