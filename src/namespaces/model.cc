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

const BackendSpec* FileSpec::backend(std::string_view name) const noexcept {
  const auto found = std::ranges::find(backends, name, &BackendSpec::name);
  return found == backends.end() ? nullptr : &*found;
}

const NamespaceSpec* FileSpec::find(std::string_view name) const noexcept {
  const auto found = std::ranges::find(namespaces, name, &NamespaceSpec::name);
  return found == namespaces.end() ? nullptr : &*found;
}

}  // namespace prism
