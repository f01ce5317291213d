// "Did you mean ...?"
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace prism::config {

// Letters inserted, deleted, replaced or two neighbours swapped to turn `a` into `b` (optimal string alignment). Both
// are cut to 64 bytes.
std::size_t edit_distance(std::string_view a, std::string_view b);

// The known name that `word` most likely stands for, or nullopt if none is near. Case and the difference between '-',
// '_' and ' ' do not count; at most a third of the letters may be wrong. The first of equally near names wins.
std::optional<std::string> nearest(std::string_view word, std::span<const std::string> known);

// A hint for a message: "did you mean 'threshold'?", else "known here: a, b, c", else empty.
std::string suggest(std::string_view word, std::span<const std::string> known);

}  // namespace prism::config
