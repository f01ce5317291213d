#include "patterns/pattern.h"

#include "patterns/assembly.h"

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
Task<Result<Pattern::Unfinished>> Pattern::unfinished(Context context) {
  PRISM_CO_TRY(const bool done, co_await settled(std::move(context)));
  if (done) co_return Unfinished();
  co_return Unfinished{1, "background work that is not done"};
}
Task<Result<void>> Pattern::measure(Context /*context*/) { co_return Result<void>(); }
Task<Result<Facts>> Pattern::inspect(Context /*context*/) { co_return Facts(); }

Task<Result<std::vector<std::string>>> PendingReferences::claim_check_ids(Context context) {
  std::vector<std::string> all;
  for (const auto& source : sources_) {
    PRISM_CO_TRY(auto ids, co_await source->claim_check_ids(context));
    all.insert(all.end(), std::make_move_iterator(ids.begin()), std::make_move_iterator(ids.end()));
  }
  co_return all;
}

}  // namespace prism
