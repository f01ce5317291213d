#include "namespaces/change.h"

#include <algorithm>
#include <array>
#include <set>

#include "config/redact.h"
#include "config/units.h"

namespace prism {
namespace {

using config::Diagnostics;
using config::FieldInfo;
using config::Node;
using config::SchemaInfo;
using config::TypeInfo;

constexpr std::size_t kShownBytes = 80;

std::string shortened(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  if (text.size() <= kShownBytes) return text;
  std::size_t end = kShownBytes;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;  // whole characters
  return text.substr(0, end) + "...";
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    if (c == '-') c = '_';
  }
  return out;
}

// Puts a tree's values under their paths, each option under its canonical name.
class Flatten {
 public:
  explicit Flatten(OptionValues& out) : out_(out) {}

  void object(const Node& node, const SchemaInfo* schema, const std::string& path) const {
    if (schema == nullptr) return plain(node, path, false);
    std::set<std::string> given;
    fields(node, *schema, path, given);
    for (const auto& field : schema->fields) {
      if (!given.contains(field.name)) standard(field, below(path, field.name));
    }
  }

  void put(const std::string& path, const std::string& value) const {
    out_.insert_or_assign(path, OptionValue{value, config::redacted(value)});
  }

  static std::string below(const std::string& path, std::string_view name) {
    return path.empty() ? std::string(name) : path + "." + std::string(name);
  }

 private:
  void fields(const Node& node, const SchemaInfo& schema, const std::string& path, std::set<std::string>& given) const {
    // What spellings say belongs into an object that may also be given by itself: objects are put together first.
    std::map<std::string, std::vector<config::Entry>> objects;
    for (const auto& entry : node.entries()) {
      const auto spelling = std::ranges::find(schema.spellings, entry.key, &config::Spelling::key);
      if (spelling != schema.spellings.end()) {
        const auto dot = spelling->target.find('.');
        if (dot != std::string::npos) {
          objects[spelling->target.substr(0, dot)].push_back(
              {spelling->target.substr(dot + 1), entry.key_position, entry.value});
          continue;
        }
      }
      const FieldInfo* field =
          schema.find(spelling != schema.spellings.end() ? spelling->target : std::string(entry.key));
      if (field == nullptr) {
        plain(entry.value, below(path, entry.key), false);
        continue;
      }
      if (field->type.form != TypeInfo::Form::object || entry.value.is_null()) {
        if (entry.value.is_null() && field->type.form == TypeInfo::Form::object) continue;
        given.insert(field->name);
        value(entry.value, field->type, below(path, field->name), field->secret);
        continue;
      }
      auto& parts = objects[field->name];
      if (entry.value.is_scalar() && !field->type.shorthand.empty()) {
        parts.push_back({field->type.shorthand, entry.key_position, entry.value});
      } else {
        for (const auto& part : entry.value.entries()) parts.push_back(part);
      }
    }
    for (auto& [name, parts] : objects) {
      const FieldInfo* field = schema.find(name);
      given.insert(name);
      const std::string place = below(path, name);
      if (field == nullptr || field->type.object == nullptr) {
        for (const auto& part : parts) plain(part.value, below(place, part.key), false);
        continue;
      }
      object(Node::make_map(std::move(parts), node), field->type.object.get(), place);
    }
  }

  void standard(const FieldInfo& field, const std::string& path) const {
    if (field.type.form == TypeInfo::Form::object) {
      if (field.type.object != nullptr && !field.required) object(Node(), field.type.object.get(), path);
      return;
    }
    if (!field.default_text) return;
    Diagnostics none;
    if (const auto node = config::load_text(*field.default_text, {}, none))
      value(*node, field.type, path, field.secret);
  }

  void value(const Node& node, const TypeInfo& type, const std::string& path, bool secret) const {
    switch (type.form) {
      case TypeInfo::Form::object:
        if (node.is_scalar() && !type.shorthand.empty()) {
          return object(Node::make_map({{type.shorthand, node.position(), node}}, node), type.object.get(), path);
        }
        return object(node, type.object.get(), path);
      case TypeInfo::Form::list: {
        std::size_t i = 0;
        if (node.items().empty()) return put(path, "[]");
        for (const auto& item : node.items()) {
          const std::string place = path + "[" + std::to_string(i++) + "]";
          type.element != nullptr ? value(item, *type.element, place, secret) : plain(item, place, secret);
        }
        return;
      }
      case TypeInfo::Form::map:
        for (const auto& entry : node.entries()) {
          const std::string place = below(path, entry.key);
          type.element != nullptr ? value(entry.value, *type.element, place, secret)
                                  : plain(entry.value, place, secret);
        }
        return;
      case TypeInfo::Form::size:
        if (const auto bytes = config::parse_size(node.text()))
          return scalar(node, std::to_string(*bytes), path, secret);
        break;
      case TypeInfo::Form::duration: {
        const auto time = config::parse_duration(node.is_null() ? "null" : node.text());
        if (time) return scalar(node, *time ? std::to_string((*time)->count()) + "ns" : "infinite", path, secret);
        break;
      }
      case TypeInfo::Form::boolean:
      case TypeInfo::Form::enumeration:
        return scalar(node, lower(node.text()), path, secret);
      case TypeInfo::Form::integer:
      case TypeInfo::Form::string:
      case TypeInfo::Form::any:
        break;
    }
    plain(node, path, secret);
  }

  // Without knowledge of the type.
  void plain(const Node& node, const std::string& path, bool secret) const {
    switch (node.kind()) {
      case Node::Kind::null:
        return;
      case Node::Kind::scalar:
        return scalar(node, node.text(), path, secret);
      case Node::Kind::sequence: {
        std::size_t i = 0;
        if (node.items().empty()) return put(path, "[]");
        for (const auto& item : node.items()) plain(item, path + "[" + std::to_string(i++) + "]", secret);
        return;
      }
      case Node::Kind::map:
        for (const auto& entry : node.entries()) plain(entry.value, below(path, entry.key), secret);
        return;
    }
  }

  void scalar(const Node& node, std::string meaning, const std::string& path, bool secret) const {
    std::string shown = node.is_null() ? "infinite" : node.text();
    if (node.substituted()) {
      shown = node.display();
    } else if (secret) {
      shown = "(a secret)";
    } else if (shown.empty()) {
      shown = "\"\"";
    } else {
      shown = config::redacted(shown);
    }
    out_.insert_or_assign(path, OptionValue{std::move(meaning), shortened(std::move(shown))});
  }

  OptionValues& out_;
};

std::vector<OptionChange> compare(const OptionValues& from, const OptionValues& to) {
  std::vector<OptionChange> out;
  for (const auto& [path, value] : from) {
    const auto other = to.find(path);
    if (other == to.end()) {
      out.push_back({path, value.shown, {}});
    } else if (!(other->second == value)) {
      out.push_back({path, value.shown, other->second.shown});
      if (value.shown == other->second.shown) out.back().after += " (another value)";
    }
  }
  for (const auto& [path, value] : to) {
    if (!from.contains(path)) out.push_back({path, {}, value.shown});
  }
  std::ranges::sort(out, {}, &OptionChange::option);
  return out;
}

template <class T, class Options>
void compare_parts(PartChange::Part part, const std::vector<T>& from, const std::vector<T>& to, Options options,
                   std::vector<PartChange>& out) {
  std::map<std::string, std::pair<const T*, const T*>> all;
  for (const auto& item : from) all[item.name].first = &item;
  for (const auto& item : to) all[item.name].second = &item;
  for (const auto& [name, pair] : all) {
    const auto& [before, after] = pair;
    const OptionValues old_options = before != nullptr ? options(*before) : OptionValues();
    const OptionValues new_options = after != nullptr ? options(*after) : OptionValues();
    auto changed = compare(old_options, new_options);
    if (before != nullptr && after != nullptr) {
      if (!changed.empty()) out.push_back({part, name, ChangeKind::changed, std::move(changed)});
      continue;
    }
    // Of a whole: what it is made of, not each default.
    std::erase_if(changed, [](const OptionChange& c) {
      return c.option != "type" && c.option != "backend" && !c.option.starts_with("patterns.");
    });
    out.push_back({part, name, before == nullptr ? ChangeKind::added : ChangeKind::removed, std::move(changed)});
  }
}

OptionValues options_of(const telemetry::Spec& spec) {
  OptionValues out;
  const Flatten flatten(out);
  const auto number = [](const auto& value) { return std::to_string(value); };
  flatten.put("metrics", spec.metrics ? "true" : "false");
  const telemetry::TraceSpec& traces = spec.traces;
  if (spec.service_name) flatten.put("service_name", *spec.service_name);
  for (const auto& [name, value] : spec.resource) flatten.put("resource." + name, value);
  if (traces.endpoint) flatten.put("traces.endpoint", *traces.endpoint);
  if (traces.protocol) flatten.put("traces.protocol", *traces.protocol == telemetry::Protocol::grpc ? "grpc" : "http");
  flatten.put("traces.sampler", traces.sampler == trace::Sampling::ratio ? "ratio" : "parent_based");
  flatten.put("traces.sampling", number(traces.sampling));
  for (const auto& [name, value] : traces.headers)
    out.insert_or_assign("traces.headers." + name, OptionValue{value.reveal(), "(a secret)"});
  if (traces.certificate) flatten.put("traces.certificate", *traces.certificate);
  flatten.put("traces.compression", traces.compression == telemetry::Compression::gzip ? "gzip" : "none");
  flatten.put("traces.timeout", number(traces.timeout.count()) + "ms");
  flatten.put("traces.delay", number(traces.delay.count()) + "ms");
  flatten.put("traces.queue", number(traces.queue));
  flatten.put("traces.batch", number(traces.batch));
  constexpr std::array<const char*, 6> kLevels{"trace", "debug", "info", "warn", "error", "off"};
  if (spec.logs.level) flatten.put("logs.level", kLevels.at(static_cast<std::size_t>(*spec.logs.level)));
  constexpr std::array<const char*, 3> kFormats{"json", "pretty", "auto"};
  if (spec.logs.format) flatten.put("logs.format", kFormats.at(static_cast<std::size_t>(*spec.logs.format)));
  flatten.put("logs.repeat_after", number(spec.logs.repeat_after.count()) + "ms");
  return out;
}

OptionValues options_of(const ServerSpec& server) {
  OptionValues out;
  const Flatten flatten(out);
  if (server.listen) flatten.put("listen", *server.listen);
  if (server.admin) flatten.put("admin", *server.admin);
  if (server.data_dir) flatten.put("data_dir", *server.data_dir);
  return out;
}

}  // namespace

std::string_view to_string(ChangeKind kind) noexcept {
  switch (kind) {
    case ChangeKind::added:
      return "added";
    case ChangeKind::removed:
      return "removed";
    case ChangeKind::changed:
      return "changed";
  }
  return "changed";
}

std::string_view to_string(PartChange::Part part) noexcept {
  switch (part) {
    case PartChange::Part::server:
      return "server";
    case PartChange::Part::telemetry:
      return "telemetry";
    case PartChange::Part::backend:
      return "backend";
    case PartChange::Part::name_space:
      return "namespace";
  }
  return "namespace";
}

OptionValues options_of(const NamespaceSpec& ns, const Components& components) {
  OptionValues out;
  const Flatten flatten(out);
  flatten.put("client_api", std::string(to_string(ns.api())));
  if (!ns.backend.name.empty()) flatten.put("backend", ns.backend.name);
  if (!ns.backend.topic.empty()) flatten.put("backend.topic", ns.backend.topic);
  if (!ns.backend.topic_prefix.empty()) flatten.put("backend.topic_prefix", ns.backend.topic_prefix);
  if (ns.backend.partitions) flatten.put("backend.partitions", std::to_string(*ns.backend.partitions));
  if (ns.backend.replication) flatten.put("backend.replication", std::to_string(*ns.backend.replication));
  flatten.object(ns.backend.options, nullptr, "backend");
  if (!ns.state.empty()) flatten.put("state", ns.state);
  flatten.put("observability.trace_patterns", ns.observability.trace_patterns ? "true" : "false");
  flatten.put("observability.pattern_metrics", ns.observability.pattern_metrics ? "true" : "false");
  if (ns.pub_sub) flatten.put("patterns.pub-sub", "enabled");
  for (const auto& group : ns.consumer_groups) flatten.put("consumer_groups." + group, "declared");
  for (const auto& pattern : ns.patterns) {
    if (!pattern.enabled) continue;
    flatten.put("patterns." + pattern.type, "enabled");
    const auto* type = components.pattern(pattern.type);
    flatten.object(pattern.options, type != nullptr ? type->options.get() : nullptr, pattern.type);
  }
  return out;
}

OptionValues options_of(const BackendSpec& backend, const Components& components) {
  OptionValues out;
  const Flatten flatten(out);
  const auto* type = components.backend(backend.type);
  flatten.put("type", type != nullptr ? std::string(type->name) : backend.type);
  flatten.object(backend.options, type != nullptr ? type->options.get() : nullptr, "");
  return out;
}

std::vector<PartChange> compare(const FileSpec& from, const FileSpec& to, const Components& components) {
  std::vector<PartChange> out;
  if (auto server = compare(options_of(from.server), options_of(to.server)); !server.empty())
    out.push_back({PartChange::Part::server, {}, ChangeKind::changed, std::move(server)});
  if (auto telemetry = compare(options_of(from.telemetry), options_of(to.telemetry)); !telemetry.empty())
    out.push_back({PartChange::Part::telemetry, {}, ChangeKind::changed, std::move(telemetry)});
  const auto options = [&](const auto& item) { return options_of(item, components); };
  compare_parts(PartChange::Part::backend, from.backends, to.backends, options, out);
  compare_parts(PartChange::Part::name_space, from.namespaces, to.namespaces, options, out);
  return out;
}

std::string format_text(const std::vector<PartChange>& changes) {
  std::string out;
  for (const auto& change : changes) {
    out += change.kind == ChangeKind::added ? "+ " : change.kind == ChangeKind::removed ? "- " : "~ ";
    out += to_string(change.part);
    if (!change.name.empty()) out += " " + change.name;
    if (change.needs_restart()) out += "  (takes effect when the server is started again)";
    out += "\n";
    for (const auto& option : change.options) {
      if (option.before.empty()) {
        out += "    + " + option.option + ": " + option.after + "\n";
      } else if (option.after.empty()) {
        out += "    - " + option.option + ": " + option.before + "\n";
      } else {
        out += "    ~ " + option.option + ": " + option.before + " -> " + option.after + "\n";
      }
    }
  }
  return out;
}

}  // namespace prism
