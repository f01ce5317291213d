// What of a registry answers, for people and for health checks.
#include <algorithm>

#include "namespaces/registry.h"

namespace prism {

std::vector<NamespaceHealth> Registry::health() const {
  std::vector<NamespaceHealth> out;
  const std::shared_lock lock(mutex_);
  for (const auto& [name, served] : namespaces_) {
    NamespaceHealth health{.name = name, .state = NamespaceState::ready, .backend = {}, .error = {}};
    for (const auto& [backend, open] : served.own->uses_) {
      auto trouble = open->health->trouble();
      if (!trouble) continue;
      health = {.name = name,
                .state = NamespaceState::degraded,
                .backend = backend,
                .error = std::move(trouble),
                .since = open->health->since()};
      break;
    }
    out.push_back(std::move(health));
  }
  for (const auto& [name, waits] : waiting_) {
    const auto backend = waits.error.metadata.find("backend");
    out.push_back({.name = name,
                   .state = NamespaceState::waiting,
                   .backend = backend != waits.error.metadata.end() ? backend->second : "",
                   .error = waits.error,
                   .since = waits.since});
  }
  std::ranges::sort(out, {}, &NamespaceHealth::name);
  return out;
}

std::vector<BackendState> Registry::backend_states() const {
  std::vector<BackendState> out;
  for (const auto& open : open_backends()) {
    BackendState state{.name = open->name, .type = open->engine.system, .description = open->backend->describe()};
    open->health->fill(state);
    state.connections = open->backend->connections();
    {
      const std::shared_lock lock(mutex_);
      for (const auto& [name, served] : namespaces_) {
        if (served.own->uses_.contains(open->name)) state.namespaces.push_back(name);
      }
      for (const auto& [name, waits] : waiting_) {
        if (waits.backends.contains(open->name)) state.namespaces.push_back(name);
      }
    }
    out.push_back(std::move(state));
  }
  return out;
}

void Registry::on_health(std::function<void(const std::vector<NamespaceHealth>&)> changed) {
  const std::lock_guard lock(health_mutex_);
  health_changed_ = std::move(changed);
  health_shown_.clear();
  tell_health();
}

void Registry::show_health() {
  const std::lock_guard lock(health_mutex_);
  tell_health();
}

void Registry::tell_health() {
  if (!health_changed_) return;
  const auto now = health();
  std::map<std::string, NamespaceState> states;
  for (const auto& ns : now) states.emplace(ns.name, ns.state);
  if (std::exchange(health_shown_, states) != states) health_changed_(now);
}

}  // namespace prism
