// Options of the outbox pattern, declared once (options.cc).
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/types.h"
#include "config/diagnostics.h"
#include "config/document.h"
#include "patterns/components.h"

namespace prism::config {
struct SchemaInfo;
}

namespace prism::outbox {

enum class CleanupStrategy : std::uint8_t { remove, mark_published };

struct Options {
  std::string database = "postgres";  // database.backend
  std::string table = "outbox";
  std::string destination_backend;  // publisher.destination.backend; empty: the namespace's log
  std::string destination_topic;    // publisher.destination.topic; empty: the topic that the client named
  Clock::duration interval =
      std::chrono::milliseconds(100);                  // publisher.interval: at the latest after this a row is seen
  std::uint32_t batch_size = 1000;                     // publisher.batch_size: rows a round
  CleanupStrategy strategy = CleanupStrategy::remove;  // publisher.cleanup.strategy
  std::optional<Clock::duration>
      retention;  // publisher.cleanup.retention; none: remove at once, keep marked rows for ever
};

// The declaration that read_options() parses with.
std::shared_ptr<const config::SchemaInfo> options_info();

// Reads a validated entry; what is wrong is said in `diagnostics`.
Options read_options(const config::Node& entry, config::Diagnostics& diagnostics);

// What PatternType asks of options that are valid.
void review_options(const config::Node& entry, const Surroundings& around, config::Diagnostics& diagnostics);
std::vector<Holding> holdings(const config::Node& entry);

}  // namespace prism::outbox
