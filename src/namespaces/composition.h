// Which patterns make a chain: what the metadata of the patterns (patterns/catalogue.h) say of a namespace as a whole.
#pragma once

#include <string>
#include <vector>

#include "config/diagnostics.h"
#include "namespaces/model.h"
#include "patterns/catalogue.h"
#include "patterns/components.h"

namespace prism {

struct Composition {
  std::vector<std::string> chain;   // the patterns that a request runs through, outermost first
  std::vector<std::string> beside;  // enabled patterns that work beside requests ("change-data-capture", "pub-sub")
  std::string reordered;            // why the chain's order is not the file's; empty: it is
};

// Of enabled patterns only. A pattern that the catalogue does not have is left out.
Composition compose(const NamespaceSpec& ns, const Catalogue& catalogue);

// The name of the backend that holds a namespace's messages: that which a pattern names (the destination of an outbox),
// else the namespace's own; empty: none is named.
std::string log_backend(const NamespaceSpec& ns, const Catalogue& catalogue);

// A backend that an enabled pattern uses, as the file names it or by the pattern's default.
struct UsedBackend {
  std::string pattern;
  std::string option;  // "storage.backend"; empty: the namespace's own `backend`
  std::string backend;
  config::Node at;  // the value; where it is a default, the pattern's options
  bool by_default = false;
  const BackendNeed* need = nullptr;  // of the catalogue; lives as long as that
};
std::vector<UsedBackend> used_backends(const NamespaceSpec& ns, const Catalogue& catalogue);

// The type of a backend by the name that stands in a namespace; null: unknown.
const BackendType* backend_type(const FileSpec& file, const Components& components, const std::string& name);

// Do the patterns of each namespace go together, in this order, under this API, on these backends? Disabled patterns do
// not count. Reasons: INCOMPATIBLE_PATTERN, INCOMPATIBLE_PATTERN_ORDER, BACKEND_INCOMPATIBLE_WITH_PATTERNS (RFC-014's
// IncompatiblePattern, IncompatiblePatternOrder, BackendIncompatibleWithPatterns; the fields of those are the
// diagnostic's details), BACKEND_LACKS_CAPABILITY, BACKEND_MISSING, UNKNOWN_BACKEND; CONTRADICTING_GUARANTEES (a strong
// read is asked of a chain that takes it away; the details say at which step).
void check_composition(const FileSpec& file, const Components& components, config::Diagnostics& diagnostics);

}  // namespace prism
