// proves: F-27
// Texts with something to put in: ${env:NAME} and ${file:PATH} when the file is read, {field} in templates.
#include <algorithm>
#include <string>

#include "config/document.h"
#include "config/template.h"
#include "fuzz.h"

namespace prism::config {
namespace {

constexpr std::string_view kValue = "hunter2-secret";

void substitute(std::string_view text) {
  // As a single-quoted YAML scalar, which YAML itself leaves as it is.
  std::string quoted = "'";
  for (const char c : text) {
    if (c == '\n' || c == '\r') return;  // YAML folds lines
    quoted += c;
    if (c == '\'') quoted += c;
  }
  quoted += '\'';
  LoadOptions options;
  options.base_directory = "/nonexistent";
  options.environment = [](const std::string& name) {
    return name == "SECRET" ? std::optional<std::string>(kValue) : std::nullopt;
  };
  Diagnostics diagnostics;
  const auto node = load_text(quoted, options, diagnostics);
  REQUIRE(node.has_value() != diagnostics.has_errors());
  if (text.find(kValue) == std::string_view::npos) {
    REQUIRE(format_text(diagnostics).find(kValue) == std::string::npos);
    if (node) REQUIRE(node->display().find(kValue) == std::string::npos);
  }
  if (!node) return;
  if (text.find("${") == std::string_view::npos) {
    REQUIRE(!node->substituted());
    REQUIRE(node->text() == text);
  }
  if (node->substituted()) REQUIRE(node->text().find(kValue) != std::string::npos);
}

void placeholders(std::string_view text) {
  const auto parsed = parse_template(text);
  if (!parsed) {
    REQUIRE(parsed.error().reason == "INVALID_PLACEHOLDER");
    return;
  }
  std::string again;
  for (const Template::Part& part : parsed->parts) {
    REQUIRE(!part.text.empty());
    again += part.field ? "{" + part.text + "}" : part.text;
  }
  REQUIRE(again == text);
}

}  // namespace
}  // namespace prism::config

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text = prism::fuzz::text_of(data, size);
  prism::config::substitute(text);
  prism::config::placeholders(text);
  return 0;
}
