#include "patterns/components.h"

#include <algorithm>
#include <utility>

namespace prism {

void Components::add(BackendType type) {
  const auto known = std::ranges::find(backends, type.name, &BackendType::name);
  if (known == backends.end()) {
    backends.push_back(std::move(type));
    return;
  }
  if (type.connect) std::swap(*known, type);
  // From here on `type` is the one that gives way.
  if (known->aliases.empty()) known->aliases = std::move(type.aliases);
  if (known->capabilities.empty()) known->capabilities = std::move(type.capabilities);
  if (known->summary.empty()) known->summary = type.summary;
  if (!known->log) known->log = type.log;
  if (known->max_object_bytes == 0) known->max_object_bytes = type.max_object_bytes;
  if (!known->validate) known->validate = std::move(type.validate);
  if (!known->options) known->options = std::move(type.options);
  if (!known->connect) known->connect = std::move(type.connect);
  if (!known->embed) known->embed = std::move(type.embed);
  if (!known->survival) known->survival = std::move(type.survival);
}

const BackendType* Components::backend(std::string_view name) const {
  for (const auto& type : backends) {
    if (type.name == name) return &type;
    for (const auto alias : type.aliases) {
      if (alias == name) return &type;
    }
  }
  return nullptr;
}

const PatternType* Components::pattern(std::string_view name) const {
  for (const auto& type : patterns) {
    if (type.info.name == name) return &type;
  }
  return nullptr;
}

}  // namespace prism
