// Texts with placeholders, as in key_pattern, key_extractor and topic_pattern: "user:{after.id}:profile".
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "config/schema.h"

namespace prism::config {

// Literal texts and fields, alternating as they stand; never two literals in a row. Plain value.
struct Template {
  struct Part {
    bool field = false;
    std::string text;  // of a field: its name without braces
    bool operator==(const Part&) const = default;
  };
  std::vector<Part> parts;

  bool operator==(const Template&) const = default;
};

// A field is letters, digits, '_' and '.', beginning with a letter or '_'. Braces cannot be written otherwise. At most
// 1024 bytes. Reason INVALID_PLACEHOLDER.
Result<Template> parse_template(std::string_view text);

// An option of this form. `fields` are the names that may stand in braces; one that ends with '.' allows any name
// behind it ("after."). `literal` (ECMAScript, empty: anything) must match each text between them. Reasons
// INVALID_PLACEHOLDER, UNKNOWN_PLACEHOLDER, INVALID_VALUE.
struct TemplateText {
  std::vector<std::string> fields = {};
  std::string literal = {};
  std::string expects = {};  // what `literal` asks for, in words

  TypeInfo info() const;
  bool parse(const Node& node, Template& out, Diagnostics& diagnostics) const;
};

}  // namespace prism::config
