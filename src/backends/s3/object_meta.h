// What is kept beside an object's content, and how it stands in S3's headers.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "backends/s3/http.h"
#include "capabilities/object_store.h"

namespace prism::s3 {

// 1 to 1024 bytes of UTF-8 without NUL, no empty, "." or ".." segment: INVALID_OBJECT_KEY.
Result<void> check_key(std::string_view key);

// The headers that keep the content type and the metadata. S3's metadata are a few header lines of ASCII with names
// without case: what is not so is encoded (RFC 2047, as others read it too). INVALID_METADATA: more than 2 KiB.
Result<HeaderList> meta_headers(const PutOptions& options);

inline constexpr std::string_view kCrcHeader = "x-amz-meta-prism-crc32c";  // 8 hex digits
inline constexpr std::string_view kPutHeader = "x-amz-meta-prism-put";     // names the put, so that it knows its own
std::string crc_text(std::uint32_t crc);

// From the answer to GET or HEAD. `checksum` is nullopt where the store does not know that of the whole content.
struct Stored {
  ObjectInfo info;
  std::optional<std::uint32_t> checksum;
  std::string put;  // kPutHeader
};
Stored stored_of(std::string key, const HttpHead& head);

WallTime http_time(std::string_view text);  // "Sun, 06 Nov 1994 08:49:37 GMT"; 1970 where it is none

}  // namespace prism::s3
