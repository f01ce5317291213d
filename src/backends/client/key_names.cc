#include "backends/client/key_names.h"

#include <charconv>

namespace prism::client {
namespace {

constexpr std::size_t kSegment = 200;
constexpr char kNothing = '!';

// 0: the byte stands for itself.
constexpr char sign_of(unsigned char byte) {
  if (byte < '0') return '!';
  if (byte <= '9') return 0;
  if (byte < 'A') return '=';
  if (byte <= 'Z') return 0;
  if (byte < 'a') return '_';
  if (byte <= 'z') return 0;
  return '~';
}

std::string encode(std::string_view text) {
  static constexpr char digits[] = "0123456789abcdef";
  std::string out;
  out.reserve(text.size() + text.size() / 2);
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (const char sign = sign_of(byte)) {
      out += sign;
      out += digits[byte >> 4];
      out += digits[byte & 15];
    } else {
      out += c;
    }
  }
  return out;
}

}  // namespace

std::string key_name_prefix(std::string_view prefix) {
  const std::string encoded = encode(prefix);
  std::string out;
  for (std::size_t at = 0; at < encoded.size(); at += kSegment) {
    if (at > 0) out += '/';
    out += encoded.substr(at, kSegment);
  }
  return out;
}

std::string key_name(std::string_view key) {
  const std::size_t size = encode(key).size();
  std::string out = key_name_prefix(key);
  if (size > 0 && size % kSegment == 0) {
    out += '/';
    out += kNothing;
  }
  return out;
}

std::optional<std::string> key_of_name(std::string_view name) {
  std::string encoded;
  for (const char c : name) {
    if (c != '/') encoded += c;
  }
  if (encoded.size() % kSegment == 1 && encoded.size() > 1 && encoded.back() == kNothing) encoded.pop_back();
  std::string out;
  for (std::size_t i = 0; i < encoded.size(); ++i) {
    if (sign_of(static_cast<unsigned char>(encoded[i])) == 0) {
      out += encoded[i];
      continue;
    }
    unsigned value = 0;
    if (i + 2 >= encoded.size()) return std::nullopt;
    const char* const from = encoded.data() + i + 1;
    if (std::from_chars(from, from + 2, value, 16).ptr != from + 2) return std::nullopt;
    out += static_cast<char>(value);
    i += 2;
  }
  // Only the one way in which a key is written leads to it.
  if (out.empty() || key_name(out) != name) return std::nullopt;
  return out;
}

}  // namespace prism::client
