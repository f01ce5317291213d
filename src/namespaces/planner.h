// From what a namespace must achieve to the patterns, options and partitions that achieve it, each with its reason and
// what was not chosen.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "config/diagnostics.h"
#include "config/document.h"
#include "config/schema.h"
#include "namespaces/model.h"
#include "patterns/components.h"

namespace prism {

struct Decision {
  std::string requirement;            // the option that led to it: "throughput"; empty: none of them
  std::string part;                   // what was decided: "partitions", "outbox"
  std::string chosen;                 // "20", "yes", "no"
  std::string because;                // one sentence
  std::vector<std::string> rejected;  // each "alternative: why not"
};

// What the namespace will take, as far as the requirements tell. Bytes are of all copies.
struct Estimate {
  double messages_per_second = 0;   // 0: not given, and then nothing else is estimated
  std::uint64_t message_bytes = 0;  // 0: not given
  bool upper_bound = false;         // message_bytes is the largest size, not the typical one
  std::uint32_t partitions = 0;     // 0: the backend's default
  struct Store {
    std::string backend, what;
    double bytes = 0;  // held at a time; 0: not known
    double writes_per_second = 0;
    std::string kept;  // how long, and by whom; empty: not known
  };
  std::vector<Store> stores;
  std::vector<std::string> cost_drivers;  // the largest first
};

struct Plan {
  config::Node derived;  // the namespace as it would stand in a file without requirements
  std::vector<Decision> decisions;
  Estimate estimate;
  std::map<std::string, std::string> comments;  // reasons by path below the namespace ("patterns[0]")
};

// `ns` has `requirements`. Values that the namespace gives itself (backend, client_api, sections of the patterns) stay
// as they are. nullopt: errors were added. Reasons of its own: CONTRADICTING_OPTIONS (patterns beside requirements),
// REQUIREMENTS_UNSATISFIABLE; warning REQUIREMENT_AT_RISK.
std::optional<Plan> plan_namespace(const config::Node& ns, const std::vector<BackendSpec>& backends,
                                   const Components& components, config::Diagnostics& diagnostics);

// The declaration of `requirements:`.
std::shared_ptr<const config::SchemaInfo> requirements_info();

// For people: decisions with their reasons and alternatives, then the estimate; lines without indentation.
std::string format_text(const Plan& plan);

std::string format_bytes(double bytes);  // "129.6 TB": powers of 1000, three digits

}  // namespace prism
