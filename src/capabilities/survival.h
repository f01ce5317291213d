// What a backend's acknowledged writes survive: facts of the engine, from which the guarantees of namespaces are made.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "config/document.h"

namespace prism {

// Does an acknowledged write survive it? In order of merit.
enum class Survives : std::uint8_t {
  no,
  depends,  // on a setting of the engine that Prism does not see or make; the reason says which
  yes,
};
std::string_view to_string(Survives) noexcept;

struct Survival {
  Survives process_kill = Survives::no;     // Prism or a server process of the backend is killed
  Survives power_loss = Survives::no;       // one host stops or loses power, and comes back with its disks
  Survives disk_loss = Survives::no;        // one disk is lost, or one server of the backend for good
  Survives site_power_loss = Survives::no;  // all hosts lose power at once, and come back
  std::string why;                          // in words, of the engine as it is configured; empty: nothing is stored

  // Of what lies in both, each needed: the weaker of the two. The reason is left as it is.
  void weaken(const Survival& other) {
    process_kill = std::min(process_kill, other.process_kill);
    power_loss = std::min(power_loss, other.power_loss);
    disk_loss = std::min(disk_loss, other.disk_loss);
    site_power_loss = std::min(site_power_loss, other.site_power_loss);
  }
  static Survival everything() { return {Survives::yes, Survives::yes, Survives::yes, Survives::yes, {}}; }
};

// How an engine is used.
struct Deployment {
  config::Node options;                      // of its entry under `backends:`; a map, often empty
  std::optional<std::uint32_t> replication;  // copies of a topic that a namespace asks for
};

// One copy in files, synced before the answer: what every embedded twin gives.
Survival synced_to_one_disk();

}  // namespace prism
