// Topics: what this process knows of the topics, and asking for it.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "backends/kafka/connection.h"
#include "backends/kafka/topic.h"

namespace prism::kafka {

// All but cached() block. Thread-safe.
//
// Kafka gives each topic an id that librdkafka does not show. So a topic's incarnation is random bytes in the metadata
// of an offset that the group __prism.topics has committed in partition 0 of the topic: brokers forget it when the
// topic is deleted, and only then, as long as it is committed again before offsets.retention.minutes are over.
class Topics {
 public:
  explicit Topics(Connection& connection) : connection_(connection), admin_(connection) {}

  // INVALID_TOPIC
  Result<std::string> wire(const std::string& name) const;
  TopicPtr cached(const std::string& name) const;  // null: not known
  bool stale(const Topic& topic) const;            // it is time to look again
  Result<TopicPtr> load(const std::string& name, Clock::time_point deadline);
  Result<TopicPtr> ensure(const TopicSpec& spec, Clock::time_point deadline);
  Result<std::vector<TopicPtr>> all(Clock::time_point deadline);
  void forget(const std::string& name);

 private:
  Result<TopicPtr> describe(const std::string& name, const std::string& wire, Admin::TopicMeta meta, bool made_here,
                            Clock::time_point deadline);
  Result<Id128> incarnation(const std::string& wire, bool made_here, Clock::time_point deadline);

  Connection& connection_;
  Admin admin_;
  mutable std::mutex mutex_;
  std::map<std::string, TopicPtr, std::less<>> topics_;  // guarded by mutex_
};

}  // namespace prism::kafka
