#include "config/template.h"

#include <algorithm>
#include <regex>

#include "config/suggestions.h"

namespace prism::config {
namespace {

constexpr std::size_t kMaxBytes = 1024;
constexpr std::size_t kShown = 40;  // of a field, in a message

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_name(std::string_view text) {
  return !text.empty() && is_letter(text.front()) && text.back() != '.' && text.find("..") == std::string_view::npos &&
         std::ranges::all_of(text, [](char c) { return is_letter(c) || (c >= '0' && c <= '9') || c == '.'; });
}

std::unexpected<Error> bad(std::string why, std::string hint) {
  return fail(Code::invalid_argument, "INVALID_PLACEHOLDER", std::move(why), std::move(hint));
}

bool allowed(std::string_view field, const std::vector<std::string>& fields) {
  return std::ranges::any_of(fields, [&](const std::string& known) {
    return known.ends_with('.') ? field.size() > known.size() && field.starts_with(known) : field == known;
  });
}

std::string listed(const std::vector<std::string>& fields) {
  std::string out;
  for (const std::string& field : fields) {
    out += (out.empty() ? "{" : ", {") + field + (field.ends_with('.') ? "...}" : "}");
  }
  return out;
}

}  // namespace

Result<Template> parse_template(std::string_view text) {
  if (text.size() > kMaxBytes) return bad("the text is above 1024 bytes", {});
  Template out;
  while (!text.empty()) {
    const std::size_t brace = text.find_first_of("{}");
    if (brace != 0) out.parts.push_back({.field = false, .text = std::string(text.substr(0, brace))});
    if (brace == std::string_view::npos) break;
    if (text[brace] == '}') return bad("a '}' closes no placeholder", "write a placeholder as {name}");
    text.remove_prefix(brace + 1);
    const std::size_t end = text.find_first_of("{}");
    if (end == std::string_view::npos) return bad("a '{' is not closed", "write a placeholder as {name}");
    const std::string_view name = text.substr(0, end);
    if (text[end] == '{')
      return bad("a '{' stands inside of a placeholder", "write a placeholder as {name}, with one brace");
    if (name.empty()) return bad("'{}' names no field", "write a placeholder as {name}");
    if (!is_name(name)) {
      return bad("'{" + std::string(name.substr(0, kShown)) + "}' is no placeholder",
                 "a field is letters, digits, '_' and '.', for example {id} or {after.id}");
    }
    out.parts.push_back({.field = true, .text = std::string(name)});
    text.remove_prefix(end + 1);
  }
  return out;
}

TypeInfo TemplateText::info() const {
  TypeInfo out;
  out.form = TypeInfo::Form::string;
  out.name = "text with placeholders" + (fields.empty() ? std::string() : " " + listed(fields));
  return out;
}

bool TemplateText::parse(const Node& node, Template& out, Diagnostics& diagnostics) const {
  std::string text;
  if (!Text{.expects = "text with placeholders"}.parse(node, text, diagnostics)) return false;
  auto parsed = parse_template(text);
  if (!parsed) {
    diagnostics.error(node, parsed.error().reason,
                      node.hidden() ? "the value of " + node.display() + " has a wrong placeholder"
                                    : "in " + node.display() + ", " + parsed.error().message,
                      parsed.error().hint);
    return false;
  }
  bool good = true;
  for (const Template::Part& part : parsed->parts) {
    if (part.field && !allowed(part.text, fields)) {
      const std::string shown =
          node.hidden() ? std::string("a placeholder") : "'{" + part.text.substr(0, kShown) + "}'";
      const auto meant = node.hidden() ? std::nullopt : nearest(part.text, fields);
      diagnostics.error(node, "UNKNOWN_PLACEHOLDER",
                        "in " + node.display() + ", " + shown + " is no field that there is",
                        meant ? "did you mean {" + *meant + "}?" : "there are " + listed(fields));
      good = false;
    } else if (!part.field && !literal.empty() && !std::regex_match(part.text, std::regex(literal))) {
      diagnostics.error(node, "INVALID_VALUE",
                        "the text around the placeholders of " + node.display() + " must be " + expects);
      good = false;
    }
  }
  if (good) out = std::move(*parsed);
  return good;
}

}  // namespace prism::config
