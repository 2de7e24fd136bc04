#include "runtime/base/digest.h"

#include <gtest/gtest.h>

#include <vector>

#include "runtime/base/dtype.h"

namespace plumb {
namespace {

TEST(Digest, AnySplitGivesTheSameSum) {
    std::vector<uint32_t> bits(1001);
    for (size_t i = 0; i < bits.size(); ++i) bits[i] = static_cast<uint32_t>(i * 2654435761u);
    const uint64_t key = digest_key("param", "h.0.attn.q.weight");
    const Hash128 whole = digest_elements(key, 5, bits.data(), 1001);
    for (const int64_t cut : {0, 1, 500, 1000, 1001}) {
        const Hash128 head = digest_elements(key, 5, bits.data(), cut);
        const Hash128 tail = digest_elements(key, 5 + cut, bits.data() + cut, 1001 - cut);
        EXPECT_EQ(digest_add(tail, head), whole) << cut;
    }
}

TEST(Digest, NarrowPatternsCountAsWideOnes) {
    std::vector<uint8_t> bytes(3001);
    std::vector<uint16_t> halves(3001);
    std::vector<uint32_t> wide8, wide16;
    for (size_t i = 0; i < bytes.size(); ++i) {
        halves[i] = static_cast<uint16_t>(i * 40503u);
        bytes[i] = static_cast<uint8_t>(halves[i] >> 7);
        wide16.push_back(halves[i]);
        wide8.push_back(bytes[i]);
    }
    EXPECT_EQ(digest_elements(9, 7, bytes.data(), 3001), digest_elements(9, 7, wide8.data(), 3001));
    EXPECT_EQ(digest_elements(9, 7, halves.data(), 3001),
              digest_elements(9, 7, wide16.data(), 3001));
}

// Term by term: the vectors' sums carry as 128-bit numbers do.
TEST(Digest, ALongRunIsTheSumOfItsElements) {
    std::vector<uint32_t> bits(5000);
    for (size_t i = 0; i < bits.size(); ++i) bits[i] = static_cast<uint32_t>(i * i * 2654435761u);
    Hash128 sum;
    for (int64_t i = 0; i < 5000; ++i)
        sum = digest_add(sum, digest_elements(77, i, &bits[static_cast<size_t>(i)], 1));
    EXPECT_EQ(digest_elements(77, 0, bits.data(), 5000), sum);
}

TEST(Digest, EverySingleBitPositionAndTensorMatters) {
    const std::vector<uint32_t> bits(64, 0x3f800000u);
    const uint64_t key = digest_key("param", "a");
    const Hash128 reference = digest_elements(key, 0, bits.data(), 64);
    for (size_t i = 0; i < 64; ++i) {
        for (int b = 0; b < 32; ++b) {
            auto flipped = bits;
            flipped[i] ^= uint32_t{1} << b;
            EXPECT_NE(digest_elements(key, 0, flipped.data(), 64), reference);
        }
    }
    EXPECT_NE(digest_elements(key, 1, bits.data(), 64), reference);
    EXPECT_NE(digest_elements(digest_key("param", "b"), 0, bits.data(), 64), reference);
    EXPECT_NE(digest_elements(digest_key("moment1", "a"), 0, bits.data(), 64), reference);
}

// Of pairs of 16-bit halves as of the masters that they join to, across the blocks of joining.
TEST(Digest, MasterPairsCountAsTheirMasters) {
    for (const size_t count : {1U, 255U, 256U, 257U, 1003U}) {
        std::vector<uint32_t> bits(count);
        std::vector<uint16_t> high(count), low(count);
        for (size_t i = 0; i < count; ++i) {
            bits[i] = static_cast<uint32_t>(i * 2654435761u) & 0xBFFFFFFFu;  // no NaN
            high[i] = split_master(bits[i]).high;
            low[i] = split_master(bits[i]).low;
        }
        const auto n = static_cast<int64_t>(count);
        EXPECT_EQ(digest_masters(7, 11, high.data(), low.data(), n),
                  digest_elements(7, 11, bits.data(), n));
    }
}

TEST(Digest, SwappedElementsDiffer) {
    const uint32_t ab[] = {1, 2};
    const uint32_t ba[] = {2, 1};
    EXPECT_NE(digest_elements(3, 0, ab, 2), digest_elements(3, 0, ba, 2));
}

}  // namespace
}  // namespace plumb
