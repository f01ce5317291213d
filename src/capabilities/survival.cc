#include "capabilities/survival.h"

namespace prism {

std::string_view to_string(Survives survives) noexcept {
  switch (survives) {
    case Survives::no:
      return "no";
    case Survives::depends:
      return "depends";
    case Survives::yes:
      return "yes";
  }
  return "no";
}

Survival synced_to_one_disk() {
  return {.process_kill = Survives::yes,
          .power_loss = Survives::yes,
          .disk_loss = Survives::no,
          .site_power_loss = Survives::yes,
          .why = "one copy, synced to disk before the answer"};
}

}  // namespace prism
