#include "patterns/guarantees.h"

namespace prism {

std::string_view to_string(Deliveries level) noexcept {
  return level == Deliveries::at_least_once ? "at-least-once" : "none";
}

std::string_view to_string(Ordering level) noexcept { return level == Ordering::per_key ? "per-key" : "none"; }

std::string_view to_string(Atomicity level) noexcept {
  switch (level) {
    case Atomicity::message:
      return "message";
    case Atomicity::call:
      return "call";
    case Atomicity::transaction:
      return "transaction";
  }
  return "message";
}

std::string_view to_string(Freshness level) noexcept { return level == Freshness::at_once ? "at-once" : "eventually"; }

void Shaping::also_stored_in(const std::string& backend, std::string what, Guarantees& guarantees) const {
  const Survival held = survival(backend);
  guarantees.survival.weaken(held);
  guarantees.durability.push_back({backend, std::move(what) + (held.why.empty() ? "" : ": " + held.why)});
}

}  // namespace prism
