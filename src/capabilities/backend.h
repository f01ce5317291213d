// What a backend is to the rest of Prism: a named connection with some capabilities.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/types.h"
#include "capabilities/event_log.h"
#include "capabilities/key_value_store.h"
#include "capabilities/lease.h"
#include "capabilities/object_store.h"
#include "capabilities/sql_database.h"
#include "capabilities/survival.h"
#include "config/diagnostics.h"
#include "config/document.h"
#include "runtime/loop.h"

namespace prism::config {
struct SchemaInfo;
}

namespace prism {

// What the connections to a server are doing now, for prism_backend_connections.
struct ConnectionUse {
  std::size_t idle = 0, in_use = 0, connecting = 0;
  std::size_t waiting = 0;  // operations that wait for a connection
};

// A connected backend. A capability that it does not have is null; a bucket selects an object store.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::shared_ptr<EventLog> event_log() { return nullptr; }
  virtual std::shared_ptr<KeyValueStore> key_value() { return nullptr; }
  virtual std::shared_ptr<SqlDatabase> sql() { return nullptr; }
  virtual std::shared_ptr<Lease> lease() { return nullptr; }
  virtual Result<std::shared_ptr<ObjectStore>> objects(const std::string& /*bucket*/) {
    return fail(Code::failed_precondition, "BACKEND_LACKS_CAPABILITY", "this backend stores no objects");
  }
  // Asks the server whether it can be used now (PING, SELECT 1), by a connection as operations use it; within the
  // context's deadline. The error says why not. An embedded engine always can. Any thread; several at once.
  virtual Task<Result<void>> check(Context /*context*/) { co_return {}; }
  virtual std::optional<ConnectionUse> connections() const { return {}; }  // nullopt: it has none; any thread
  virtual std::string describe() const = 0;                                // "sqlite (data/kafka.db)"
  virtual std::string_view embedded() const { return {}; }  // the embedded engine that it is, "sqlite"; empty: none
  virtual Task<void> close(Context context) = 0;
};

// What a log takes and keeps as it is installed, without settings of its operator's.
struct LogLimits {
  std::uint64_t max_record_bytes = 0;
  std::optional<std::chrono::hours> retention;  // nullopt: it keeps records without end
  std::string_view setting;                     // what raises max_record_bytes: "message.max.bytes"; empty: nothing
};

// How a backend type is known in files. Two folders may have entries of one name, that of the connector and that of the
// embedded twin; see Components::add.
struct BackendType {
  std::string_view name;                  // "kafka"
  std::vector<std::string_view> aliases;  // "nats-jetstream" for nats
  std::vector<std::string_view>
      capabilities;  // "event-log", "object-store", "sql-database", "key-value-store", "lease"
  std::string_view summary;
  std::optional<LogLimits> log;        // of an event log
  std::uint64_t max_object_bytes = 0;  // of an object store: the largest object that it takes; 0: no object store
  // Checks the connection options of an entry under `backends:`; null: it takes none.
  std::function<void(const config::Node& options, config::Diagnostics&)> validate;
  std::shared_ptr<const config::SchemaInfo> options;  // what `validate` accepts, for the reference; null: none
  // Does not need the server to be there: it checks the options, makes the client and answers at once; operations fail
  // with UNAVAILABLE until the server answers. Null: this program has no connector of that type; it can be used
  // embedded only.
  std::function<Task<Result<std::unique_ptr<Backend>>>(Context, Runtime&, std::string name, config::Node options)>
      connect;
  // The embedded twin: everything below `directory`.
  std::function<Task<Result<std::unique_ptr<Backend>>>(Context, Runtime&, std::string name, std::string directory)>
      embed;
  // What an acknowledged write survives in this engine, configured so; null: nothing is known. The embedded twin's is
  // synced_to_one_disk().
  std::function<Survival(const Deployment&)> survival;
};

}  // namespace prism
