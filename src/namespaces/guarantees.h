// What a namespace promises as a whole, computed from its chain and its backends before anything is opened.
#pragma once

#include <optional>
#include <string>

#include "namespaces/composition.h"
#include "namespaces/model.h"
#include "patterns/catalogue.h"
#include "patterns/components.h"
#include "patterns/guarantees.h"

namespace prism {

// Something in the file asks for what the chain cannot give.
struct Contradiction {
  std::string step;      // the pattern that takes it away
  std::string asked_by;  // the pattern or section that asks
  std::string asked;     // in its words
  std::string why;       // what the step does
};

struct Promise {
  Guarantees guarantees;
  std::optional<Contradiction> contradiction;  // the first, from the backend outwards
};

// Walks the chain from the backend outwards. `embedded`: every backend is its embedded twin. `asked`: who else asks
// that reads see what was acknowledged, and in which words (a requirement); empty step: nobody. Patterns that are not
// built are told by what is known of them.
Promise promise(const FileSpec& file, const NamespaceSpec& ns, const Components& components, const Catalogue& catalogue,
                bool embedded, const Because& asked = {});

// What a backend's writes survive as this file uses it. Unknown: nothing.
Survival survival_of(const FileSpec& file, const Components& components, const std::string& backend,
                     std::optional<std::uint32_t> replication, bool embedded);

}  // namespace prism
