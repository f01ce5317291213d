#include "namespaces/review.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <string>
#include <tuple>
#include <utility>

#include "namespaces/composition.h"

namespace prism {
namespace {

struct Held {
  Holding holding;
  std::string owner;
  int line = 0;
};

// One of `held`, none of which overlaps another: the table of this name, or the prefix that contains this one's, or one
// within it. nullptr: none.
const Held* overlapping(const std::map<std::string, Held>& held, const Holding& holding) {
  const auto behind = held.lower_bound(holding.name);
  if (behind != held.end() && behind->first == holding.name) return &behind->second;
  if (holding.kind == Holding::Kind::table) return nullptr;
  if (behind != held.end() && behind->first.starts_with(holding.name)) return &behind->second;
  // Of prefixes that do not overlap only the one just before can contain this one.
  if (behind == held.begin()) return nullptr;
  const auto before = std::prev(behind);
  return holding.name.starts_with(before->first) ? &before->second : nullptr;
}

void refuse(const Held& first, const Held& second, config::Diagnostics& diagnostics) {
  const Holding& holding = second.holding;
  const std::string who =
      "namespaces '" + first.owner + "' (line " + std::to_string(first.line) + ") and '" + second.owner + "' both ";
  if (holding.kind == Holding::Kind::table) {
    diagnostics.error(holding.at, "TABLE_SHARED",
                      who + "use " + holding.shown + ": each would publish the other's rows",
                      "give each its own with 'table'");
  } else {
    diagnostics.error(holding.at, "OBJECT_PREFIX_SHARED",
                      who + "keep payloads below " + holding.shown + ": the clean-up of one would delete the other's",
                      "give each its own bucket or prefix");
  }
}

// Where a message goes that names no other topic, by log.
std::pair<std::string, std::string> topic_of(const NamespaceSpec& ns, const Components& components,
                                             const std::string& log) {
  for (const PatternSpec& pattern : ns.patterns) {
    const PatternType* type = components.pattern(pattern.type);
    if (!pattern.enabled || type == nullptr || !type->make) continue;
    if (auto fixed = type->make(pattern.options)->fixed_topic(); !fixed.empty()) return {log, std::move(fixed)};
  }
  if (!ns.backend.topic.empty()) return {log, ns.backend.topic};
  return {log, (ns.backend.topic_prefix.empty() ? "" : ns.backend.topic_prefix + ".") + ns.name};
}

// A second namespace on a topic that another one has.
void warn_of_shared_topic(const NamespaceSpec& first, const NamespaceSpec& second, const std::string& topic,
                          config::Diagnostics& diagnostics) {
  const bool stores = first.has_pattern("claim-check") || second.has_pattern("claim-check");
  diagnostics.add(
      {.severity = config::Severity::warning,
       .position = second.position,
       .path = {},
       .reason = "TOPIC_SHARED",
       .message = "namespaces '" + first.name + "' (line " + std::to_string(first.position.line) + ") and '" +
                  second.name + "' both use topic '" + topic +
                  "': each delivers the other's messages, and groups of one name share them" +
                  (stores ? "; a stored payload is deleted when the groups of its own namespace are done" : ""),
       .hint = "give each its own 'topic', unless this is meant"});
}

}  // namespace

void review(const FileSpec& file, const std::vector<bool>& sound, const Components& components,
            config::Diagnostics& diagnostics) {
  const Catalogue catalogue(components);
  // By what can overlap: the kind, the backend, the bucket.
  std::map<std::tuple<Holding::Kind, std::string, std::string>, std::map<std::string, Held>> held;
  std::map<std::pair<std::string, std::string>, const NamespaceSpec*> topics;
  for (std::size_t i = 0; i < file.namespaces.size(); ++i) {
    if (!sound[i]) continue;
    const NamespaceSpec& ns = file.namespaces[i];
    Surroundings around{.log = log_backend(ns, catalogue),
                        .log_type = nullptr,
                        .backend = ns.backend.name,
                        .topic = ns.backend.topic,
                        .topic_prefix = ns.backend.topic_prefix,
                        .consumer_groups = ns.consumer_groups};
    around.log_type = backend_type(file, components, around.log);
    if (!around.log.empty()) {
      const auto [other, alone] = topics.emplace(topic_of(ns, components, around.log), &ns);
      if (!alone) warn_of_shared_topic(*other->second, ns, other->first.second, diagnostics);
    }
    for (const PatternSpec& pattern : ns.patterns) {
      const PatternType* type = components.pattern(pattern.type);
      if (!pattern.enabled || type == nullptr) continue;
      if (type->review) type->review(pattern.options, around, diagnostics);
      if (!type->holdings) continue;
      for (Holding& holding : type->holdings(pattern.options, ns.name)) {
        Held mine{std::move(holding), ns.name, ns.position.line};
        auto& beside = held[{mine.holding.kind, mine.holding.backend, mine.holding.container}];
        if (const Held* other = overlapping(beside, mine.holding)) {
          refuse(*other, mine, diagnostics);
          if (other->holding.name == mine.holding.name || !other->holding.name.starts_with(mine.holding.name)) continue;
          // The wider one stands for those within it from here on.
          for (auto within = beside.lower_bound(mine.holding.name);
               within != beside.end() && within->first.starts_with(mine.holding.name);) {
            within = beside.erase(within);
          }
        }
        beside.emplace(mine.holding.name, std::move(mine));
      }
    }
  }
}

}  // namespace prism
