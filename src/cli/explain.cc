// What an option, a pattern, a backend type, a unit or the reason of an error means.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/output.h"
#include "cli/reasons.h"
#include "cli/topics.h"
#include "config/suggestions.h"
#include "namespaces/reference.h"
#include "patterns/components.h"

namespace prism::cli {
namespace {

using config::Json;

struct Options {
  std::string name;
  Format format = Format::text;
};

struct Found {
  std::vector<const OptionReference*> options;
  const PatternReference* pattern = nullptr;
  const BackendType* backend = nullptr;
  const Reason* reason = nullptr;
  const Topic* topic = nullptr;

  std::size_t count() const {
    return options.size() + (pattern != nullptr) + (backend != nullptr) + (reason != nullptr) + (topic != nullptr);
  }
};

// "UNKNOWN_OPTION", "unknown-option" and the RFCs' "UnknownOption" are the same.
std::string folded(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '-' || c == ' ' || c == '_') continue;
    out += c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  }
  return out;
}

Found look_up(const Reference& reference, const std::string& name) {
  Found found;
  found.options = reference.find(name);
  found.pattern = reference.pattern(name);
  found.backend = reference.components().backend(name);
  const std::string wanted = folded(name);
  for (const Reason& reason : reasons()) {
    if (folded(reason.name) == wanted) found.reason = &reason;
  }
  for (const Topic& topic : topics()) {
    const std::string own = folded(topic.name);
    if (own == wanted || own + "S" == wanted) found.topic = &topic;
  }
  return found;
}

std::string type_text(const config::TypeInfo& type) {
  if (type.form == config::TypeInfo::Form::object) {
    const auto* field = type.shorthand.empty() ? nullptr : type.object->find(type.shorthand);
    return "map of options" + (field == nullptr ? "" : ", or its `" + field->name + "` as a plain value");
  }
  if (type.element && type.element->form == config::TypeInfo::Form::object) {
    return type.form == config::TypeInfo::Form::list ? "list of maps" : "map of names to maps";
  }
  return type.name;
}

std::string joined(const auto& parts) {
  std::string out;
  for (const auto& part : parts) out += (out.empty() ? "" : ", ") + std::string(part);
  return out;
}

std::string indented(std::string_view text, std::string_view by) {
  std::string out;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    if (end != 0) out += std::string(by) + std::string(text.substr(0, end));
    out += '\n';
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return out;
}

// For a terminal: Markdown's code spans are quotes there.
std::string plain(std::string_view markdown) {
  std::string out;
  for (const char c : markdown) {
    if (c != '`') out += c;
  }
  return out;
}

void line(std::string_view what, std::string_view value) {
  if (!value.empty()) fmt::print("  {:<11} {}\n", what, value);
}

std::string first_sentence(const std::string& text) { return text.substr(0, text.find(". ")); }

void print_children(const std::vector<const OptionReference*>& children) {
  if (children.empty()) return;
  std::size_t width = 0;
  for (const auto* child : children) width = std::max(width, child->name.size());
  fmt::print("  options\n");
  for (const auto* child : children) {
    fmt::print("    {:<{}}  {}\n", child->name, width, first_sentence(child->field.description));
  }
}

void print(const Reference& reference, const OptionReference& option) {
  const config::FieldInfo& field = option.field;
  fmt::print("{} ({})\n  {}\n\n", option.name, option.owner, field.description);
  line("type", type_text(field.type) + (field.type.unit.empty() ? "" : "; a bare number is in " + field.type.unit));
  line("range", config::bounds_text(field.type));
  if (field.default_text) line("default", *field.default_text);
  line("available", config::available_text(field));
  if (field.required) line("required", "yes");
  if (field.secret) line("secret", "never printed; write ${env:NAME} or ${file:PATH}");
  if (!field.deprecated.empty()) line("deprecated", "use " + field.deprecated);
  line("also called", joined(field.aliases));
  fmt::print("  may stand at\n");
  for (const OptionPlace& place : option.places) {
    fmt::print("    {}{}\n", place.path, place.note.empty() ? "" : "  (" + place.note + ")");
  }
  print_children(reference.children(option.name));
  fmt::print("  example\n{}", indented(Reference::example(option, option.places.front()), "    "));
}

void print(const Reference& reference, const PatternReference& pattern) {
  fmt::print("{} (pattern)\n  {}.\n\n", pattern.info.name, pattern.info.summary);
  if (!pattern.available) line("available", "no: this version of Prism does not have it");
  line("also called", pattern.alias);
  line("gives", joined(pattern.info.gives));
  line("client APIs", pattern.info.apis.empty() ? "any" : joined(pattern.info.apis));
  for (const BackendNeed& need : pattern.info.backends) {
    line("needs", fmt::format("a backend with {}: {}{}", joined(need.any_of),
                              need.option.empty() ? "the namespace's `backend`" : need.option,
                              need.standard.empty() ? "" : fmt::format(", {} unless given", need.standard)));
  }
  for (const PatternConflict& conflict : pattern.info.conflicts) {
    line("not with", fmt::format("{}: {}", conflict.pattern, conflict.why));
  }
  line("sections", joined(pattern.sections));
  if (pattern.options && !pattern.sections.empty()) print_children(reference.children(pattern.sections.front()));
}

void print(const Reference& reference, const BackendType& type) {
  fmt::print("{} (backend type)\n  {}.\n\n", type.name, type.summary);
  line("also called", joined(type.aliases));
  line("can", joined(type.capabilities));
  line("connects", type.connect ? "yes" : "no: it can be used embedded only");
  line("embedded", type.embed ? "yes (prism dev)" : "no");
  print_children(reference.children("backends." + std::string(type.name)));
}

void print(const Reason& reason) {
  fmt::print("{} (reason of an error, {})\n  {}\n\n", reason.name, reason.group, plain(reason.meaning));
  line("what to do", plain(reason.mend));
  line("status code", reason.codes);
}

void print(const Topic& topic) { fmt::print("{}\n{}", topic.title, indented(plain(topic.text), "  ")); }

Json as_json(const Reference& reference, const OptionReference& option) {
  const config::FieldInfo& field = option.field;
  Json out = {{"kind", "option"},
              {"name", option.name},
              {"owner", option.owner},
              {"description", field.description},
              {"type", field.type.name}};
  const auto put = [&](const char* key, const std::string& value) {
    if (!value.empty()) out[key] = value;
  };
  put("unit", field.type.unit);
  put("min", field.type.min);
  put("max", field.type.max);
  if (!field.type.values.empty()) out["values"] = field.type.values;
  if (field.default_text) out["default"] = *field.default_text;
  if (field.available) out["available"] = *field.available;
  out["required"] = field.required;
  out["secret"] = field.secret;
  put("deprecated", field.deprecated);
  out["aliases"] = field.aliases;
  put("pattern", option.pattern);
  out["places"] = Json::array();
  for (const OptionPlace& place : option.places) {
    Json at = {{"path", place.path}};
    if (!place.note.empty()) at["note"] = place.note;
    at["example"] = Reference::example(option, place);
    out["places"].push_back(std::move(at));
  }
  out["options"] = Json::array();
  for (const auto* child : reference.children(option.name)) out["options"].push_back(child->name);
  return out;
}

Json as_json(const Reference& reference, const Found& found) {
  Json matches = Json::array();
  if (found.reason != nullptr) {
    matches.push_back({{"kind", "reason"},
                       {"name", found.reason->name},
                       {"group", found.reason->group},
                       {"codes", found.reason->codes},
                       {"description", found.reason->meaning},
                       {"what_to_do", found.reason->mend}});
  }
  if (found.pattern != nullptr) {
    const PatternReference& pattern = *found.pattern;
    Json options = Json::array();
    if (pattern.options && !pattern.sections.empty()) {
      for (const auto* child : reference.children(pattern.sections.front())) options.push_back(child->name);
    }
    matches.push_back({{"kind", "pattern"},
                       {"name", pattern.info.name},
                       {"description", pattern.info.summary},
                       {"available", pattern.available},
                       {"aliases", pattern.alias.empty() ? Json::array() : Json::array({pattern.alias})},
                       {"gives", pattern.info.gives},
                       {"client_apis", pattern.info.apis},
                       {"sections", pattern.sections},
                       {"options", std::move(options)}});
  }
  if (found.backend != nullptr) {
    const BackendType& type = *found.backend;
    Json options = Json::array();
    for (const auto* child : reference.children("backends." + std::string(type.name))) options.push_back(child->name);
    matches.push_back({{"kind", "backend"},
                       {"name", type.name},
                       {"description", type.summary},
                       {"aliases", type.aliases},
                       {"capabilities", type.capabilities},
                       {"connects", type.connect != nullptr},
                       {"embedded", type.embed != nullptr},
                       {"options", std::move(options)}});
  }
  if (found.topic != nullptr) {
    matches.push_back({{"kind", "topic"},
                       {"name", found.topic->name},
                       {"title", found.topic->title},
                       {"description", found.topic->text}});
  }
  for (const OptionReference* option : found.options) matches.push_back(as_json(reference, *option));
  return matches;
}

// Without a name: what there is to ask for.
void print_all(const Reference& reference) {
  std::vector<std::string_view> available, others, backends, about;
  for (const auto& pattern : reference.patterns()) {
    (pattern.available ? available : others).push_back(pattern.info.name);
  }
  for (const auto& type : reference.components().backends) backends.push_back(type.name);
  for (const auto& topic : topics()) about.push_back(topic.name);
  fmt::print("patterns     {}\n", joined(available));
  if (!others.empty()) fmt::print("  not yet    {}\n", joined(others));
  fmt::print("backends     {}\nunits, YAML  {}\nerrors       any reason, such as UNKNOWN_OPTION\noptions\n",
             joined(backends), joined(about));
  std::size_t width = 0;
  for (const auto& option : reference.options()) width = std::max(width, option.name.size());
  for (const auto& option : reference.options()) {
    fmt::print("  {:<{}}  {}\n", option.name, width, first_sentence(option.field.description));
  }
}

Exit explain(const Options& options) {
  const Reference reference(components());
  if (options.name.empty()) {
    if (options.format == Format::text) {
      print_all(reference);
      return Exit::good;
    }
    Json all = Json::array();
    for (const auto& option : reference.options()) all.push_back(as_json(reference, option));
    fmt::print("{}\n", Json{{"matches", std::move(all)}}.dump(2));
    return Exit::good;
  }
  const Found found = look_up(reference, options.name);
  if (found.count() == 0) {
    std::vector<std::string> known = reference.known_names();
    for (const Reason& reason : reasons()) known.push_back(reason.name);
    for (const Topic& topic : topics()) known.emplace_back(topic.name);
    const auto meant = config::nearest(options.name, known);
    print_error(Error{.code = Code::not_found,
                      .reason = "NOTHING_OF_THAT_NAME",
                      .message = "there is no option, pattern, backend, unit or reason '" + shown(options.name) + "'",
                      .hint = meant ? "did you mean '" + *meant + "'?" : "`prism explain` lists what there is"},
                options.format);
    return Exit::failed;
  }
  if (options.format == Format::json) {
    fmt::print("{}\n", Json{{"name", options.name}, {"matches", as_json(reference, found)}}.dump(2));
    return Exit::good;
  }
  std::size_t printed = 0;
  const auto apart = [&] {
    if (printed++ != 0) fmt::print("\n");
  };
  if (found.reason != nullptr) apart(), print(*found.reason);
  if (found.pattern != nullptr) apart(), print(reference, *found.pattern);
  if (found.backend != nullptr) apart(), print(reference, *found.backend);
  if (found.topic != nullptr) apart(), print(*found.topic);
  constexpr std::size_t kInFull = 3;  // more are listed
  if (found.options.size() <= kInFull) {
    for (const OptionReference* option : found.options) apart(), print(reference, *option);
  } else {
    apart();
    fmt::print("'{}' may be one of these options; ask for one by its full name:\n", shown(options.name));
    print_children(found.options);
  }
  return Exit::good;
}

}  // namespace

void add_explain(CLI::App& root, Run& chosen) {
  auto* command = root.add_subcommand(
      "explain", "Say what an option, a pattern, a backend, a unit or the reason of an error means");
  auto options = std::make_shared<Options>();
  command
      ->add_option("NAME", options->name,
                   "claim_check.threshold, threshold, outbox, sqlite, duration, UNKNOWN_OPTION, or the path in a "
                   "message; without it, all that there is")
      ->type_name("");
  add_format(*command, options->format);
  command->footer(
      "Examples:\n  prism explain claim_check.threshold\n  prism explain outbox\n  prism explain UNKNOWN_OPTION\n\n"
      "Exit codes: 0 explained; 1 there is nothing of that name.");
  command->callback([&chosen, options] { chosen = [options] { return explain(*options); }; });
}

}  // namespace prism::cli
