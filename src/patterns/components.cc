#include "patterns/components.h"

namespace prism {

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
