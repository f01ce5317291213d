#include "patterns/pattern.h"

#include "patterns/assembly.h"
#include "patterns/components.h"

namespace prism {

const std::string* Message::attribute(std::string_view name) const {
  for (const auto& [key, value] : attributes) {
    if (key == name) return &value;
  }
  return nullptr;
}

void Message::set_attribute(std::string_view name, std::string value) {
  for (auto& [key, present] : attributes) {
    if (key == name) {
      present = std::move(value);
      return;
    }
  }
  attributes.emplace_back(name, std::move(value));
}

Task<Result<bool>> Pattern::settled(Context /*context*/) { co_return true; }
Task<Result<Facts>> Pattern::inspect(Context /*context*/) { co_return Facts(); }

Task<Result<std::vector<std::string>>> PendingReferences::claim_check_ids(Context context) {
  std::vector<std::string> all;
  for (const auto& source : sources_) {
    PRISM_CO_TRY(auto ids, co_await source->claim_check_ids(context));
    all.insert(all.end(), std::make_move_iterator(ids.begin()), std::make_move_iterator(ids.end()));
  }
  co_return all;
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
