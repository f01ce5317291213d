// Which backends answer, and what that means for the namespaces that use them.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/types.h"
#include "capabilities/backend.h"
#include "capabilities/traced.h"
#include "runtime/backoff.h"
#include "telemetry/metrics.h"

namespace prism {

enum class NamespaceState : std::uint8_t {
  ready,
  degraded,  // it takes requests, and a backend of it does not answer
  waiting,   // it takes none until its backend has answered once
};
std::string_view to_string(NamespaceState) noexcept;

struct NamespaceHealth {
  std::string name;
  NamespaceState state = NamespaceState::ready;
  std::string backend;         // that is the reason; empty where it is ready
  std::optional<Error> error;  // what that backend, or the opening of the namespace, has said; where it is not ready
  WallTime since{};            // of the state; epoch where it is ready
};

struct BackendState {
  std::string name, type, description;
  bool up = true;
  std::optional<Error> error;  // where it is down
  WallTime since{};            // of being up or down
  WallTime asked{};            // when it was asked last
  Clock::duration took{};      // until it answered, or was given up
  std::optional<ConnectionUse> connections;
  std::vector<std::string> namespaces;  // that use it
};

// What is known of one backend. Thread-safe.
class BackendHealth {
 public:
  // Shown as prism_backend_up and prism_backend_connections unless `metrics` is null.
  BackendHealth(std::string backend, Metrics* metrics);

  // True: it is up and was not, or the other way round; that is logged.
  bool note(const Result<void>& answer, Clock::duration took, Clock::duration ask_again_in);
  void show(const std::optional<ConnectionUse>& use);
  void fill(BackendState& state) const;
  std::optional<Error> trouble() const;  // nullopt: it is up
  WallTime since() const;
  Clock::time_point ask_again() const;

 private:
  const std::string backend_;
  Metrics* const metrics_;
  std::shared_ptr<Gauge> up_gauge_;
  mutable std::mutex mutex_;
  // Guarded by mutex_.
  std::vector<std::shared_ptr<Gauge>> connection_gauges_;
  std::optional<Error> trouble_;
  WallTime since_;
  WallTime asked_{};
  Clock::duration took_{};
  Clock::time_point ask_again_{};
  Backoff backoff_;
};

// A connected backend of a registry.
struct OpenBackend {
  std::string name;
  std::string meaning;  // equal: the same connection to the same place
  std::unique_ptr<Backend> backend;
  std::uint64_t number = 0;  // in the order of opening
  Engine engine;             // for spans
  std::unique_ptr<BackendHealth> health;

  Result<std::shared_ptr<ObjectStore>> objects(const std::string& bucket) const {
    PRISM_TRY(auto store, backend->objects(bucket));
    return traced(std::move(store), engine, bucket);
  }
};

// Asks it for at most `patience` and notes the answer, unless the context is stopped first. `every`: until it is asked
// again while it answers.
Task<Result<void>> ask(Context context, std::shared_ptr<OpenBackend> open, Clock::duration patience,
                       Clock::duration every);

// Is this the kind of error that goes away when a backend, or its operator, has done something?
bool can_pass(const Error& error) noexcept;

}  // namespace prism
