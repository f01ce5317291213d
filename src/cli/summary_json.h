// A namespace's summary as JSON: the form of `prism validate` and `prism plan` (docs/reference/cli.md).
#pragma once

#include <nlohmann/json.hpp>

#include "namespaces/summary.h"

namespace prism::cli {

nlohmann::ordered_json to_json(const NamespaceSummary& summary);

// {"errors": 2, "warnings": 0, "truncated": false, "diagnostics": [...]}: how many there are, and those that are shown.
nlohmann::ordered_json to_json(const config::Diagnostics& diagnostics);

}  // namespace prism::cli
