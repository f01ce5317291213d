#include "patterns/components.h"

namespace prism {

#define BACKEND(folder)                     \
  namespace folder {                        \
  std::vector<BackendType> backend_types(); \
  }
#define PATTERN(folder)       \
  namespace folder {          \
  PatternType pattern_type(); \
  }
#include "components.def"
#undef BACKEND
#undef PATTERN

const Components& components() {
  static const Components all = [] {
    Components c;
#define BACKEND(folder) \
  for (auto& type : folder::backend_types()) c.add(std::move(type));
#define PATTERN(folder) c.patterns.push_back(folder::pattern_type());
#include "components.def"
#undef BACKEND
#undef PATTERN
    return c;
  }();
  return all;
}

}  // namespace prism
