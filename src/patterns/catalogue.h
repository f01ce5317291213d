// Every pattern of RFC-009 and RFC-014 with its metadata, whether this program can run it or not: which patterns go
// together, in which order, under which client API, and on what backends. A pattern that is built declares itself in
// its own folder; the others stand in catalogue.cc until they are.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "patterns/components.h"
#include "patterns/pattern.h"

namespace prism {

// Immutable; keeps nothing of the components but copies.
class Catalogue {
 public:
  // The patterns of the components, and those of the RFCs that are not among them.
  explicit Catalogue(const Components& components);

  const std::vector<PatternInfo>& patterns() const noexcept { return patterns_; }  // in canonical order
  const PatternInfo* find(std::string_view name) const noexcept;                   // null: no such pattern

 private:
  std::vector<PatternInfo> patterns_;
};

bool supports(const PatternInfo& pattern, std::string_view api) noexcept;

// Why two patterns cannot be in one namespace, as "A and B ...: why"; nothing: they can. The same in either order.
std::optional<std::string> why_incompatible(const PatternInfo& a, const PatternInfo& b);

// Would the opposite order of the two mean something else, so that a file which has it is refused?
bool must_precede(const PatternInfo& first, const PatternInfo& second) noexcept;

}  // namespace prism
