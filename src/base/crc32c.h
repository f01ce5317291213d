// CRC-32C (Castagnoli, RFC 3720 appendix B.4), the checksum of payloads and objects.
#pragma once

#include <cstdint>
#include <string_view>

namespace prism {

// Continues `crc` (0 to begin) over `data`. Uses SSE 4.2 where the processor has it; about 60 us a MiB there.
std::uint32_t crc32c(std::uint32_t crc, std::string_view data) noexcept;

}  // namespace prism
