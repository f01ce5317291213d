#include "namespaces/reference.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

namespace prism {
namespace {

using config::FieldInfo;
using config::Json;
using config::SchemaInfo;
using config::TypeInfo;

// Lower case, '_' for '-', without what stands in brackets: "namespaces[0].claim-check" is "namespaces.claim_check".
std::string folded(std::string_view text) {
  std::string out;
  bool inside = false;
  for (char c : text) {
    if (c == '[') inside = true;
    if (!inside && c != ' ') {
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
      out += c == '-' ? '_' : c;
    }
    if (c == ']') inside = false;
  }
  return out;
}

// Is `part` the end of the dotted name `whole`?
bool ends_in(std::string_view whole, std::string_view part) {
  if (part.empty() || !whole.ends_with(part)) return false;
  return whole.size() == part.size() || whole[whole.size() - part.size() - 1] == '.';
}

std::vector<std::string> split(std::string_view path) {
  std::vector<std::string> out;
  while (true) {
    const std::size_t dot = path.find('.');
    out.emplace_back(path.substr(0, dot));
    if (dot == std::string_view::npos) return out;
    path.remove_prefix(dot + 1);
  }
}

// "key_value" of "backends.s3.key_value.prefix".
std::string_view parent_key(std::string_view name) {
  const std::size_t end = name.rfind('.');
  if (end == std::string_view::npos) return {};
  const std::size_t begin = name.rfind('.', end - 1);
  return name.substr(begin == std::string_view::npos ? 0 : begin + 1,
                     end - (begin == std::string_view::npos ? 0 : begin + 1));
}

// The keys of a namespace's `backend:` that say which one it is.
bool names_a_backend(std::string_view key) { return key == "type" || key == "name" || key == "queue"; }

std::vector<std::string> names_of(const PatternReference& pattern) {
  std::vector<std::string> out{std::string(pattern.info.name)};
  if (!pattern.alias.empty()) out.push_back(pattern.alias);
  return out;
}

std::vector<std::string> names_of(const BackendType& type) {
  std::vector<std::string> out{std::string(type.name)};
  out.insert(out.end(), type.aliases.begin(), type.aliases.end());
  return out;
}

}  // namespace

std::string sample_value(const FieldInfo& field) {
  using Form = TypeInfo::Form;
  if (field.available && !field.available->empty()) return field.available->front();
  if (!field.example.empty()) return field.example;
  if (field.secret) return "${env:" + std::string("SECRET") + "}";
  if (field.default_text && *field.default_text != "\"\"") return *field.default_text;
  const TypeInfo& type = field.type;
  const auto bounded = [&](std::string standard) { return type.min.empty() ? std::move(standard) : type.min; };
  switch (type.form) {
    case Form::boolean:
      return "true";
    case Form::integer:
      return bounded("1");
    case Form::string:
      return "text";
    case Form::size:
      return bounded("1MB");
    case Form::duration:
      return type.max.empty() ? "24h" : type.max;
    case Form::enumeration:
      return type.values.front();
    case Form::list:
      return "[" + sample_value({.name = field.name, .type = *type.element}) + "]";
    case Form::map:
      return "{name: " + sample_value({.name = "value", .type = *type.element}) + "}";
    case Form::object: {
      if (type.object->fields.empty()) return "{}";
      const FieldInfo* shown = type.object->find(type.shorthand);
      if (shown != nullptr) return sample_value(*shown);
      shown = &type.object->fields.front();
      return "{" + shown->name + ": " + sample_value(*shown) + "}";
    }
    case Form::any:
      break;
  }
  return "value";
}

// ---- Options
// ------------------------------------------------------------------------------------------------------------------

Reference::Reference(const Components& components) : components_(components), schemas_(file_schemas()) {
  const Catalogue catalogue(components);
  for (const PatternInfo& info : catalogue.patterns()) {
    PatternReference pattern;
    pattern.info = info;
    for (const PatternSyntax& syntax : pattern_syntax()) {
      if (syntax.name != info.name) continue;
      pattern.alias = syntax.alias;
      pattern.sections.emplace_back(syntax.section);
      for (const std::string_view section : syntax.own_sections) {
        if (!section.empty()) pattern.sections.emplace_back(section);
      }
    }
    if (const PatternType* type = components.pattern(info.name)) {
      pattern.available = true;
      pattern.options = type->options;
    } else if (info.name == "pub-sub") {
      pattern.available = true;
      pattern.options = schemas_.pub_sub;
    }
    patterns_.push_back(std::move(pattern));
  }

  walk(*schemas_.file, {.name = "", .owner = "file", .field = {}, .places = {{"", ""}}, .pattern = ""});
  walk(*schemas_.name_space,
       {.name = "namespace", .owner = "namespace", .field = {}, .places = {{"namespaces[]", ""}}, .pattern = ""});
  walk(*schemas_.backend_use, {.name = "namespace.backend",
                               .owner = "namespace",
                               .field = {},
                               .places = {{"namespaces[].backend", ""}},
                               .pattern = ""});
  for (const PatternReference& pattern : patterns_) {
    if (!pattern.options) continue;
    OptionReference root;
    root.name = pattern.sections.empty() ? std::string(pattern.info.name) : pattern.sections.front();
    root.owner = "pattern " + std::string(pattern.info.name);
    root.pattern = pattern.info.name;
    root.places = {{"namespaces[].patterns[]", ""}, {"namespaces[].patterns[].config", ""}};
    if (!pattern.sections.empty()) root.places.push_back({"namespaces[]." + pattern.sections.front(), ""});
    walk(*pattern.options, root);
  }
  for (const BackendType& type : components.backends) {
    if (!type.options) continue;
    walk(*type.options, {.name = "backends." + std::string(type.name),
                         .owner = "backend type " + std::string(type.name),
                         .field = {},
                         .places = {{"backends.<name>", ""}},
                         .pattern = ""});
  }
}

void Reference::walk(const SchemaInfo& info, const OptionReference& parent) {
  const bool within = std::ranges::count(parent.name, '.') >= (parent.pattern.empty() ? 2 : 1);
  for (const FieldInfo& field : info.fields) {
    std::vector<std::string> beside;
    for (const FieldInfo& other : info.fields) {
      if (within && other.required && other.name != field.name) {
        beside.push_back(other.name + ": " + sample_value(other));
      }
    }
    add_field(field, parent, std::move(beside));
  }
  for (const config::Spelling& spelling : info.spellings) {
    add_places((parent.name.empty() ? "" : parent.name + ".") + spelling.target, parent.places, spelling.key, "");
  }
}

void Reference::add_field(const FieldInfo& field, const OptionReference& parent, std::vector<std::string> beside) {
  OptionReference option{.name = (parent.name.empty() ? "" : parent.name + ".") + field.name,
                         .owner = parent.owner,
                         .field = field,
                         .places = {},
                         .pattern = parent.pattern,
                         .beside = std::move(beside)};
  const auto add = [&](const std::string& key) {
    for (const OptionPlace& base : parent.places) {
      if (base.note.empty()) option.places.push_back({(base.path.empty() ? "" : base.path + ".") + key, ""});
    }
  };
  add(field.name);
  for (const std::string& alias : field.aliases) add(alias);
  // A section that is an option by itself: `cleanup:` beside the patterns.
  if (const PatternReference* owner = pattern(parent.pattern);
      owner != nullptr && !owner->sections.empty() && parent.name == owner->sections.front()) {
    if (std::ranges::find(owner->sections.begin() + 1, owner->sections.end(), field.name) != owner->sections.end()) {
      option.places.push_back({"namespaces[]." + field.name, ""});
    }
  }
  options_.push_back(option);

  const TypeInfo* type = &field.type;
  for (std::string suffix; type != nullptr; type = type->element.get()) {
    if (type->form == TypeInfo::Form::list) suffix += "[]";
    if (type->form == TypeInfo::Form::map) suffix += ".<name>";
    if (type->form != TypeInfo::Form::object) continue;
    OptionReference object = option;
    for (OptionPlace& place : object.places) place.path += suffix;
    walk(*type->object, object);
    if (!type->shorthand.empty()) {
      const auto found = std::ranges::find(options_, option.name + "." + type->shorthand, &OptionReference::name);
      for (const OptionPlace& place : object.places) found->places.push_back({place.path, "as a plain value"});
    }
  }
}

void Reference::add_places(const std::string& name, const std::vector<OptionPlace>& bases, const std::string& key,
                           const std::string& note) {
  const auto found = std::ranges::find(options_, name, &OptionReference::name);
  if (found == options_.end()) return;
  for (const OptionPlace& base : bases) {
    if (base.note.empty()) found->places.push_back({(base.path.empty() ? "" : base.path + ".") + key, note});
  }
}

std::vector<const OptionReference*> Reference::find(std::string_view query) const {
  const std::string wanted = folded(query);
  std::vector<const OptionReference*> out;
  for (const OptionReference& option : options_) {
    if (folded(option.name) == wanted) out.push_back(&option);
  }
  if (!out.empty() || wanted.empty()) return out;
  for (const OptionReference& option : options_) {
    const bool by_place = std::ranges::any_of(option.places, [&](const OptionPlace& place) {
      const std::string path = folded(place.path);
      return path == wanted || path == "namespaces." + wanted || (wanted.contains('.') && ends_in(path, wanted));
    });
    if (by_place || ends_in(folded(option.name), wanted)) out.push_back(&option);
  }
  return out;
}

const PatternReference* Reference::pattern(std::string_view name) const noexcept {
  const std::string wanted = folded(name);
  for (const PatternReference& pattern : patterns_) {
    if (folded(pattern.info.name) == wanted || (!pattern.alias.empty() && folded(pattern.alias) == wanted) ||
        (!pattern.sections.empty() && pattern.sections.front() == wanted)) {
      return &pattern;
    }
  }
  return nullptr;
}

std::vector<const OptionReference*> Reference::children(std::string_view name) const {
  std::vector<const OptionReference*> out;
  for (const OptionReference& option : options_) {
    if (option.name.size() > name.size() + 1 && option.name.starts_with(name) && option.name[name.size()] == '.' &&
        option.name.find('.', name.size() + 1) == std::string::npos) {
      out.push_back(&option);
    }
  }
  return out;
}

std::vector<std::string> Reference::known_names() const {
  std::vector<std::string> out;
  const auto add = [&](std::string name) {
    if (std::ranges::find(out, name) == out.end()) out.push_back(std::move(name));
  };
  for (const PatternReference& pattern : patterns_) {
    for (std::string& name : names_of(pattern)) add(std::move(name));
  }
  for (const BackendType& type : components_.backends) {
    for (std::string& name : names_of(type)) add(std::move(name));
  }
  for (const OptionReference& option : options_) {
    add(option.name.substr(option.name.rfind('.') + 1));
    for (const OptionPlace& place : option.places) {
      const std::string last = place.path.substr(place.path.rfind('.') + 1);
      if (!last.contains('[') && !last.contains('<')) add(last);
    }
    add(option.name);
  }
  return out;
}

std::string Reference::example(const OptionReference& option, const OptionPlace& place) {
  // What stands first in an entry of a list or map.
  const auto leading = [&](const std::string& key) -> std::string {
    if (key == "namespaces" && option.name != "namespace.name") return "name: example";
    if (key == "patterns") return "type: " + option.pattern;
    if (key == "<name>") return "type: " + option.owner.substr(option.owner.rfind(' ') + 1);
    if (key == "backend" && option.name.starts_with("namespace.backend.") && !names_a_backend(option.field.name)) {
      return option.field.name == "database" ? "type: postgres" : "type: kafka";
    }
    return {};
  };
  const std::string value = sample_value(option.field);
  std::string out, indent;
  const std::vector<std::string> steps = split(place.path);
  for (std::size_t i = 0; i < steps.size(); ++i) {
    std::string key = steps[i];
    const bool entry = key.ends_with("[]");
    if (entry) key.resize(key.size() - 2);
    const bool last = i + 1 == steps.size();
    out += indent + (key == "<name>" ? "main" : key) + ":";
    if (!entry) {
      out += last ? " " + value + "\n" : "\n";
      // Not where a spelling puts it elsewhere.
      if (last && i > 0 && steps[i - 1] == parent_key(option.name)) {
        for (const std::string& other : option.beside) out += indent + other + "\n";
      }
      indent += "  ";
      if (const std::string first = leading(key); !first.empty() && !last) out += indent + first + "\n";
      continue;
    }
    out += "\n" + indent + "  - ";
    indent += "    ";
    if (last) {
      out += value + "\n";
      continue;
    }
    if (const std::string first = leading(key); !first.empty()) {
      out += first + "\n";
      // An option of a pattern beside it: the namespace must have the pattern.
      if (key == "namespaces" && !option.pattern.empty() && steps[i + 1] != "patterns[]") {
        out += indent + "patterns: [" + option.pattern + "]\n";
      }
    } else {
      // The next step goes on in the same line.
      out += "\x01";
    }
  }
  for (std::size_t mark = out.find('\x01'); mark != std::string::npos; mark = out.find('\x01')) {
    out.erase(mark, std::min(out.find_first_not_of(' ', mark + 1), out.size()) - mark);
  }
  return out;
}

// ---- JSON Schema
// --------------------------------------------------------------------------------------------------------------

namespace {

Json reference_to(const std::string& pointer) { return {{"$ref", "#/$defs/" + pointer}}; }

Json substitution() { return {{"type", "string"}, {"pattern", config::kSubstitutionPattern}}; }

std::string definition(const PatternReference& pattern) { return "pattern-" + std::string(pattern.info.name); }
std::string definition(const BackendType& type) { return "backend-" + std::string(type.name); }

std::string sentence(std::string_view text) {
  std::string out(text);
  if (!out.empty() && out.front() >= 'a' && out.front() <= 'z')
    out.front() = static_cast<char>(out.front() - 'a' + 'A');
  return out + (out.ends_with('.') ? "" : ".");
}

// The options of a pattern, apart from an entry's own keys. What is required may stand in any of the places.
Json pattern_options(const PatternReference& pattern) {
  if (!pattern.available) {
    return {{"type", {"object", "array", "string", "null"}},
            {"description", "Options of " + std::string(pattern.info.name) +
                                ", which this version of Prism does not have: they are not checked."}};
  }
  Json out = pattern.options ? config::json_schema(*pattern.options)
                             : Json{{"type", "object"}, {"additionalProperties", false}};
  out.erase("required");
  out["type"] = {"object", "null"};
  out["title"] = "options of " + std::string(pattern.info.name);
  return out;
}

// An entry of `patterns:` as a map.
Json pattern_entry(const PatternReference& pattern) {
  Json properties;
  properties["type"] = {{"enum", names_of(pattern)}, {"description", "The pattern: " + sentence(pattern.info.summary)}};
  properties["enabled"] = config::json_schema(config::Bool{}.info());
  properties["enabled"]["default"] = true;
  properties["enabled"]["description"] = "false leaves the pattern out of the chain.";
  properties["config"] = reference_to(definition(pattern));
  properties["config"]["description"] = "The options, if they do not stand beside `type`.";
  Json out = {{"type", "object"}, {"title", pattern.info.name}};
  if (!pattern.available) {
    properties["enabled"] = {
        {"anyOf",
         {{{"const", false}},
          {{"type", "string"},
           {"pattern", "^" + config::any_case_pattern("false") + "$|" + std::string(config::kSubstitutionPattern)}}}},
        {"description", "This version of Prism does not have the pattern: it must be disabled."}};
    out["properties"] = std::move(properties);
    out["required"] = {"type", "enabled"};
    return out;
  }
  if (pattern.options) {
    const Json options = config::json_schema(*pattern.options);
    for (const auto& [key, value] : options["properties"].items()) {
      properties[key] = reference_to(definition(pattern) + "/properties/" + key);
    }
  }
  out["properties"] = std::move(properties);
  out["required"] = Json::array({"type"});
  out["additionalProperties"] = false;
  return out;
}

// The namespace has the pattern, by whichever of its names, or requirements from which it may follow.
Json has_pattern(const PatternReference& pattern) {
  const Json names = {{"enum", names_of(pattern)}};
  const Json entry = {{"properties", {{"type", names}}}, {"required", Json::array({"type"})}, {"type", "object"}};
  return {{"anyOf",
           {{{"properties", {{"pattern", names}}}, {"required", Json::array({"pattern"})}},
            {{"properties", {{"patterns", {{"contains", {{"anyOf", {names, entry}}}}}}}},
             {"required", Json::array({"patterns"})}},
            {{"required", Json::array({"requirements"})}}}}};
}

Json backend_names(const Components& components) {
  Json names = Json::array();
  for (const BackendType& type : components.backends) {
    for (const std::string& name : names_of(type)) names.push_back(name);
  }
  return names;
}

}  // namespace

Json Reference::json_schema() const {
  Json definitions = Json::object();
  const Json backend_name = {
      {"anyOf", {{{"enum", backend_names(components_)}}, config::json_schema(config::Name().info())}}};

  // Patterns.
  Json names = Json::array();
  Json entries = Json::array();
  Json sections = Json::object();
  Json dependents = Json::object();
  for (const PatternReference& pattern : patterns_) {
    definitions[definition(pattern)] = pattern_options(pattern);
    definitions[definition(pattern) + "-entry"] = pattern_entry(pattern);
    entries.push_back(reference_to(definition(pattern) + "-entry"));
    if (pattern.available) {
      for (const std::string& name : names_of(pattern)) names.push_back(name);
    }
    for (std::size_t i = 0; i < pattern.sections.size(); ++i) {
      const std::string& section = pattern.sections[i];
      const bool whole = i == 0 || !pattern.available || !pattern.options;
      sections[section] = reference_to(definition(pattern) + (whole ? "" : "/properties/" + section));
      if (whole) sections[section]["description"] = "Options of the pattern " + std::string(pattern.info.name) + ".";
      dependents[section] = has_pattern(pattern);
    }
  }

  // Backends: an entry's type is the word under `type`, or the entry's own name.
  Json by_name = Json::object();
  Json any_backend = Json::array({{{"enum", backend_names(components_)}}, substitution()});
  for (const BackendType& type : components_.backends) {
    Json entry = type.options ? config::json_schema(*type.options) : Json{{"type", "object"}};
    entry["title"] = type.name;
    entry["description"] = sentence(type.summary);
    Json properties = {{"type", {{"enum", names_of(type)}, {"description", sentence(type.summary)}}}};
    if (entry.contains("properties")) {
      for (auto& [key, value] : entry["properties"].items()) properties[key] = std::move(value);
    }
    entry["properties"] = std::move(properties);
    definitions[definition(type)] = std::move(entry);
    Json typed = reference_to(definition(type));
    typed["required"] = Json::array({"type"});
    any_backend.push_back(std::move(typed));
  }
  definitions["backend"] = {{"anyOf", std::move(any_backend)}};
  for (const BackendType& type : components_.backends) {
    for (const std::string& name : names_of(type)) {
      Json alternatives = Json::array({reference_to(definition(type)), reference_to("backend")});
      if (!type.options) alternatives.push_back({{"type", "null"}});
      by_name[name] = {{"anyOf", std::move(alternatives)}};
    }
  }

  // A namespace.
  Json space = config::json_schema(*schemas_.name_space);
  Json& properties = space["properties"];
  const auto refine = [&](const std::string& key, Json schema) {
    if (!properties.contains(key)) return;
    schema["description"] = properties[key]["description"];
    if (schema.contains("anyOf") && schemas_.name_space->find(key)->takes_null)
      schema["anyOf"].push_back({{"type", "null"}});
    properties[key] = std::move(schema);
  };
  refine("pattern", {{"enum", names}});
  refine("patterns", {{"type", {"array", "null"}}, {"items", {{"anyOf", [&] {
                                                                 Json all = Json::array({{{"enum", names}}});
                                                                 for (Json& entry : entries)
                                                                   all.push_back(std::move(entry));
                                                                 return all;
                                                               }()}}}});
  Json use = config::json_schema(*schemas_.backend_use);
  for (const char* key : {"type", "name", "queue"}) {
    if (!use["properties"].contains(key)) continue;
    const Json description = use["properties"][key]["description"];
    use["properties"][key] = backend_name;
    use["properties"][key]["description"] = description;
  }
  Json one_of = Json::array();
  for (const char* key : {"type", "name", "queue"}) one_of.push_back({{"required", Json::array({key})}});
  use["oneOf"] = std::move(one_of);
  Json anywhere = backend_name;
  anywhere["anyOf"][0]["enum"].push_back("multi");
  refine("backend", {{"anyOf", {std::move(anywhere), std::move(use)}}});
  refine("state", backend_name);
  for (auto& [key, value] : sections.items()) properties[key] = std::move(value);
  space["not"] = {{"required", {"pattern", "patterns"}}};
  space["dependentSchemas"] = std::move(dependents);
  definitions["namespace"] = std::move(space);

  // The file.
  Json out = {{"$schema", "https://json-schema.org/draft/2020-12/schema"}};
  const Json file = config::json_schema(*schemas_.file);
  for (const auto& [key, value] : file.items()) out[key] = value;
  out["title"] = "Prism configuration";
  Json& top = out["properties"];
  top["namespaces"] = {
      {"type", "array"}, {"items", reference_to("namespace")}, {"description", top["namespaces"]["description"]}};
  top["backends"] = {{"type", {"object", "null"}},
                     {"description", top["backends"]["description"]},
                     {"properties", std::move(by_name)},
                     {"additionalProperties", reference_to("backend")},
                     {"propertyNames", {{"pattern", "^(?:" + config::Name().pattern + ")$"}}}};
  out["$defs"] = std::move(definitions);
  return out;
}

}  // namespace prism
