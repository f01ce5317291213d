// CRC-32C as S3 writes it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/base64.h"

namespace prism::s3 {

// Base64 of the four bytes, the highest first.
inline std::string checksum_text(std::uint32_t crc) {
  const char bytes[] = {static_cast<char>(crc >> 24), static_cast<char>(crc >> 16), static_cast<char>(crc >> 8),
                        static_cast<char>(crc)};
  return base64_encode(std::string_view(bytes, sizeof bytes));
}

// nullopt: not of a whole object ("...-3" is that of the checksums of parts), or no checksum.
inline std::optional<std::uint32_t> parse_checksum(std::string_view text) {
  const auto bytes = base64_decode(text);
  if (!bytes || bytes->size() != 4) return std::nullopt;
  std::uint32_t crc = 0;
  for (const char byte : *bytes) crc = crc << 8 | static_cast<unsigned char>(byte);
  return crc;
}

}  // namespace prism::s3
