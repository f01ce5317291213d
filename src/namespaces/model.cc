#include "namespaces/model.h"

#include <algorithm>

namespace prism {

std::string_view to_string(ClientApi api) noexcept {
  switch (api) {
    case ClientApi::pubsub:
      return "pubsub";
    case ClientApi::queue:
      return "queue";
    case ClientApi::transact:
      return "transact";
    case ClientApi::reader:
      return "reader";
    case ClientApi::keyvalue:
      return "keyvalue";
    case ClientApi::cache:
      return "cache";
    case ClientApi::events:
      return "events";
    case ClientApi::views:
      return "views";
    case ClientApi::none:
      return "none";
  }
  return "none";
}

bool NamespaceSpec::has_pattern(std::string_view type) const noexcept {
  return std::ranges::any_of(patterns,
                             [&](const PatternSpec& pattern) { return pattern.enabled && pattern.type == type; });
}

ClientApi NamespaceSpec::api() const noexcept {
  if (client_api) return *client_api;
  if (pub_sub || has_pattern("claim-check") || has_pattern("outbox")) return ClientApi::pubsub;
  if (has_pattern("event-sourcing")) return ClientApi::events;
  if (has_pattern("cqrs")) return ClientApi::views;
  if (has_pattern("write-ahead-log") || has_pattern("tiered-storage")) return ClientApi::keyvalue;
  if (has_pattern("cache")) return ClientApi::reader;
  if (has_pattern("change-data-capture")) return ClientApi::none;
  return ClientApi::pubsub;
}

bool NamespaceSpec::serves(ClientApi wanted) const noexcept {
  const ClientApi own = api();
  if (own == ClientApi::none || wanted == ClientApi::none) return false;
  if (own == wanted) return true;
  if (client_api) return false;
  if (own == ClientApi::pubsub) {
    return wanted == ClientApi::queue || (wanted == ClientApi::transact && has_pattern("outbox"));
  }
  return own == ClientApi::events && wanted == ClientApi::views && has_pattern("cqrs");
}

std::vector<BackendSpec> FileSpec::connections() const {
  std::vector<BackendSpec> out = backends;
  for (const NamespaceSpec& ns : namespaces) {
    const BackendUse& use = ns.backend;
    if (use.options.entries().empty()) continue;
    auto known = std::ranges::find(out, use.name, &BackendSpec::name);
    if (known == out.end()) {
      out.push_back({.name = use.name, .type = use.name, .options = use.options, .position = use.position});
      continue;
    }
    // One that several namespaces give is the same in all, and none is given in two places (checked before).
    std::vector<config::Entry> options(known->options.entries().begin(), known->options.entries().end());
    for (const config::Entry& entry : use.options.entries()) {
      if (known->options.find(entry.key) == nullptr) options.push_back(entry);
    }
    known->options = config::Node::make_map(std::move(options), known->options);
  }
  return out;
}

const BackendSpec* FileSpec::backend(std::string_view name) const noexcept {
  const auto found = std::ranges::find(backends, name, &BackendSpec::name);
  return found == backends.end() ? nullptr : &*found;
}

const NamespaceSpec* FileSpec::find(std::string_view name) const noexcept {
  const auto found = std::ranges::find(namespaces, name, &NamespaceSpec::name);
  return found == namespaces.end() ? nullptr : &*found;
}

}  // namespace prism
