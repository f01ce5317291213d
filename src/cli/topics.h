// What holds for all options: units, secrets, YAML. Printed by `prism explain` and part of the reference page.
#pragma once

#include <span>
#include <string_view>

namespace prism::cli {

struct Topic {
  std::string_view name;   // "duration", as `prism explain` is asked
  std::string_view title;  // "Durations"
  std::string_view text;   // Markdown
};

std::span<const Topic> topics();

}  // namespace prism::cli
