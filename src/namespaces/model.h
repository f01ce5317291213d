// What a configuration file says, after all its spellings have been put into one form. Plain values; immutable once
// parsed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/diagnostics.h"
#include "config/document.h"
#include "telemetry/options.h"

namespace prism {

// Which API clients use a namespace through. none: it has no data API (change data capture alone).
enum class ClientApi : std::uint8_t { pubsub, queue, transact, reader, keyvalue, cache, events, views, none };

std::string_view to_string(ClientApi) noexcept;

// One entry under `backends:`.
struct BackendSpec {
  std::string name;      // what `backend: <name>` refers to
  std::string type;      // name or alias of a backend type of this program ("kafka", "nats-jetstream")
  config::Node options;  // a map: everything but `type`
  config::SourcePosition position;
};

// The `backend:` of a namespace: where its messages or rows go.
struct BackendUse {
  std::string name;          // an entry under `backends:`, else a backend type; empty: the sections name the backends
  std::string topic;         // physical topic of everything; empty: not given
  std::string topic_prefix;  // put before "." and the logical topic; empty: not given. Never with `topic`
  std::optional<std::uint32_t> partitions, replication;
  config::Node options;  // a map: connection options written in the namespace (`brokers`, `database`); often empty
  config::SourcePosition position;
};

struct PatternSpec {
  std::string type;  // canonical name: "claim-check"; never an alias
  bool enabled = true;
  // A map of everything that the file says about the pattern, wherever it says so: in the entry, under its `config:`,
  // in its section beside (`claim_check:`), in the sections that belong to it (`cleanup:`). Each value keeps its own
  // place.
  config::Node options;
  config::SourcePosition position;
};

struct ObservabilitySpec {
  bool trace_patterns = true;   // a span for each pattern of a call
  bool pattern_metrics = true;  // the patterns' own metrics
};

struct NamespaceSpec {
  std::string name;                     // 1 to 63 lower-case letters, digits and '-'
  std::optional<ClientApi> client_api;  // as given
  // In the order of the file, disabled ones too. `pub-sub` is not among them: it chooses the API and declares groups,
  // and adds no step to the chain.
  std::vector<PatternSpec> patterns;
  bool pub_sub = false;  // the pub-sub pattern is given and enabled
  BackendUse backend;
  std::vector<std::string> consumer_groups;  // declared ones; empty: none declared
  std::string state;                         // backend of the state store; empty: the default one
  ObservabilitySpec observability;
  config::SourcePosition position;

  bool has_pattern(std::string_view type) const noexcept;  // an enabled one
  // As given, else derived: claim-check, outbox, pub-sub or no pattern give pubsub; event-sourcing events; cqrs views;
  // write-ahead-log and tiered-storage keyvalue; cache reader; change-data-capture alone none.
  ClientApi api() const noexcept;
  // May calls of this API be made? A given client_api is the only one; a derived pubsub serves queue too, and transact
  // where there is an outbox; event-sourcing with cqrs serves both.
  bool serves(ClientApi) const noexcept;
};

// The `server:` section; each may be overridden on the command line.
struct ServerSpec {
  std::optional<std::string> listen;    // "host:port" of the gRPC endpoint
  std::optional<std::string> admin;     // "host:port" of metrics and health
  std::optional<std::string> data_dir;  // where embedded backends and the state store keep their files
};

struct FileSpec {
  ServerSpec server;
  telemetry::Spec telemetry;
  std::vector<BackendSpec> backends;
  std::vector<NamespaceSpec> namespaces;  // names are unique

  const BackendSpec* backend(std::string_view name) const noexcept;
  // The connections as they are meant: the entries of `backends` with what namespaces say of them (`brokers`,
  // `database`), and those that stand in namespaces alone.
  std::vector<BackendSpec> connections() const;
  const NamespaceSpec* find(std::string_view name) const noexcept;
};

}  // namespace prism
