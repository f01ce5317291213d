// Asks the backends of a file, without serving it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/types.h"
#include "namespaces/model.h"
#include "patterns/components.h"
#include "runtime/loop.h"

namespace prism {

struct BackendAnswer {
  std::string name, type;               // as the file names it; canonical: "kafka"
  std::string description;              // "" where there is no connection to describe
  std::vector<std::string> namespaces;  // that use it
  std::optional<Error> error;           // nullopt: it answers. BACKEND_NOT_CONFIGURED, BACKEND_NOT_AVAILABLE, its own
  Clock::duration took{};
};

// Every backend that a namespace uses, all at once, each for at most `patience`; in the order of their names. Makes no
// table and no topic. The file is valid and, as all that is referred to, outlives the task.
Task<std::vector<BackendAnswer>> check_backends(Context context, const FileSpec* file, const Components* components,
                                                Runtime* runtime, Clock::duration patience);

}  // namespace prism
