#include "formats/crc32c.h"

#include <array>

namespace plumb {

namespace {

constexpr uint32_t kReflectedPolynomial = 0x82f63b78;

constexpr std::array<uint32_t, 256> remainders() {
    std::array<uint32_t, 256> table{};
    for (uint32_t byte = 0; byte < 256; ++byte) {
        uint32_t rest = byte;
        for (int bit = 0; bit < 8; ++bit)
            rest = (rest >> 1) ^ ((rest & 1) != 0 ? kReflectedPolynomial : 0);
        table[byte] = rest;
    }
    return table;
}

constexpr std::array<uint32_t, 256> kRemainders = remainders();

}  // namespace

uint32_t crc32c(const void* data, int64_t size_bytes) noexcept {
    const auto* bytes = static_cast<const unsigned char*>(data);
    uint32_t rest = ~uint32_t{0};
    for (int64_t i = 0; i < size_bytes; ++i)
        rest = (rest >> 8) ^ kRemainders[(rest ^ bytes[i]) & 0xff];
    return ~rest;
}

}  // namespace plumb
