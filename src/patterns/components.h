// The table of what this program is built from: backends and patterns, filled from components.def in components.cc.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/types.h"
#include "capabilities/event_log.h"
#include "capabilities/key_value_store.h"
#include "capabilities/lease.h"
#include "capabilities/object_store.h"
#include "capabilities/sql_database.h"
#include "config/document.h"
#include "config/diagnostics.h"
#include "patterns/pattern.h"
#include "runtime/loop.h"

namespace prism {

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
  virtual std::string describe() const = 0;  // "sqlite (data/kafka.db)"
  virtual Task<void> close(Context context) = 0;
};

// How a backend type is known in files.
struct BackendType {
  std::string_view name;                        // "kafka"
  std::vector<std::string_view> aliases;        // "nats-jetstream" for nats
  std::vector<std::string_view> capabilities;   // "event-log", "object-store", "sql-database", "key-value-store", "lease"
  std::string_view summary;
  // Null: this program has no connector of that type (yet); it can be used embedded only.
  std::function<Task<Result<std::unique_ptr<Backend>>>(Context, Runtime&, std::string name, config::Node options)> connect;
  // The embedded twin: everything below `directory`.
  std::function<Task<Result<std::unique_ptr<Backend>>>(Context, Runtime&, std::string name, std::string directory)> embed;
};

struct PatternType {
  PatternInfo info;
  // Checks the options of one entry; says everything that is wrong with them.
  std::function<void(const config::Node& options, config::Diagnostics&)> validate;
  // Options are valid.
  std::function<std::unique_ptr<Pattern>(const config::Node& options)> make;
  // Undoes on the way in what records say was done to them; part of every namespace, whatever its chain, since chains change
  // and records stay. May be null.
  std::function<std::unique_ptr<Subscriber>(std::unique_ptr<Subscriber> next, Assembly& assembly)> decode;
};

struct Components {
  std::vector<BackendType> backends;
  std::vector<PatternType> patterns;
  const BackendType* backend(std::string_view name_or_alias) const;
  const PatternType* pattern(std::string_view name) const;
};

// Defined in components.cc.
const Components& components();

}  // namespace prism
