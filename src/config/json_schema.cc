#include "config/json_schema.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <regex>
#include <utility>
#include <vector>

#include "config/units.h"

namespace prism::config {
namespace {

// A type and one more: a scalar that may also be given as text, or as null.
void allow(Json& schema, std::string_view type) {
  if (schema.contains("anyOf")) {
    schema["anyOf"].push_back({{"type", type}});
  } else if (schema.contains("type")) {
    Json& types = schema["type"];
    if (types.is_string()) types = Json::array({types});
    if (std::ranges::find(types, Json(type)) == types.end()) types.push_back(type);
  }
}

std::string whole(std::string_view pattern) {
  return "^(?:" + std::string(pattern) + ")$|" + std::string(kSubstitutionPattern);
}

// Units as config/units.h reads them.
const std::string& size_pattern() {
  static const std::string pattern = R"([0-9]+(\.[0-9]+)?([ _]?([kKmMgGtTpP][iI]?)?[bB])?)";
  return pattern;
}
const std::string& duration_pattern() {
  static const std::string pattern = [] {
    std::string units;
    for (const std::string_view unit : duration_units()) {
      units += (units.empty() ? "" : "|") + any_case_pattern(unit);
    }
    const std::string number = R"([0-9]+(\.[0-9]+)?)";
    return number + "|(" + number + "[ _]?(" + units + ")[ _]?)+";
  }();
  return pattern;
}

// To a schema a text without quotes that looks like a number is one; is there any such that the pattern takes?
bool matches_some(const std::string& pattern, const std::vector<std::string>& texts) {
  if (pattern.empty()) return true;
  const std::regex regex(pattern);
  return std::ranges::any_of(texts, [&](const std::string& text) { return std::regex_match(text, regex); });
}
std::vector<std::string> numbers() {
  std::vector<std::string> out{"1.5", "-1"};
  for (std::size_t digits = 1; digits < 20; ++digits) out.emplace_back(digits, '1');
  return out;
}

template <class Read>
void put_bound(Json& schema, const char* keyword, const std::string& text, Read read) {
  if (text.empty()) return;
  if (const auto value = read(text)) schema[keyword] = *value;
}

std::optional<std::uint64_t> bytes(const std::string& text) {
  const auto value = parse_size(text);
  return value ? std::optional(*value) : std::nullopt;
}
// As a whole number where it is one, which is how people write it.
std::optional<Json> seconds(const std::string& text) {
  const auto value = parse_duration(text);
  if (!value || !*value) return std::nullopt;
  constexpr std::int64_t kSecond = 1'000'000'000;
  const std::int64_t count = (*value)->count();
  if (count % kSecond == 0) return Json(count / kSecond);
  return Json(static_cast<double>(count) / static_cast<double>(kSecond));
}
std::optional<std::int64_t> integer(const std::string& text) {
  try {
    return std::stoll(text);
  } catch (const std::exception&) {
    return std::nullopt;
  }
}

Json as_json(const Node& node, const TypeInfo& type) {
  switch (node.kind()) {
    case Node::Kind::null:
      return nullptr;
    case Node::Kind::sequence: {
      Json out = Json::array();
      for (const Node& item : node.items()) out.push_back(as_json(item, type.element ? *type.element : TypeInfo{}));
      return out;
    }
    case Node::Kind::map: {
      Json out = Json::object();
      for (const Entry& entry : node.entries()) {
        const FieldInfo* field = type.object ? type.object->find(entry.key) : nullptr;
        out[entry.key] = as_json(entry.value, field != nullptr ? field->type
                                              : type.element   ? *type.element
                                                               : TypeInfo{});
      }
      return out;
    }
    case Node::Kind::scalar:
      break;
  }
  const std::string& text = node.text();
  if (node.quoted()) return text;
  if (text == "true" || text == "false") {
    if (type.form == TypeInfo::Form::boolean || type.form == TypeInfo::Form::any) return text == "true";
  }
  const bool numeric = type.form == TypeInfo::Form::integer || type.form == TypeInfo::Form::size ||
                       type.form == TypeInfo::Form::duration || type.form == TypeInfo::Form::any;
  if (numeric && !text.empty() && text.find_first_not_of("0123456789") == std::string::npos) {
    if (const auto number = integer(text)) return *number;
  }
  return text;
}

// What stands beside the declaration's own words in an editor.
std::string described(const FieldInfo& field) {
  std::string out = field.description;
  const auto add = [&](const std::string& sentence) {
    if (sentence.empty()) return;
    if (!out.empty()) out += out.ends_with('.') ? " " : ". ";
    out += sentence;
  };
  if (const std::string bounds = bounds_text(field.type); !bounds.empty()) add("It is " + bounds + ".");
  if (!field.type.unit.empty()) add("A bare number is in " + field.type.unit + ".");
  if (field.default_text && *field.default_text != "\"\"") add("Default: " + *field.default_text + ".");
  add(available_text(field));
  if (field.secret) add("A secret: write ${env:NAME} or ${file:PATH}.");
  if (!field.deprecated.empty()) add("Deprecated: use " + field.deprecated + ".");
  return out;
}

// These values of the type and no other; none: nothing may stand there.
Json only(const TypeInfo& type, const std::vector<std::string>& values) {
  if (values.empty()) return {{"not", Json::object()}};
  Json shown = Json::array();
  std::string pattern;
  for (const std::string& value : values) {
    shown.push_back(json_value(value, type));
    pattern += (pattern.empty() ? "" : "|") + any_case_pattern(value);
  }
  return {{"anyOf", {{{"enum", std::move(shown)}}, {{"type", "string"}, {"pattern", whole(pattern)}}}}};
}

const FieldInfo* target_of(const SchemaInfo& info, std::string_view target) {
  const std::size_t dot = target.find('.');
  const FieldInfo* field = info.find(target.substr(0, dot));
  return dot == std::string_view::npos ? field : target_of(*field->type.object, target.substr(dot + 1));
}

}  // namespace

std::string any_case_pattern(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c >= 'a' && c <= 'z') {
      out += {'[', c, static_cast<char>(c - 'a' + 'A'), ']'};
    } else if (c >= 'A' && c <= 'Z') {
      out += {'[', static_cast<char>(c - 'A' + 'a'), c, ']'};
    } else if (c == '-' || c == '_') {
      out += "[-_]";
    } else {
      out += c;
    }
  }
  return out;
}

Json json_value(std::string_view yaml, const TypeInfo& type) {
  Diagnostics diagnostics;
  const auto node = load_text(yaml, LoadOptions{}, diagnostics);
  return node ? as_json(*node, type) : Json(yaml);
}

Json json_schema(const TypeInfo& type) {
  using Form = TypeInfo::Form;
  switch (type.form) {
    case Form::boolean:
      return {{"type", {"boolean", "string"}},
              {"pattern", whole(any_case_pattern("true") + "|" + any_case_pattern("false"))}};
    case Form::integer: {
      Json out = {{"type", {"integer", "string"}}};
      put_bound(out, "minimum", type.min, integer);
      put_bound(out, "maximum", type.max, integer);
      out["pattern"] = whole("[+-]?[0-9]+");
      return out;
    }
    case Form::string: {
      Json out = {{"type", "string"}};
      if (matches_some(type.pattern, numbers())) allow(out, "number");
      if (matches_some(type.pattern, {"true", "false"})) allow(out, "boolean");
      if (!type.pattern.empty()) out["pattern"] = whole(type.pattern);
      return out;
    }
    case Form::size: {
      Json out = {{"type", {"integer", "string"}}, {"minimum", 0}};
      put_bound(out, "minimum", type.min, bytes);
      put_bound(out, "maximum", type.max, bytes);
      out["pattern"] = whole(size_pattern());
      return out;
    }
    case Form::duration: {
      Json out = {{"type", {"number", "string"}}, {"minimum", 0}};
      if (type.infinite) allow(out, "null");
      put_bound(out, "minimum", type.min, seconds);
      put_bound(out, "maximum", type.max, seconds);
      out["pattern"] =
          whole(duration_pattern() +
                (type.infinite ? "|" + any_case_pattern("infinite") + "|" + any_case_pattern("null") : std::string()));
      return out;
    }
    case Form::enumeration: {
      // The first alternative is what an editor completes, the second what is accepted beside it.
      std::string pattern;
      for (const std::string& value : type.values) pattern += (pattern.empty() ? "" : "|") + any_case_pattern(value);
      return {{"anyOf", {{{"enum", type.values}}, {{"type", "string"}, {"pattern", whole(pattern)}}}}};
    }
    case Form::list:
      return {{"type", "array"}, {"items", json_schema(*type.element)}};
    case Form::map:
      return {{"type", "object"}, {"additionalProperties", json_schema(*type.element)}};
    case Form::object: {
      Json object = json_schema(*type.object);
      allow(object, "null");  // the same as {}
      if (type.shorthand.empty()) return object;
      object.erase("description");
      return {{"anyOf", {json_schema(type.object->find(type.shorthand)->type), std::move(object)}}};
    }
    case Form::any:
      break;
  }
  return Json::object();
}

Json json_schema(const FieldInfo& field) {
  Json out = {{"description", described(field)}};
  Json type = field.available ? only(field.type, *field.available) : json_schema(field.type);
  type.erase("description");
  for (auto& [key, value] : type.items()) out[key] = std::move(value);
  if (field.takes_null) allow(out, "null");
  if (field.default_text && !field.secret) out["default"] = json_value(*field.default_text, field.type);
  if (!field.example.empty()) out["examples"] = Json::array({json_value(field.example, field.type)});
  if (!field.deprecated.empty()) {
    out["deprecated"] = true;
    out["deprecationMessage"] = "use " + field.deprecated;  // what editors show
  }
  if (field.secret) out["writeOnly"] = true;
  return out;
}

Json json_schema(const SchemaInfo& info) {
  Json properties = Json::object();
  Json required = Json::array();
  for (const FieldInfo& field : info.fields) {
    properties[field.name] = json_schema(field);
    for (const std::string& alias : field.aliases) {
      Json same = json_schema(field);
      same["description"] = "The same as `" + field.name + "`. " + same["description"].get<std::string>();
      properties[alias] = std::move(same);
    }
    const bool other_spelling =
        !field.aliases.empty() || std::ranges::any_of(info.spellings, [&](const Spelling& spelling) {
          return spelling.target.starts_with(field.name + ".");
        });
    if (field.required && !other_spelling) required.push_back(field.name);
  }
  for (const Spelling& spelling : info.spellings) {
    Json same = json_schema(*target_of(info, spelling.target));
    same["description"] = "The same as `" + spelling.target + "`. " + same["description"].get<std::string>();
    properties[spelling.key] = std::move(same);
  }
  Json out = {{"type", "object"},
              {"title", info.name},
              {"description", info.description},
              {"properties", std::move(properties)}};
  if (!required.empty()) out["required"] = std::move(required);
  out["additionalProperties"] = false;
  return out;
}

}  // namespace prism::config
