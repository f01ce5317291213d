// EventLog in an SQLite file: topics of partitions, appends by group commit (fsync), consumer groups shared by
// processes.
#pragma once

#include <memory>

#include "backends/sqlite/engine.h"
#include "capabilities/event_log.h"

namespace prism::sqlite {

struct EventLogOptions {
  std::uint32_t partitions = 8;              // of a new topic that asks for none in particular; 1 to 1024
  std::size_t max_record_bytes = 1UL << 20;  // body, id, key and headers together
  // A consumer that has not been heard of for so long loses its partitions.
  Clock::duration session_timeout = std::chrono::seconds(10);
  // How often a consumer is heard of; well below the session's time.
  Clock::duration heartbeat = std::chrono::seconds(3);
  // How long a partition that is to move to another consumer waits for its unsettled deliveries.
  Clock::duration drain = std::chrono::seconds(1);
};

// The log keeps its tables (prism_topics, prism_records, prism_groups, prism_members, prism_progress) in the engine's
// file, beside what others keep there. It shares the engine; close() closes the log, not the engine.
Task<Result<std::shared_ptr<EventLog>>> open_event_log(std::shared_ptr<Engine> engine, EventLogOptions options = {});

}  // namespace prism::sqlite
