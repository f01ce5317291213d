// A topic as this process knows it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/types.h"
#include "capabilities/event_log.h"

namespace prism::kafka {

struct Topic {
  std::string name;  // the application's
  std::string wire;  // Kafka's
  std::uint32_t partitions = 1;
  std::uint32_t replication = 1;
  std::uint64_t max_message_bytes = 0;
  Id128 incarnation{};
  Clock::time_point loaded;

  std::size_t max_record_bytes() const noexcept;
  Durability durability() const noexcept { return replication > 1 ? Durability::replicated : Durability::os; }
  Position position(std::uint32_t partition, std::uint64_t offset) const {
    return Position(PositionPart{incarnation, partition, offset});
  }
  TopicInfo info() const { return {name, partitions, incarnation, max_record_bytes()}; }
};
using TopicPtr = std::shared_ptr<const Topic>;

}  // namespace prism::kafka
