// CRC-32C (Castagnoli): the checksum of TFRecord framing, in which TensorBoard's event files are
// kept. As in RFC 3720, section 12.1 and appendix B.4: polynomial 0x1edc6f41, bits reflected,
// initial value and final xor all ones; the check value of "123456789" is 0xe3069283. A table of a
// byte per lookup: it sees a few hundred bytes per step.
// Path: hot.
#pragma once

#include "runtime/base/types.h"

namespace plumb {

uint32_t crc32c(const void* data, int64_t size_bytes) noexcept;

}  // namespace plumb
