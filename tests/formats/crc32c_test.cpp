#include "formats/crc32c.h"

#include <gtest/gtest.h>

#include <string>

namespace plumb {
namespace {

// RFC 3720, appendix B.4, and the check value of the catalogue of CRCs.
TEST(Crc32c, KnownVectors) {
    EXPECT_EQ(crc32c("123456789", 9), 0xe3069283u);
    EXPECT_EQ(crc32c("", 0), 0u);
    std::string bytes(32, '\0');
    EXPECT_EQ(crc32c(bytes.data(), 32), 0x8a9136aau);
    bytes.assign(32, '\xff');
    EXPECT_EQ(crc32c(bytes.data(), 32), 0x62a8ab43u);
    for (size_t i = 0; i < 32; ++i) bytes[i] = static_cast<char>(i);
    EXPECT_EQ(crc32c(bytes.data(), 32), 0x46dd794eu);
    for (size_t i = 0; i < 32; ++i) bytes[i] = static_cast<char>(31 - i);
    EXPECT_EQ(crc32c(bytes.data(), 32), 0x113fdb5cu);
}

}  // namespace
}  // namespace plumb
