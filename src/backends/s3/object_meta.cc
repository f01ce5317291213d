#include "backends/s3/object_meta.h"

#include <algorithm>
#include <charconv>
#include <cstdio>

#include "backends/s3/checksum.h"
#include "backends/s3/libcurl.h"
#include "backends/s3/xml.h"
#include "base/base64.h"
#include "base/text.h"

namespace prism::s3 {
namespace {

constexpr std::string_view kMeta = "x-amz-meta-";
constexpr std::string_view kOwn = "prism-";
constexpr std::string_view kEncodedName = "prism-name-";  // and the name in hexadecimal
constexpr std::size_t kMaxMetadata = 2048;                // of AWS

std::unexpected<Error> invalid_key(std::string_view key, std::string_view why) {
  return fail(Code::invalid_argument, "INVALID_OBJECT_KEY", "the object key '" + shown(key) + "' " + std::string(why),
              "keys are relative paths of 1 to 1024 bytes of UTF-8");
}

bool plain_name(std::string_view name) {
  if (name.empty() || name.starts_with(kOwn)) return false;
  return std::ranges::all_of(name, [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'; });
}

bool plain_value(std::string_view value) {
  if (value.empty() || value.front() == ' ' || value.back() == ' ' || value.find("=?") != std::string_view::npos ||
      value.find("  ") != std::string_view::npos)
    return false;
  return std::ranges::all_of(value, [](char c) { return c >= 0x20 && c < 0x7f; });
}

std::string decoded_value(std::string_view value) {
  constexpr std::string_view begin = "=?UTF-8?B?";
  if (value.size() < begin.size() + 2 || !value.starts_with(begin) || !value.ends_with("?=")) return std::string(value);
  const auto text = base64_decode(value.substr(begin.size(), value.size() - begin.size() - 2));
  return text ? *text : std::string(value);
}

std::optional<std::string> from_hex_text(std::string_view text) {
  if (text.size() % 2 != 0) return std::nullopt;
  std::string out;
  for (std::size_t i = 0; i < text.size(); i += 2) {
    unsigned value = 0;
    if (std::from_chars(text.data() + i, text.data() + i + 2, value, 16).ptr != text.data() + i + 2)
      return std::nullopt;
    out += static_cast<char>(value);
  }
  return out;
}

}  // namespace

Result<void> check_key(std::string_view key) {
  if (key.empty()) return invalid_key(key, "is empty");
  if (key.size() > 1024) return invalid_key(key, "has " + std::to_string(key.size()) + " bytes");
  if (key.find('\0') != std::string_view::npos) return invalid_key(key, "contains NUL");
  for (std::size_t i = 0; i < key.size();) {
    const std::size_t n = utf8_sequence(key.substr(i));
    if (n == 0) return invalid_key(key, "is not UTF-8");
    i += n;
  }
  for (std::size_t from = 0; from <= key.size();) {
    const std::size_t to = std::min(key.find('/', from), key.size());
    const std::string_view segment = key.substr(from, to - from);
    if (segment.empty()) return invalid_key(key, "has an empty segment");
    if (segment == "." || segment == "..") return invalid_key(key, "has a segment '" + std::string(segment) + "'");
    from = to + 1;
  }
  return {};
}

Result<HeaderList> meta_headers(const PutOptions& options) {
  HeaderList out;
  std::size_t size = 0;
  for (const auto& [name, value] : options.metadata) {
    const std::string header = plain_name(name) ? name : std::string(kEncodedName) + hex(name);
    const std::string text = plain_value(value) ? value : "=?UTF-8?B?" + base64_encode(value) + "?=";
    size += header.size() + text.size();
    out.emplace_back(std::string(kMeta) + header, text);
  }
  size += kCrcHeader.size() + kPutHeader.size() - 2 * kMeta.size() + 8 + 36;
  if (size > kMaxMetadata) {
    return fail(Code::invalid_argument, "INVALID_METADATA",
                "the metadata have " + std::to_string(size) + " bytes; S3 keeps " + std::to_string(kMaxMetadata));
  }
  const bool printable = std::ranges::all_of(options.content_type, [](char c) { return c >= 0x20 && c < 0x7f; });
  if (!printable || options.content_type.size() > 255)
    return fail(Code::invalid_argument, "INVALID_METADATA", "the content type is not short, printable text");
  out.emplace_back("content-type", options.content_type.empty() ? "application/octet-stream" : options.content_type);
  return out;
}

std::string crc_text(std::uint32_t crc) {
  char text[9];
  std::snprintf(text, sizeof text, "%08x", crc);
  return text;
}

WallTime http_time(std::string_view text) {
  const std::time_t seconds = curl().curl_getdate(std::string(text).c_str(), nullptr);
  return seconds < 0 ? WallTime{} : WallTime(std::chrono::seconds(seconds));
}

Stored stored_of(std::string key, const HttpHead& head) {
  Stored out;
  out.info.key = std::move(key);
  for (const auto& [name, value] : head.headers) {
    if (name == "etag") {
      out.info.etag = without_quotes(value);
    } else if (name == "content-length") {
      if (head.status != 206) out.info.size = std::strtoull(value.c_str(), nullptr, 10);
    } else if (name == "content-range") {  // "bytes 0-9/443"
      const std::size_t slash = value.rfind('/');
      if (slash != std::string::npos) out.info.size = std::strtoull(value.c_str() + slash + 1, nullptr, 10);
    } else if (name == "last-modified") {
      out.info.modified = http_time(value);
    } else if (name == "content-type") {
      out.info.content_type = value;
    } else if (name == "x-amz-checksum-crc32c") {
      if (!out.checksum) out.checksum = parse_checksum(value);
    } else if (name == kCrcHeader) {
      std::uint32_t crc = 0;
      if (std::from_chars(value.data(), value.data() + value.size(), crc, 16).ec == std::errc()) out.checksum = crc;
    } else if (name == kPutHeader) {
      out.put = value;
    } else if (name.starts_with(kMeta)) {
      const std::string_view own = std::string_view(name).substr(kMeta.size());
      if (own.starts_with(kEncodedName)) {
        if (const auto text = from_hex_text(own.substr(kEncodedName.size())))
          out.info.metadata.emplace(*text, decoded_value(value));
      } else if (!own.starts_with(kOwn)) {
        out.info.metadata.emplace(own, decoded_value(value));
      }
    }
  }
  out.info.crc32c = out.checksum.value_or(0);
  return out;
}

}  // namespace prism::s3
