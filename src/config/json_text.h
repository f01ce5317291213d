// Writing JSON text by hand where the values are few and flat.
#pragma once

#include <string>
#include <string_view>

#include "base/text.h"

namespace prism::config {

// "text" in quotes, escaped; as YAML it is the same text.
inline std::string json_quote(std::string_view text) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string out = "\"";
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      default:
        // What is not seen is escaped: U+007F to U+009F, and of the first plane what marks directions and the like.
        if (const std::size_t n = utf8_sequence(text.substr(i)); n > 0 && n < 4) {
          const char32_t point = utf8_decode(text.substr(i, n));
          if (is_unseen(point)) {
            out += "\\u";
            for (const unsigned shift : {12U, 8U, 4U, 0U}) out += kHex[(point >> shift) & 0xFU];
          } else {
            out += text.substr(i, n);
          }
          i += n - 1;
        } else {
          out += c;
        }
    }
  }
  return out + '"';
}

}  // namespace prism::config
