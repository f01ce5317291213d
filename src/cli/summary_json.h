// A namespace's summary as JSON: the form of `prism validate` and `prism plan` (docs/reference/cli.md).
#pragma once

#include <nlohmann/json.hpp>

#include "namespaces/summary.h"

namespace prism::cli {

nlohmann::ordered_json to_json(const NamespaceSummary& summary);

}  // namespace prism::cli
