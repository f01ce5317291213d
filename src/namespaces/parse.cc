#include "namespaces/parse.h"

#include <algorithm>
#include <array>
#include <map>
#include <regex>
#include <set>
#include <span>
#include <utility>

#include "config/redact.h"
#include "config/schema.h"
#include "config/suggestions.h"
#include "namespaces/composition.h"
#include "namespaces/planner.h"
#include "namespaces/review.h"
#include "namespaces/syntax.h"

namespace prism {
namespace {

using config::Any;
using config::Bool;
using config::Diagnostics;
using config::Entry;
using config::Enum;
using config::Int;
using config::ListOf;
using config::Name;
using config::Nested;
using config::Node;
using config::Schema;
using config::Text;

constexpr std::array kPatterns = {
    PatternSyntax{"claim-check", "", "claim_check", {"cleanup"}},
    PatternSyntax{"outbox", "", "outbox", {"database", "publisher"}},
    PatternSyntax{"write-ahead-log", "wal", "wal", {"consistency", "durability"}},
    PatternSyntax{"tiered-storage", "", "tiered_storage", {"tiers", "reference_store", "promotion_rules"}},
    PatternSyntax{"event-sourcing", "", "event_sourcing", {"event_store", "materialized_views", "snapshots"}},
    PatternSyntax{"change-data-capture", "cdc", "cdc", {"source", "sink", "consumers"}},
    PatternSyntax{"cqrs", "", "cqrs", {"write_model", "read_models", "synchronization"}},
    PatternSyntax{"cache", "", "cache", {}},
    PatternSyntax{"pub-sub", "", "pub_sub", {}},
};
constexpr std::string_view kPubSub = "pub-sub";

const PatternSyntax* find_syntax(std::string_view name) {
  for (const PatternSyntax& syntax : kPatterns) {
    if (syntax.name == name || (!syntax.alias.empty() && syntax.alias == name)) return &syntax;
  }
  return nullptr;
}

// The pattern whose section this key is; nullptr: the key is no section.
const PatternSyntax* owner_of_section(std::string_view key) {
  for (const PatternSyntax& syntax : kPatterns) {
    if (syntax.section == key) return &syntax;
    if (!key.empty() && std::ranges::find(syntax.own_sections, key) != syntax.own_sections.end()) return &syntax;
  }
  return nullptr;
}

constexpr std::size_t kLongName = 300;  // more than any name may have

std::string reference_hint(const std::string& text) {
  if (text.find('#') != std::string::npos) return "put a space before '#' to begin a comment";
  if (text.find(':') == std::string::npos) return {};
  return "write the backend's name; its address stands under 'backends:'";
}

Text reference() {
  Text out = Name();
  out.hint = reference_hint;
  return out;
}

// ---- Schemas of what is not a pattern's
// --------------------------------------------------------------------------------------

const Schema<ServerSpec>& server_schema() {
  static const config::Address address;
  static const auto schema =
      Schema<ServerSpec>("server", "This process.")
          .field(&ServerSpec::listen, "listen", address, "Address of the gRPC endpoint.")
          .example("0.0.0.0:8980")
          .field(&ServerSpec::admin, "admin", address, "Address of metrics and health (HTTP).")
          .example("127.0.0.1:8981")
          .field(&ServerSpec::data_dir, "data_dir", Text{}, "Folder of the embedded backends and the state store.")
          .check({"listen", "admin"}, [](const ServerSpec& server, const Node& map, Diagnostics& diagnostics) {
            if (!server.listen || server.listen != server.admin || server.listen->ends_with(":0")) return;
            diagnostics.error(*map.find("admin"), "CONTRADICTING_OPTIONS",
                              "listen and admin are the same address, " + map.find("admin")->display(),
                              "give each a port of its own");
          });
  return schema;
}

const Schema<ObservabilitySpec>& observability_schema() {
  static const auto schema =
      Schema<ObservabilitySpec>("observability", "What is measured of a namespace.")
          .field(&ObservabilitySpec::trace_patterns, "trace_patterns", Bool{}, "A span for each pattern of a call.")
          .default_("true")
          .field(&ObservabilitySpec::pattern_metrics, "pattern_metrics", Bool{}, "The patterns' own metrics.")
          .default_("true");
  return schema;
}

struct Group {
  std::string name;
};
struct PubSubOptions {
  std::vector<Group> groups;
};

const Schema<PubSubOptions>& pub_sub_schema() {
  static const auto group = Schema<Group>("consumer group", "Receives every message once.")
                                .field(&Group::name, "name", Name(), "What subscribers give as their group.")
                                .required()
                                .example("transcoder");
  static const auto schema =
      Schema<PubSubOptions>("pub-sub", "Several consumer groups, each of which receives every message.")
          .field(
              &PubSubOptions::groups, "consumer_groups", ListOf{Nested{group}.shorthand("name")},
              "The groups that there are. A payload in the object store is kept until each of them has acknowledged.")
          .check([](const PubSubOptions& options, const Node& node, Diagnostics& diagnostics) {
            std::set<std::string> seen;
            for (std::size_t i = 0; i < options.groups.size(); ++i) {
              if (seen.insert(options.groups[i].name).second) continue;
              diagnostics.error(node.find("consumer_groups")->items()[i], "DUPLICATE_GROUP",
                                "the consumer group '" + options.groups[i].name + "' is given twice",
                                "keep one of them");
            }
          });
  return schema;
}

struct BackendMap {
  std::optional<std::string> name, type, queue, topic, topic_prefix;
  std::optional<std::uint32_t> partitions, replication;
  std::optional<Node> brokers, database;
};

const Schema<BackendMap>& backend_schema() {
  static const auto schema =
      Schema<BackendMap>("backend", "Where a namespace's messages or rows go.")
          .field(&BackendMap::type, "type", reference(), "An entry under `backends:`, else the type of that name.")
          .example("kafka")
          .field(&BackendMap::name, "name", reference(),
                 "The same as `type`, for entries that have a name of their own.")
          .example("kafka")
          .field(&BackendMap::queue, "queue", reference(), "The same, by the role that it has: the log of messages.")
          .example("kafka")
          .field(&BackendMap::topic, "topic", Name(), "The topic of everything that is published here.")
          .field(&BackendMap::topic_prefix, "topic_prefix", Name(), "Put before '.' and the topic that a client names.")
          .field(&BackendMap::partitions, "partitions", Int{.min = 1, .max = 100'000},
                 "Partitions of topics that Prism makes.")
          .field(&BackendMap::replication, "replication", Int{.min = 1, .max = 100},
                 "Copies of topics that Prism makes.")
          .field(&BackendMap::brokers, "brokers", Any{"list of addresses"}, "Connection: addresses.")
          .example("[kafka-1:9092]")
          .field(&BackendMap::database, "database", Any{"text"}, "Connection: name of the database.")
          .example("users_db")
          .check([](const BackendMap& map, const Node& node, Diagnostics& diagnostics) {
            const int names = map.type.has_value() + map.name.has_value() + map.queue.has_value();
            if (names == 0) {
              diagnostics.error(node.position(), node.path_of("type"), "MISSING_OPTION", "'type' is missing in backend",
                                "type: kafka, or another backend");
            } else if (names > 1) {
              diagnostics.error(node, "CONTRADICTING_OPTIONS", "'type', 'name' and 'queue' each name the backend",
                                "keep one of them");
            }
            if (map.topic && map.topic_prefix) {
              diagnostics.error(*node.find("topic_prefix"), "CONTRADICTING_OPTIONS",
                                "'topic' names one topic for everything, so 'topic_prefix' would have no effect",
                                "keep one of them");
            }
          });
  return schema;
}

// "My_Orders" -> "did you mean 'my-orders'?"
std::string namespace_name_hint(const std::string& text) {
  std::string mended;
  for (const char c : text) {
    if (c >= 'A' && c <= 'Z') {
      const bool inside = !mended.empty() && mended.back() >= 'a' && mended.back() <= 'z';
      if (inside) mended += '-';
      mended += static_cast<char>(c - 'A' + 'a');
    } else if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')) {
      mended += c;
    } else if (static_cast<unsigned char>(c) >= 0x80) {  // part of a letter that has no other form
      return {};
    } else if (!mended.empty() && mended.back() != '-') {
      mended += '-';
    }
  }
  while (mended.ends_with('-')) mended.pop_back();
  constexpr std::size_t kLongest = 63;
  return mended.empty() || mended.size() > kLongest ? std::string() : "did you mean '" + mended + "'?";
}

// Read by the planner.
struct RequirementsMap {
  config::TypeInfo info() const {
    config::TypeInfo out;
    out.form = config::TypeInfo::Form::object;
    out.name = "requirements";
    out.object = requirements_info();
    return out;
  }
  bool parse(const Node& node, Node& out, Diagnostics& /*diagnostics*/) const {
    out = node;
    return true;
  }
};

// A namespace's keys that belong to no pattern.
struct NamespaceKeys {
  std::string name;
  std::optional<ClientApi> client_api;
  std::optional<Node> pattern, patterns, backend, requirements;
  std::optional<std::string> state;
  ObservabilitySpec observability;
};

const Schema<NamespaceKeys>& namespace_schema() {
  static const auto schema =
      Schema<NamespaceKeys>("namespace", "A named place to publish to, read from or write to.")
          .field(&NamespaceKeys::name, "name",
                 Text{.pattern = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?",
                      .expects = "a namespace name: 1 to 63 lower-case letters, digits and '-', beginning and ending "
                                 "with a letter or digit",
                      .hint = namespace_name_hint},
                 "What clients call it.")
          .required()
          .example("orders")
          .field(&NamespaceKeys::client_api, "client_api",
                 Enum<ClientApi>{{{"pubsub", ClientApi::pubsub},
                                  {"queue", ClientApi::queue},
                                  {"transact", ClientApi::transact},
                                  {"reader", ClientApi::reader},
                                  {"keyvalue", ClientApi::keyvalue},
                                  {"cache", ClientApi::cache},
                                  {"events", ClientApi::events},
                                  {"views", ClientApi::views}}},
                 "The API that clients use; without it, it follows from the patterns.")
          .field(&NamespaceKeys::pattern, "pattern", Any{"name of a pattern"},
                 "The one pattern of the namespace, by name.")
          .example("outbox")
          .field(&NamespaceKeys::patterns, "patterns", Any{"list of patterns"},
                 "The patterns, as names or as maps with `type`.")
          .example("[outbox]")
          .field(&NamespaceKeys::backend, "backend", Any{"name of a backend, or map"},
                 "Where messages or rows go: a backend by name, or a map. `multi`: the sections name the backends.")
          .example("kafka")
          .field(&NamespaceKeys::state, "state", reference(), "Backend of the namespace's state store.")
          .example("sqlite")
          .field(&NamespaceKeys::observability, "observability", Nested{observability_schema()}, "What is measured.")
          .field(&NamespaceKeys::requirements, "requirements", RequirementsMap{},
                 "What the namespace must achieve, instead of patterns.");
  return schema;
}

struct FileKeys {
  ServerSpec server;
  telemetry::Spec telemetry;
  std::optional<Node> backends;
  Node namespaces;
};

const Schema<FileKeys>& file_schema() {
  static const auto schema =
      Schema<FileKeys>("the configuration", "A Prism configuration file.")
          .field(&FileKeys::namespaces, "namespaces", Any{"list of namespaces"},
                 "What clients publish to, subscribe to, read and write.")
          .required()
          .example("[{name: orders, backend: kafka}]")
          .field(&FileKeys::backends, "backends", Any{"map of names to backends"}, "Connections of backends, by name.")
          .example("{main: {type: sqlite, path: data/main.db}}")
          .field(&FileKeys::server, "server", Nested{server_schema()}, "This process.")
          .field(&FileKeys::telemetry, "telemetry", Nested{telemetry::schema()},
                 "What this process tells of itself: traces and logs.");
  return schema;
}

// ---- The parser
// -----------------------------------------------------------------------------------------------------------------

class Parser {
 public:
  Parser(const Components& components, FileSpec& file, Diagnostics& diagnostics)
      : components_(components), file_(file), diagnostics_(diagnostics) {}

  void parse(const Node& root) {
    if (root.is_map() && root.find("namespaces") == nullptr &&
        (root.find("name") != nullptr || root.find("patterns") != nullptr || root.find("pattern") != nullptr)) {
      diagnostics_.error(root, "MISSING_OPTION", "this is one namespace; a file holds a list of them",
                         "put it below 'namespaces:', as an entry beginning with '- name: ...'");
      return;
    }
    if (root.is_null()) {
      diagnostics_.error(root, "MISSING_OPTION", "the file is empty",
                         "begin with 'namespaces:' and a '- name: ...' below it");
      return;
    }
    const auto keys = file_schema().parse(root, diagnostics_);
    // Without the schema's result (an unknown key, say) the rest is looked at all the same, so that all mistakes are
    // told at once.
    if (keys) {
      file_.server = keys->server;
      file_.telemetry = keys->telemetry;
    }
    const Node meant = as_meant(root, file_schema().info().known_keys());
    if (const Node* backends = meant.find("backends")) parse_backends(*backends);
    const Node* namespaces = meant.find("namespaces");
    if (namespaces == nullptr || namespaces->broken()) return;
    if (!namespaces->is_sequence()) {
      std::string hint = "begin each namespace with '- name: ...'";
      if (namespaces->is_map() && namespaces->find("name") == nullptr && !namespaces->entries().empty()) {
        const std::string first = config::quotable(namespaces->entries()[0].key, 40);
        hint = "write '- name: " + first + "' for '" + first + ":'";
      }
      diagnostics_.error(*namespaces, "WRONG_TYPE",
                         "expected a list of namespaces, but this is " + namespaces->display(), hint);
      return;
    }
    if (namespaces->items().empty()) {
      diagnostics_.warning(*namespaces, "NO_NAMESPACES", "there are no namespaces: this serves nothing",
                           "begin each namespace with '- name: ...'");
    }
    for (const Node& item : namespaces->items()) parse_namespace(item);
    check_composition(file_, components_, diagnostics_);
    review(file_, sound_, components_, diagnostics_);
  }

 private:
  // The map with keys that most likely mean a known one under that one's name, so that what stands below is checked too
  // and nothing is missed. That they are misspelt is said elsewhere.
  static Node as_meant(const Node& map, const std::vector<std::string>& known) {
    std::vector<Entry> entries(map.entries().begin(), map.entries().end());
    std::set<std::string> present;
    for (const Entry& entry : entries) present.insert(entry.key);
    for (Entry& entry : entries) {
      if (std::ranges::find(known, entry.key) != known.end()) continue;
      auto name = config::nearest(entry.key, known);
      Node value = entry.value;
      if (const std::size_t gap = entry.key.find(' '); gap != std::string::npos && value.is_null()) {  // no colon
        name = config::nearest(entry.key.substr(0, gap), known);
        value = Node::make_scalar(entry.key.substr(gap + 1), value);
      }
      if (!name || !present.insert(*name).second) continue;
      entry.key = *name;
      entry.value = std::move(value);
    }
    return Node::make_map(std::move(entries), map);
  }

  void parse_backends(const Node& node) {
    if (node.is_null()) return;
    if (!config::expect_map(node, "names of backends with their options", diagnostics_)) return;
    for (const Entry& entry : node.entries()) {
      std::string checked;
      if (!reference().parse(Node::make_scalar(entry.key, entry.value), checked, diagnostics_)) continue;
      // What is wrong with an entry is told here; a namespace that refers to it is not wrong for that.
      file_.backends.push_back({entry.key, {}, Node::make_map({}, entry.value), entry.key_position});
      if (entry.value.broken()) continue;
      parse_backend(entry, file_.backends.back());
    }
  }

  void parse_backend(const Entry& entry, BackendSpec& spec) {
    Node type_at = entry.value;
    std::string type_name = entry.key;
    if (entry.value.is_scalar()) {  // `main: kafka`
      if (!reference().parse(entry.value, type_name, diagnostics_)) return;
    } else if (!entry.value.is_null() && !config::expect_map(entry.value, "the options of the backend", diagnostics_)) {
      return;
    }
    std::vector<Entry> options;
    const std::vector<std::string> type_key = {"type"};
    for (Entry option : entry.value.entries()) {
      if (entry.value.find("type") == nullptr && config::nearest(option.key, type_key)) {
        diagnostics_.error(option.key_position, option.value.path(), "UNKNOWN_OPTION",
                           "unknown option '" + config::quotable(option.key) + "' in backend", "did you mean 'type'?");
        option.key = "type";
      }
      if (option.key == "type") {
        if (!reference().parse(option.value, type_name, diagnostics_)) return;
        type_at = option.value;
      } else {
        options.push_back(option);
      }
    }
    const BackendType* type = components_.backend(type_name);
    if (type == nullptr) {
      const std::string hint = type_at.substituted() ? std::string() : config::suggest(type_name, backend_types());
      if (type_at.is_scalar()) {
        diagnostics_.error(type_at, "UNKNOWN_BACKEND", "there is no backend type " + type_at.display(), hint);
      } else {
        diagnostics_.error(
            entry.key_position, entry.value.path(), "UNKNOWN_BACKEND",
            "there is no backend type '" + config::quotable(entry.key) + "', and no 'type' says which it is",
            config::nearest(type_name, backend_types()) ? hint : "add a type, for example type: kafka");
      }
      return;
    }
    spec.type = type_name;
    spec.options = Node::make_map(std::move(options), entry.value);
    if (type->validate) {
      type->validate(spec.options, diagnostics_);
    } else {
      for (const Entry& option : spec.options.entries()) {
        diagnostics_.error(option.key_position, option.value.path(), "UNKNOWN_OPTION",
                           "the backend type " + std::string(type->name) + " takes no options", "remove it");
      }
    }
  }

  void parse_namespace(const Node& given) {
    if (given.is_scalar() && !given.broken() && given.text().find(':') == std::string::npos) {
      diagnostics_.error(given, "WRONG_TYPE", "expected a namespace (a map), but this is " + given.display(),
                         "write '- name: ...', and its options below");
      return;
    }
    if (!config::expect_map(given, "a namespace", diagnostics_)) return;
    const std::size_t errors = diagnostics_.error_count();
    NamespaceSpec spec;
    spec.position = given.position();

    for (const Entry& entry : given.entries()) {
      if (namespace_schema().info().find(entry.key) == nullptr && owner_of_section(entry.key) == nullptr) {
        diagnostics_.error(entry.key_position, given.path_of(entry.key), "UNKNOWN_OPTION",
                           "unknown option '" + config::quotable(entry.key) + "' in namespace", suggest_key(entry.key));
      }
    }
    Node node = as_meant(given, namespace_keys());
    bool planned = true;
    if (node.find("requirements") != nullptr) {
      const auto plan = plan_namespace(node, file_.backends, components_, diagnostics_);
      planned = plan.has_value();
      if (planned) node = plan->derived;
    }
    std::vector<Entry> own;
    for (const Entry& entry : node.entries()) {
      if (namespace_schema().info().find(entry.key) != nullptr) own.push_back(entry);
    }
    const Node own_keys = Node::make_map(std::move(own), node);
    const auto keys = namespace_schema().parse(own_keys, diagnostics_);
    if (keys) {
      spec.name = keys->name;
      spec.client_api = keys->client_api;
      spec.state = keys->state.value_or("");
      spec.observability = keys->observability;
    }
    if (const Node* name = node.find("name")) note_name(*name);
    if (const Node* state = node.find("state"); state != nullptr && keys) check_backend(*state, spec.state);
    spec.backend.options = Node::make_map({}, node);
    if (const Node* backend = node.find("backend")) parse_backend_use(*backend, spec.backend);
    parse_patterns(node, spec);
    if (spec.pub_sub && spec.client_api && *spec.client_api != ClientApi::pubsub) {
      diagnostics_.error(
          *node.find("client_api"), "CLIENT_API_CONFLICT",
          "the pub-sub pattern means client_api pubsub, but " + std::string(to_string(*spec.client_api)) + " is given",
          "remove one of the two");
    }
    if (!keys || !planned) return;
    file_.namespaces.push_back(std::move(spec));
    sound_.push_back(diagnostics_.error_count() == errors);
  }

  void note_name(const Node& name) {
    if (!name.is_scalar() || name.broken()) return;
    const auto [other, is_new] = names_.try_emplace(name.text(), name.position().line);
    if (is_new) return;
    diagnostics_.error(
        name, "DUPLICATE_NAMESPACE",
        "there are two namespaces " + name.display() + "; the other is named in line " + std::to_string(other->second),
        "give each its own name");
  }

  void parse_backend_use(const Node& node, BackendUse& out) {
    out.position = node.position();
    if (node.broken()) return;
    if (node.is_sequence() || node.is_null()) {
      diagnostics_.error(node, "WRONG_TYPE", "expected the name of a backend, or a map, but this is " + node.display(),
                         node.is_null() ? "write backend: kafka, or another one"
                                        : "a namespace has one backend; those of its patterns stand in their sections");
      return;
    }
    if (node.is_scalar()) {
      if (node.text() == "multi") return;
      if (reference().parse(node, out.name, diagnostics_)) check_backend(node, out.name);
      return;
    }
    const auto map = backend_schema().parse(node, diagnostics_);
    std::vector<Entry> connection;
    for (const Entry& entry : node.entries()) {
      if (entry.key == "brokers" || entry.key == "database") connection.push_back(entry);
      if ((entry.key == "type" || entry.key == "name" || entry.key == "queue") && entry.value.is_scalar() &&
          !entry.value.broken() &&
          (map || std::regex_match(entry.value.text().substr(0, kLongName), std::regex(reference().pattern)))) {
        out.name = entry.value.text();
        check_backend(entry.value, out.name);
      }
    }
    out.options = Node::make_map(std::move(connection), node);
    check_connection(out);
    if (!map) return;
    out.topic = map->topic.value_or("");
    out.topic_prefix = map->topic_prefix.value_or("");
    out.partitions = map->partitions;
    out.replication = map->replication;
  }

  // Connection options that stand in a namespace: of the backend's type, and the same wherever that backend is used.
  void check_connection(const BackendUse& use) {
    const BackendSpec* declared = file_.backend(use.name);
    const BackendType* type = components_.backend(declared != nullptr ? declared->type : use.name);
    if (type == nullptr || use.options.entries().empty()) return;
    std::vector<Entry> known;
    for (const Entry& entry : use.options.entries()) {
      if (type->options == nullptr || type->options->find(entry.key) == nullptr) {
        diagnostics_.error(
            entry.key_position, entry.value.path(), "UNKNOWN_OPTION",
            "'" + entry.key + "' is no connection option of " + std::string(type->name),
            type->options == nullptr ? "remove it" : config::suggest(entry.key, type->options->known_keys()));
        continue;
      }
      known.push_back(entry);
      if (const Entry* other = declared != nullptr ? declared->options.entry(entry.key) : nullptr) {
        diagnostics_.error(entry.key_position, entry.value.path(), "DUPLICATE_OPTION",
                           "'" + entry.key + "' of the backend '" + use.name +
                               "' is also given under 'backends:', in line " + std::to_string(other->key_position.line),
                           "keep it there");
        continue;
      }
      const auto [first, is_new] = connections_.try_emplace({use.name, entry.key}, entry.value);
      if (is_new || same(first->second, entry.value)) continue;
      diagnostics_.error(entry.value, "CONTRADICTING_OPTIONS",
                         "'" + entry.key + "' of the backend '" + use.name + "' is another one in line " +
                             std::to_string(first->second.position().line),
                         "a backend has one connection: give two entries under 'backends:' names of their own");
    }
    if (!type->validate) return;
    Diagnostics found;
    type->validate(Node::make_map(std::move(known), use.options), found);
    for (const auto& item : found.items()) {
      if (item.reason != "MISSING_OPTION") diagnostics_.add(item);  // the rest may stand under `backends:`
    }
  }

  static bool same(const Node& a, const Node& b) {
    return a.kind() == b.kind() && a.text() == b.text() && std::ranges::equal(a.items(), b.items(), same) &&
           std::ranges::equal(a.entries(), b.entries(),
                              [](const Entry& x, const Entry& y) { return x.key == y.key && same(x.value, y.value); });
  }

  void check_backend(const Node& at, const std::string& name) {
    if (name.empty() || file_.backend(name) != nullptr || components_.backend(name) != nullptr) return;
    std::vector<std::string> known;
    for (const BackendSpec& spec : file_.backends) known.push_back(spec.name);
    for (std::string& type : backend_types()) known.push_back(std::move(type));
    diagnostics_.error(at, "UNKNOWN_BACKEND",
                       "there is no backend " + at.display() + ": neither an entry under 'backends:' nor a type",
                       at.substituted()  ? ""
                       : name == "multi" ? "write backend: multi, without a map"
                                         : config::suggest(name, known));
  }

  // ---- patterns ----

  struct PatternEntry {
    Node at;              // the name, or the map
    std::string written;  // the name as it stands
    bool enabled = true;
    bool guessed = false;  // the name is misspelt, and this is what it most likely means
    std::vector<Entry> options;
    std::map<std::string, int> lines;  // of the options
    std::optional<Node> stands_at;     // where options that are missing are reported
  };

  void parse_patterns(const Node& node, NamespaceSpec& spec) {
    const Entry* single = node.entry("pattern");
    const Entry* several = node.entry("patterns");
    std::vector<PatternEntry> entries;
    if (single != nullptr && several != nullptr) {
      diagnostics_.error(several->key_position, node.path_of("patterns"), "CONTRADICTING_OPTIONS",
                         "'pattern' and 'patterns' are both given", "put all patterns under 'patterns'");
    }
    bool complete = true;  // all entries could be read: only then is a section without pattern certain
    if (single != nullptr) {
      if (single->value.is_scalar()) {
        complete &= take_entry(single->value, entries);
      } else {
        complete = false;
        diagnostics_.error(single->value, "WRONG_TYPE",
                           "expected the name of one pattern, but this is " + single->value.display(),
                           "use 'patterns' for a list");
      }
    }
    if (several != nullptr && !several->value.is_null()) {
      if (several->value.is_sequence()) {
        for (const Node& item : several->value.items()) complete &= take_entry(item, entries);
      } else {
        complete = false;
        diagnostics_.error(
            several->value, "WRONG_TYPE", "expected a list of patterns, but this is " + several->value.display(),
            several->value.is_scalar() && !several->value.hidden()
                ? "write patterns: [" + several->value.text().substr(0, 40) + "]"
            : several->value.is_map() && !several->value.entries().empty()
                ? "begin each with '- type: " + config::quotable(several->value.entries()[0].key, 40) + "'"
                : "");
      }
    }

    std::vector<std::pair<const PatternSyntax*, int>> seen;  // and the line
    std::vector<std::string> plugins;
    for (PatternEntry& entry : entries) {
      const PatternSyntax* syntax = find_syntax(entry.written);
      const PatternType* type = components_.pattern(syntax != nullptr ? syntax->name : std::string_view(entry.written));
      if (syntax == nullptr && type == nullptr) {
        complete = false;
        const bool shown = !entry.at.hidden();
        diagnostics_.error(entry.at, "UNKNOWN_PATTERN", "there is no pattern " + entry.at.display(),
                           shown ? config::suggest(entry.written, pattern_names()) : "");
        const auto meant = shown ? config::nearest(entry.written, pattern_names()) : std::nullopt;
        syntax = meant ? find_syntax(*meant) : nullptr;
        if (syntax == nullptr ||
            std::ranges::find(seen, syntax, &std::pair<const PatternSyntax*, int>::first) != seen.end())
          continue;
        entry.guessed = true;
        type = components_.pattern(syntax->name);  // its options are checked as what it most likely is
      }
      const std::string name(syntax != nullptr ? syntax->name : std::string_view(entry.written));
      const auto twice = std::ranges::find(seen, syntax, &std::pair<const PatternSyntax*, int>::first);
      if (syntax != nullptr && twice != seen.end()) {
        diagnostics_.error(
            entry.at, "DUPLICATE_PATTERN",
            "the pattern '" + name + "' is given twice; it also stands in line " + std::to_string(twice->second),
            "keep one of them");
        continue;
      }
      if (syntax == nullptr && std::ranges::find(plugins, name) != plugins.end()) {
        diagnostics_.error(entry.at, "DUPLICATE_PATTERN", "the pattern '" + name + "' is given twice",
                           "keep one of them");
        continue;
      }
      if (syntax != nullptr) {
        seen.emplace_back(syntax, entry.at.position().line);
        add_sections(node, *syntax, entry);
      } else {
        plugins.push_back(name);
      }
      finish_pattern(name, type, entry, spec);
    }

    if (!complete) return;
    for (const Entry& entry : node.entries()) {
      if (namespace_schema().info().find(entry.key) != nullptr) continue;
      const PatternSyntax* owner = owner_of_section(entry.key);
      if (owner == nullptr ||
          std::ranges::find(seen, owner, &std::pair<const PatternSyntax*, int>::first) != seen.end())
        continue;
      std::string hint = "add " + std::string(owner->name) + " to the patterns, or remove the section";
      if (entry.key == "cleanup" && spec.has_pattern("outbox"))
        hint = "what becomes of the outbox's rows stands under publisher.cleanup";
      diagnostics_.error(entry.key_position, node.path_of(entry.key), "SECTION_WITHOUT_PATTERN",
                         "'" + entry.key + "' belongs to the pattern " + std::string(owner->name) +
                             ", which this namespace does not have",
                         hint);
    }
  }

  // One entry of `patterns`: a name, or a map with `type`, `enabled`, `config` and options.
  bool take_entry(const Node& item, std::vector<PatternEntry>& out) {
    PatternEntry entry;
    entry.at = item;
    if (item.broken()) return false;
    if (item.is_scalar()) {
      entry.written = item.text();
      out.push_back(std::move(entry));
      return true;
    }
    if (!item.is_map()) {
      diagnostics_.error(item, "WRONG_TYPE",
                         "expected the name of a pattern or a map with 'type', but this is " + item.display());
      return false;
    }
    const Node* type = item.find("type");
    if (type == nullptr) {
      std::string hint = "type: claim-check, or another pattern";
      for (const Entry& option : item.entries()) {
        if (find_syntax(option.key) != nullptr || owner_of_section(option.key) != nullptr) {
          const PatternSyntax* named = find_syntax(option.key);
          if (named == nullptr) named = owner_of_section(option.key);
          hint = "write '- type: " + std::string(named->name) + "' with the options beside it";
        } else if (option.value.is_scalar() && find_syntax(option.value.text()) != nullptr) {
          hint = "write 'type' in place of '" + config::quotable(option.key, 40) + "'";
        } else {
          continue;
        }
        break;
      }
      diagnostics_.error(item.position(), item.path_of("type"), "MISSING_OPTION", "'type' is missing in this pattern",
                         hint);
      return false;
    }
    if (type->broken()) return false;
    if (!type->is_scalar()) {
      diagnostics_.error(*type, "WRONG_TYPE", "expected the name of a pattern, but this is " + type->display());
      return false;
    }
    entry.at = *type;
    entry.written = type->text();
    entry.stands_at = item;
    for (const Entry& option : item.entries()) {
      if (option.key == "type" || option.key == "config") continue;
      if (option.key == "enabled") {
        Bool{}.parse(option.value, entry.enabled, diagnostics_);
      } else {
        add_option(entry, option);
      }
    }
    if (const Node* nested = item.find("config"); nested != nullptr && !nested->is_null()) {
      if (config::expect_map(*nested, "the options of the pattern", diagnostics_)) {
        for (const Entry& option : nested->entries()) add_option(entry, option);
        if (entry.options.size() == nested->entries().size()) entry.stands_at = *nested;
      }
    }
    out.push_back(std::move(entry));
    return true;
  }

  void add_option(PatternEntry& entry, const Entry& option) {
    const auto [earlier, is_new] = entry.lines.try_emplace(option.key, option.key_position.line);
    if (is_new) {
      entry.options.push_back(option);
      return;
    }
    diagnostics_.error(option.key_position, option.value.path(), "DUPLICATE_OPTION",
                       "'" + config::quotable(option.key) + "' of the pattern " + entry.at.display() +
                           " is also given in line " + std::to_string(earlier->second),
                       "keep one of them");
  }

  // What stands beside the patterns in the namespace and belongs to this one.
  void add_sections(const Node& node, const PatternSyntax& syntax, PatternEntry& entry) {
    if (const Node* section = node.find(syntax.section); section != nullptr && !section->is_null()) {
      if (config::expect_map(*section, "the options of " + std::string(syntax.name), diagnostics_)) {
        for (const Entry& option : section->entries()) add_option(entry, option);
        if (!entry.stands_at) entry.stands_at = *section;
      }
    }
    for (const std::string_view key : syntax.own_sections) {
      if (key.empty()) continue;
      if (const Entry* section = node.entry(key)) add_option(entry, *section);
    }
  }

  void finish_pattern(const std::string& name, const PatternType* type, PatternEntry& entry, NamespaceSpec& spec) {
    const bool has_options = !entry.options.empty();
    const Node options = Node::make_map(std::move(entry.options), entry.stands_at ? *entry.stands_at : entry.at);
    if (name == kPubSub) {
      const auto parsed = pub_sub_schema().parse(options, diagnostics_);
      if (!entry.enabled) return;
      spec.pub_sub = true;
      if (parsed) {
        for (const Group& group : parsed->groups) spec.consumer_groups.push_back(group.name);
      }
      return;
    }
    if (type == nullptr) {
      if (entry.enabled && !entry.guessed) {
        diagnostics_.error(entry.at, "PATTERN_NOT_AVAILABLE",
                           "the pattern '" + name + "' is not available in this version of Prism",
                           "remove it, or set enabled: false; available are " + available());
      }
    } else if (type->validate && (entry.enabled || has_options)) {
      type->validate(options, diagnostics_);
    }
    spec.patterns.push_back({name, entry.enabled, options, entry.at.position()});
  }

  // ---- names ----

  std::vector<std::string> backend_types() const {
    std::vector<std::string> out;
    for (const BackendType& type : components_.backends) {
      out.emplace_back(type.name);
      for (const std::string_view alias : type.aliases) out.emplace_back(alias);
    }
    return out;
  }

  std::vector<std::string> pattern_names() const {
    std::vector<std::string> out;
    for (const PatternSyntax& syntax : kPatterns) {
      out.emplace_back(syntax.name);
      if (!syntax.alias.empty()) out.emplace_back(syntax.alias);
    }
    for (const PatternType& type : components_.patterns) {
      if (find_syntax(type.info.name) == nullptr) out.emplace_back(type.info.name);
    }
    return out;
  }

  std::string available() const {
    std::string out;
    for (const PatternType& type : components_.patterns) out += std::string(type.info.name) + ", ";
    return out + std::string(kPubSub);
  }

  static std::vector<std::string> namespace_keys() {
    std::vector<std::string> known = namespace_schema().info().known_keys();
    for (const PatternSyntax& syntax : kPatterns) {
      known.emplace_back(syntax.section);
      for (const std::string_view section : syntax.own_sections) {
        if (!section.empty()) known.emplace_back(section);
      }
    }
    return known;
  }

  std::string suggest_key(const std::string& key) const {
    const std::vector<std::string> known = namespace_keys();
    if (const std::size_t gap = key.find(' '); gap != std::string::npos) {
      if (const auto name = config::nearest(key.substr(0, gap), known)) return "put a ':' behind '" + *name + "'";
    }
    const bool elsewhere = file_schema().info().find(key) != nullptr;
    if (!elsewhere && config::nearest(key, known)) return config::suggest(key, known);
    // An option in the wrong place: say where it belongs.
    for (const PatternType& type : components_.patterns) {
      const PatternSyntax* syntax = find_syntax(type.info.name);
      if (type.options != nullptr && syntax != nullptr && type.options->find(key) != nullptr) {
        return "it is an option of " + std::string(type.info.name) + ": put it under '" + std::string(syntax->section) +
               ":'";
      }
    }
    if (backend_schema().info().find(key) != nullptr) return "it stands under 'backend:'";
    if (observability_schema().info().find(key) != nullptr) return "it stands under 'observability:'";
    if (elsewhere) return "it stands at the beginning of a line, beside 'namespaces:'";
    return config::suggest(key, namespace_schema().info().known_keys()) + ", and the patterns' sections";
  }

  const Components& components_;
  FileSpec& file_;
  Diagnostics& diagnostics_;
  std::vector<bool> sound_;                                          // as file_.namespaces: its values are right
  std::map<std::string, int> names_;                                 // of namespaces, with their lines
  std::map<std::pair<std::string, std::string>, Node> connections_;  // by backend and option, as a namespace gives them
};

}  // namespace

bool ParsedFile::readable() const noexcept {
  return std::ranges::none_of(diagnostics.items(), [](const config::Diagnostic& item) {
    return item.reason == "UNREADABLE_FILE" && item.position.line == 0;
  });
}

ParsedFile parse_text(std::string_view text, const Components& components, config::LoadOptions options) {
  ParsedFile out;
  options.keep_going = true;
  if (const auto root = config::load_text(text, options, out.diagnostics)) {
    Parser(components, out.file, out.diagnostics).parse(*root);
  }
  return out;
}

ParsedFile parse_file(const std::string& path, const Components& components, config::LoadOptions options) {
  ParsedFile out;
  options.keep_going = true;
  if (const auto root = config::load_file(path, std::move(options), out.diagnostics)) {
    Parser(components, out.file, out.diagnostics).parse(*root);
  }
  return out;
}

std::span<const PatternSyntax> pattern_syntax() { return kPatterns; }

FileSchemas file_schemas() {
  return {.file = file_schema().shared_info(),
          .name_space = namespace_schema().shared_info(),
          .backend_use = backend_schema().shared_info(),
          .pub_sub = pub_sub_schema().shared_info()};
}

}  // namespace prism
