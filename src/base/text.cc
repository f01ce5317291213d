#include "base/text.h"

#include <algorithm>
#include <array>
#include <cstdio>

namespace prism {
std::size_t utf8_sequence(std::string_view text) noexcept {
  const auto at = [&](std::size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U; };
  const auto follow = [&](std::size_t n) {
    for (std::size_t i = 1; i < n; ++i) {
      if ((at(i) & 0xC0) != 0x80) return std::size_t{0};
    }
    return n;
  };
  if (text.empty()) return 0;
  const unsigned c = at(0);
  if (c < 0x80) return 1;
  if (c >= 0xC2 && c <= 0xDF) return follow(2);
  // Neither overlong, nor a surrogate, nor above U+10FFFF.
  if (c == 0xE0 && at(1) < 0xA0) return 0;
  if (c == 0xED && at(1) > 0x9F) return 0;
  if (c >= 0xE0 && c <= 0xEF) return follow(3);
  if (c == 0xF0 && at(1) < 0x90) return 0;
  if (c == 0xF4 && at(1) > 0x8F) return 0;
  if (c >= 0xF0 && c <= 0xF4) return follow(4);
  return 0;
}

char32_t utf8_decode(std::string_view sequence) noexcept {
  const auto byte = [&](std::size_t i) { return static_cast<char32_t>(static_cast<unsigned char>(sequence[i])); };
  if (sequence.size() == 1) return byte(0);
  char32_t out = byte(0) & (sequence.size() == 2 ? 0x1FU : sequence.size() == 3 ? 0x0FU : 0x07U);
  for (std::size_t i = 1; i < sequence.size(); ++i) out = (out << 6U) | (byte(i) & 0x3FU);
  return out;
}

bool is_unseen(char32_t c) noexcept {
  if (c < 0x20 || (c >= 0x7F && c <= 0x9F)) return true;
  if (c < 0xAD) return false;
  return c == 0xAD || c == 0x61C || c == 0x180E || (c >= 0x200B && c <= 0x200F) || (c >= 0x2028 && c <= 0x202E) ||
         (c >= 0x2060 && c <= 0x206F) || c == 0xFEFF || (c >= 0xFFF9 && c <= 0xFFFB) || (c >= 0xE0000 && c <= 0xE0FFF);
}

std::string made_visible(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t length = utf8_sequence(text.substr(i));
    if (length == 0) {
      if ((static_cast<unsigned char>(text[i]) & 0xC0U) != 0x80U) out += '?';  // once for a character
    } else if (text[i] == '\n' || text[i] == '\r' || text[i] == '\t') {
      out += ' ';
    } else if (const char32_t c = utf8_decode(text.substr(i, length)); is_unseen(c)) {
      std::array<char, 16> escape{};
      std::snprintf(escape.data(), escape.size(), c > 0xFFFF ? "\\U%08X" : "\\u%04X", static_cast<unsigned>(c));
      out += escape.data();
    } else {
      out.append(text, i, length);
    }
    i += std::max<std::size_t>(length, 1);
  }
  return out;
}

std::string shown(std::string_view name) {
  std::string out;
  out.reserve(std::min(name.size(), kShownBytes + 3));
  for (std::size_t i = 0; i < name.size();) {
    const std::size_t n = utf8_sequence(name.substr(i));
    if (out.size() + std::max<std::size_t>(n, 1) > kShownBytes) return out + "...";
    if (n == 0) {
      out += '?';
      ++i;
    } else if (is_unseen(utf8_decode(name.substr(i, n)))) {
      out += '?';
      i += n;
    } else {
      out += name.substr(i, n);
      i += n;
    }
  }
  return out;
}

std::string counted(std::uint64_t count, std::string_view noun) {
  return std::to_string(count) + " " + std::string(noun) + (count == 1 ? "" : "s");
}

}  // namespace prism
