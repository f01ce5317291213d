// Decorators of the capabilities that measure each operation on a backend: how many, how long, what failed and why.
//
//   prism_backend_operations_total, prism_backend_errors_total, prism_backend_duration_seconds, prism_backend_in_flight
//
// by backend (its name in the file) and operation ("log.append"). Where they are used by a step of a namespace's chain,
// what its requests wait for is also kept by namespace and step: prism_pattern_backend_duration_seconds.
#pragma once

#include <memory>
#include <string>

#include "capabilities/event_log.h"
#include "capabilities/key_value_store.h"
#include "capabilities/lease.h"
#include "capabilities/object_store.h"
#include "capabilities/sql_database.h"
#include "telemetry/metrics.h"

namespace prism {

// Who uses a backend. The Metrics outlive every decorator.
struct BackendUser {
  Metrics* metrics = nullptr;
  std::string backend;
  std::string namespace_name;  // empty, as is `step`: nobody in particular
  std::string step;            // "outbox"; "log": the end of the chain
};

// As the decorated one, and thread-safe as it is. Null stays null. Without metrics nothing is measured.
std::shared_ptr<EventLog> measured(std::shared_ptr<EventLog> log, const BackendUser& user);
std::shared_ptr<KeyValueStore> measured(std::shared_ptr<KeyValueStore> store, const BackendUser& user);
std::shared_ptr<ObjectStore> measured(std::shared_ptr<ObjectStore> store, const BackendUser& user);
std::shared_ptr<SqlDatabase> measured(std::shared_ptr<SqlDatabase> database, const BackendUser& user);
std::shared_ptr<Lease> measured(std::shared_ptr<Lease> lease, const BackendUser& user);

}  // namespace prism
