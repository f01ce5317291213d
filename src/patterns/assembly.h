// Assembly: what a pattern finds while its namespace is put together.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "capabilities/event_log.h"
#include "capabilities/key_value_store.h"
#include "capabilities/object_store.h"
#include "capabilities/sql_database.h"
#include "patterns/job.h"
#include "patterns/pattern.h"
#include "runtime/loop.h"

namespace prism {

// The physical topics of a namespace and how many partitions they get; topics appear as they are used.
class Topics {
 public:
  virtual ~Topics() = default;
  virtual std::vector<std::string> known() const = 0;  // every physical topic that this namespace has used, in any process
};

// Capabilities are shared: a backend serves any number of namespaces, and outlives them.
class Assembly {
 public:
  virtual ~Assembly() = default;
  virtual Runtime& runtime() = 0;
  virtual const std::string& namespace_name() const = 0;
  // By the name that stands in the file. BACKEND_NOT_FOUND, BACKEND_LACKS_CAPABILITY.
  virtual Result<std::shared_ptr<ObjectStore>> object_store(const std::string& backend, const std::string& bucket) = 0;
  virtual Result<std::shared_ptr<SqlDatabase>> sql_database(const std::string& backend) = 0;
  virtual std::shared_ptr<EventLog> log() = 0;             // the namespace's own backend
  virtual std::shared_ptr<KeyValueStore> state() = 0;      // the namespace's state store
  virtual std::shared_ptr<Topics> topics() = 0;
  // Declared consumer groups (pub_sub.consumer_groups); empty: none declared.
  virtual const std::vector<std::string>& consumer_groups() const = 0;
  virtual void add(std::shared_ptr<Job> job) = 0;
  // Called by a pattern that keeps messages before they reach the log (outbox): what still refers to objects.
  // Gives the claim-check ids that rows not yet on the log refer to.
  using PendingReferences = std::function<Task<Result<std::vector<std::string>>>(Context)>;
  virtual void add_pending_references(PendingReferences source) = 0;
  virtual const std::vector<PendingReferences>& pending_references() const = 0;
};

}  // namespace prism
