#include "base/text.h"

#include <algorithm>

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

std::string shown(std::string_view name) {
  std::string out;
  out.reserve(std::min(name.size(), kShownBytes + 3));
  for (std::size_t i = 0; i < name.size();) {
    const std::size_t n = utf8_sequence(name.substr(i));
    if (out.size() + std::max<std::size_t>(n, 1) > kShownBytes) return out + "...";
    const auto c = static_cast<unsigned char>(name[i]);
    if (n == 0 || c < 0x20 || c == 0x7F) {
      out += '?';
      ++i;
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
