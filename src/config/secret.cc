#include "config/secret.h"

#include <cstring>

namespace prism::config {

void Secret::wipe() noexcept {
  // explicit_bzero is not removed by the optimiser, as a write before destruction may be.
  explicit_bzero(value_.data(), value_.size());
  value_.clear();
}

}  // namespace prism::config
