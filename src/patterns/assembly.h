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
#include "capabilities/traced.h"
#include "patterns/job.h"
#include "patterns/pattern.h"
#include "patterns/pattern_metrics.h"
#include "runtime/loop.h"
#include "telemetry/metrics.h"

namespace prism {

// The physical topics of a namespace; they are made as they are first used.
class Topics {
 public:
  virtual ~Topics() = default;
  virtual Task<Result<TopicInfo>> ensure(Context context, std::string topic) = 0;
  // Every physical topic that this namespace has used, in any process.
  virtual Task<Result<std::vector<std::string>>> known(Context context) = 0;
};

// The claim-check ids that messages not yet on the log refer to; patterns add their part while the chain is assembled.
class PendingReferences {
 public:
  class Source {
   public:
    virtual ~Source() = default;
    virtual Task<Result<std::vector<std::string>>> claim_check_ids(Context context) = 0;
  };
  void add(std::shared_ptr<Source> source) { sources_.push_back(std::move(source)); }
  Task<Result<std::vector<std::string>>> claim_check_ids(Context context);

 private:
  std::vector<std::shared_ptr<Source>> sources_;
};

// Capabilities are shared: a backend serves any number of namespaces, and outlives them.
class Assembly {
 public:
  virtual ~Assembly() = default;
  virtual Runtime& runtime() = 0;
  virtual Metrics& metrics() = 0;
  virtual const PatternMetrics& pattern_metrics() const = 0;  // of this namespace, for the pattern's own series
  virtual const std::string& namespace_name() const = 0;
  // By the name that stands in the file; connected where it is not yet. BACKEND_NOT_CONFIGURED,
  // BACKEND_LACKS_CAPABILITY.
  virtual Task<Result<std::shared_ptr<ObjectStore>>> object_store(Context context, std::string backend,
                                                                  std::string bucket) = 0;
  virtual Task<Result<std::shared_ptr<SqlDatabase>>> sql_database(Context context, std::string backend) = 0;
  // Finds the stores of backends that are connected; thread-safe, and valid as long as the namespace.
  // BACKEND_NOT_CONFIGURED.
  using FindObjectStore =
      std::function<Result<std::shared_ptr<ObjectStore>>(const std::string& backend, const std::string& bucket)>;
  virtual FindObjectStore object_stores() = 0;
  // How spans call a backend. By the name that stands in the file.
  virtual Engine engine(const std::string& backend) const = 0;
  virtual std::shared_ptr<EventLog> log() = 0;         // the namespace's own backend
  virtual std::size_t max_inline_bytes() const = 0;    // what one record of that log can hold as a payload
  virtual std::shared_ptr<KeyValueStore> state() = 0;  // the namespace's state store
  virtual std::shared_ptr<Topics> topics() = 0;
  // Reserves the objects below a prefix for this namespace, since clean-up deletes what it finds there and nothing
  // refers to. OBJECT_PREFIX_SHARED: another namespace has it, or one above or below it.
  virtual Result<void> reserve_objects(const std::string& backend, const std::string& bucket,
                                       const std::string& prefix) = 0;
  // Reserves a table for this namespace, since its jobs deal with every row. TABLE_SHARED: another namespace has it.
  virtual Result<void> reserve_table(const std::string& backend, const std::string& table) = 0;
  // Declared consumer groups (pub_sub.consumer_groups); empty: none declared.
  virtual const std::vector<std::string>& consumer_groups() const = 0;
  virtual void add(std::shared_ptr<Job> job) = 0;
  // For a pattern that keeps messages before they reach the log (outbox): what these still refer to.
  virtual std::shared_ptr<PendingReferences> pending_references() = 0;
};

}  // namespace prism
