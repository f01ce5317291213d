// A namespace told before it is opened: its chain, its jobs, its backends and what it promises.
#pragma once

#include <string>
#include <vector>

#include "namespaces/change.h"
#include "namespaces/composition.h"
#include "namespaces/guarantees.h"
#include "namespaces/model.h"

namespace prism {

struct BackendSummary {
  std::string name;                // as the file names it
  std::string type;                // canonical: "kafka"; empty: unknown
  std::vector<std::string> roles;  // "log", "outbox: database.backend", "state"
  // embedded: its twin; configured: a connection stands in the file and this program has the connector;
  // not_configured: used without a connection, so that only embedded modes serve it; no_connector: this program can
  // bind it to its twin only.
  enum class Binding : std::uint8_t { embedded, configured, not_configured, no_connector };
  Binding binding = Binding::not_configured;
  Survival survival;
};
std::string_view to_string(BackendSummary::Binding) noexcept;  // "embedded", "configured", "not-configured", ...

struct NamespaceSummary {
  std::string name;
  ClientApi api = ClientApi::pubsub;
  std::vector<std::string> apis;      // all that clients may call
  std::vector<std::string> patterns;  // of the chain, outermost first
  std::vector<std::string> chain;     // the same, and the backend at its end
  std::vector<std::string> beside;    // patterns that are no step of it
  std::string reordered;              // why the order is not the file's; empty: it is
  std::vector<std::string> consumer_groups;
  std::vector<PlannedJob> jobs;  // names with the namespace's: "orders/outbox/relay"
  std::vector<BackendSummary> backends;
  Guarantees guarantees;
  OptionValues options;  // by meaning, defaults included
};

// Of a namespace without errors. `embedded`: every backend is bound to its twin.
NamespaceSummary summarize(const FileSpec& file, const NamespaceSpec& ns, const Components& components, bool embedded);

// For people, several lines, indented by two spaces below the name.
std::string format_text(const NamespaceSummary& summary);

}  // namespace prism
