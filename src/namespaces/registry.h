// The namespaces of one process: built from a validated file, looked up by each request.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/types.h"
#include "namespaces/model.h"
#include "patterns/assembly.h"
#include "patterns/components.h"
#include "patterns/job.h"
#include "patterns/pattern.h"
#include "runtime/loop.h"
#include "telemetry/metrics.h"

namespace prism {

// What a pattern of a namespace holds now.
struct PatternState {
  std::string pattern;
  Facts facts;
};

// What a topic of a namespace holds now.
struct TopicState {
  struct LastRecord {
    std::string id, key;
    std::size_t body_bytes = 0;
    std::size_t record_bytes = 0;  // body, id, key and headers
  };
  struct Partition {
    std::uint32_t partition = 0;
    std::uint64_t begin = 0, end = 0;  // offsets: the first that exists, the next to be appended
    std::vector<std::pair<std::string, std::uint64_t>> acked_below;  // by group
    std::optional<LastRecord> last;
  };
  std::string name;
  std::vector<Partition> partitions;
};

// One assembled namespace. Immutable once built; shared by the requests that use it.
class Namespace {
 public:
  ~Namespace();

  const std::string& name() const noexcept { return spec_.name; }
  const NamespaceSpec& spec() const noexcept { return spec_; }
  ClientApi api() const noexcept { return spec_.api(); }

  // The physical topic for what a client named (empty: the namespace itself was named). R-21.
  std::string physical_topic(std::string_view topic) const;
  // A message larger than this is refused by a chain without claim check.
  std::size_t max_inline_bytes() const noexcept { return max_inline_bytes_; }

  // Thread-safe; valid as long as the Namespace lives. Topics are made as they are first used.
  Publisher& publisher() const noexcept { return *ports_.publish; }
  Subscriber& subscriber() const noexcept { return *ports_.subscribe; }

  // Outermost first: what a publish runs through ("claim-check", "outbox", "kafka").
  const std::vector<std::string>& chain() const noexcept { return chain_; }
  // Is a topic of this name the one that the namespace is configured for?
  bool serves(std::string_view topic) const;
  // Is the background work done for everything that was published and acknowledged so far?
  Task<Result<bool>> settled(Context context) const;

  // For people: what the patterns hold, outermost first, and what the topics that were used hold. Both read the
  // backends.
  Task<Result<std::vector<PatternState>>> inspect(Context context) const;
  Task<Result<std::vector<TopicState>>> topics(Context context) const;

 private:
  friend class Registry;
  NamespaceSpec spec_;
  Ports ports_;
  std::shared_ptr<EventLog> log_;
  std::shared_ptr<Topics> topics_;
  std::vector<std::string> chain_;
  std::vector<std::unique_ptr<Pattern>> patterns_;
  std::size_t max_inline_bytes_ = 0;
};

// What a request means by its names.
struct Target {
  std::shared_ptr<Namespace> ns;
  std::string topic;  // physical
};

class Registry {
 public:
  struct Options {
    std::string data_dir;                                  // embedded backends keep everything below it
    bool embedded = false;                                 // bind every backend name to its embedded twin
    std::string holder;                                    // names this process in leases; unique
    Clock::duration lease_ttl = std::chrono::seconds(10);  // jobs of a stopped process go to another after this
  };
  // Opens the backends, makes what is missing (tables, topics), builds every chain and starts the jobs. The runtime,
  // the metrics and the components outlive the registry.
  static Task<Result<std::unique_ptr<Registry>>> open(Context context, FileSpec file, const Components& components,
                                                      Runtime& runtime, Metrics& metrics, Options options);
  ~Registry();

  // `bound`: the namespace that the client is bound to, or empty. Then `name` is a topic in it, or empty for the
  // namespace's own; unbound, `name` is a namespace or a topic that exactly one namespace serves. NAMESPACE_NOT_FOUND,
  // TOPIC_AMBIGUOUS.
  // INVALID_TOPIC: the physical name is none that a log takes.
  Result<Target> resolve(std::string_view bound, std::string_view name) const;
  std::shared_ptr<Namespace> find(std::string_view name) const;  // null: none
  std::vector<std::shared_ptr<Namespace>> all() const;
  JobKeeper& jobs() noexcept { return *jobs_; }

  // The object store of a backend and bucket that some namespace uses, or null (for the test server's object count).
  std::vector<std::pair<std::string, std::shared_ptr<ObjectStore>>> object_stores(std::string_view backend) const;
  // Is the background work of every namespace done (see Namespace::settled)?
  Task<Result<bool>> settled(Context context) const;
  // Which backend name is served by what, for people: "kafka -> sqlite (data/kafka.db)".
  std::vector<std::string> bindings() const;

  // Ends the jobs (batch finished, checkpointed, leases released), closes the chains outer to inner, then the backends.
  Task<void> close(Context context);

 private:
  friend class NamespaceAssembly;
  Result<Target> find_target(std::string_view bound, std::string_view name) const;
  Registry();
  struct Backends;
  Task<Result<void>> build(Context context, FileSpec file, const Components& components, Runtime& runtime,
                           Metrics& metrics, Options options);
  static Task<Result<void>> assemble(Context context, Namespace& ns, class NamespaceAssembly& assembly,
                                     const Components& components);
  std::map<std::string, std::shared_ptr<Namespace>, std::less<>> namespaces_;
  std::unique_ptr<Backends> backends_;
  std::unique_ptr<JobKeeper> jobs_;
};

}  // namespace prism
