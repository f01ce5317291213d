// The namespaces of one process: built from a validated file, looked up by each request, replaced as a whole by another
// file while requests go on.
//
// A replacement builds what is new or changed beside what there is and swaps both between two requests. What a request
// has found is its own until it ends; the old assembly goes when its last user has gone. Assemblies whose places
// (topics, tables, objects) differ do not work side by side: new publishes wait for a moment, until what the old one
// holds is dealt with, so that nothing is lost and no order is turned over; where that does not come to an end, the
// replacement is refused.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <shared_mutex>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "base/types.h"
#include "namespaces/change.h"
#include "namespaces/health.h"
#include "namespaces/model.h"
#include "patterns/assembly.h"
#include "patterns/components.h"
#include "patterns/job.h"
#include "patterns/pattern.h"
#include "runtime/loop.h"
#include "runtime/scope.h"
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

// What is not as the file says, and stays so until somebody does something: for people.
struct Notice {
  std::string reason, message, hint;
};
// Thread-safe.
class Notices {
 public:
  bool add(const std::string& about, Notice notice);  // false: it replaces an earlier one
  std::vector<Notice> all() const;

 private:
  mutable std::mutex mutex_;
  std::map<std::string, Notice> notices_;  // guarded by mutex_
};

// What a namespace measures by looking (measure.cc).
class NamespaceMeasures;
std::shared_ptr<NamespaceMeasures> make_measures(Metrics& metrics);

// What only one namespace may have: a table, or the objects below a prefix. See Holding.
struct Place {
  Holding::Kind kind = Holding::Kind::table;
  std::string backend;  // by the name that the file gives
  std::string name;     // of the table; bucket and prefix of objects
  auto operator<=>(const Place&) const = default;
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
  // Requested when what subscribe() gave is to be opened again: another assembly has taken over.
  std::stop_token replaced() const noexcept { return replaced_.get_token(); }

  // Outermost first: what a publish runs through ("claim-check", "outbox", "kafka"). Empty: publishes wait for a
  // replacement.
  const std::vector<std::string>& chain() const noexcept { return chain_; }
  // Is a topic of this name the one that the namespace is configured for?
  bool serves(std::string_view topic) const;
  // Is the background work done for everything that was published and acknowledged so far?
  Task<Result<bool>> settled(Context context) const;

  // For people: what the patterns hold, outermost first, and what its present topics hold, as far as they have been
  // made. Both read the backends, and make nothing there.
  Task<Result<std::vector<PatternState>>> inspect(Context context) const;
  Task<Result<std::vector<TopicState>>> topics(Context context) const;

  // TOPIC_PARTITIONS_FIXED.
  std::vector<Notice> notices() const { return notices_->all(); }

  // The topics that are this namespace's now, whether or not they have been made.
  Task<Result<std::vector<std::string>>> present_topics(Context context) const;

  // Brings up to date what is measured by looking: what the patterns hold, how far consumer groups are behind. For as
  // long as the context allows, and not more often than it is worth.
  Task<bool> measure(Context context) const;

 private:
  friend class Registry;
  friend class Assembling;
  NamespaceSpec spec_;
  OptionValues meaning_;
  std::string fixed_topic_;  // that a pattern sends everything to; empty: none does
  Ports ports_;
  std::shared_ptr<EventLog> log_;
  std::shared_ptr<Topics> topics_;
  std::shared_ptr<Notices> notices_ = std::make_shared<Notices>();
  std::vector<std::string> chain_;
  std::vector<std::unique_ptr<Pattern>> patterns_;
  std::vector<std::vector<Place>> places_;       // of each pattern
  std::shared_ptr<NamespaceMeasures> measures_;  // null: not assembled
  std::size_t max_inline_bytes_ = 0;
  bool waits_ = false;  // publishes wait: a topic is what the client named until they go on
  std::stop_source replaced_;

  std::string log_backend_, state_backend_;                                // names
  std::map<std::string, std::shared_ptr<OpenBackend>, std::less<>> uses_;  // by name
  std::vector<std::shared_ptr<Job>> jobs_to_start_;
  std::unique_ptr<JobKeeper> jobs_;
};

// What a request means by its names.
struct Target {
  std::shared_ptr<Namespace> ns;
  std::string topic;  // physical
};

// What a namespace holds that a replacement would leave behind.
struct Unfinished {
  std::string name;  // of the namespace
  std::uint64_t count = 0;
  std::string what;             // reads on from "has": "3 rows of table x that are not published"
  std::uint64_t of_topics = 0;  // of the count: what clients have to consume
};

class Registry {
 public:
  struct Options {
    std::string data_dir;                                      // embedded backends keep everything below it
    bool embedded = false;                                     // bind every backend name to its embedded twin
    std::string holder;                                        // names this process in leases; unique
    Clock::duration lease_ttl = std::chrono::seconds(10);      // jobs of a stopped process go to another after this
    Clock::duration handover = std::chrono::seconds(5);        // publishes wait for a replacement at most this long
    bool measured = true;                                      // false: no metrics of chains, backends and patterns
    Clock::duration check_every = std::chrono::seconds(5);     // backends that answer; others more often, with back-off
    Clock::duration check_patience = std::chrono::seconds(3);  // for the answer
    // What was served from the same data before, where it was another file: its work is handed over as by replace(),
    // but for that of these namespaces.
    std::optional<FileSpec> before;
    std::set<std::string> abandon;
  };
  // Opens the backends, makes what is missing (tables, topics), builds every chain and starts the jobs. The runtime,
  // the metrics and the components outlive the registry. NAMESPACE_HAS_WORK: see Options::before.
  //
  // A namespace that cannot be opened since a real backend (not an embedded one) does not answer, or does not admit
  // Prism, waits: what is asked of it gets NAMESPACE_NOT_READY, and it is opened when the backend answers.
  static Task<Result<std::unique_ptr<Registry>>> open(Context context, FileSpec file, const Components& components,
                                                      Runtime& runtime, Metrics& metrics, Options options);
  ~Registry();

  struct Replacement {
    std::vector<std::string> built;  // namespaces that are new or changed
    std::vector<std::string> removed;
    std::vector<Unfinished> abandoned;  // what was given up
  };
  struct ReplaceOptions {
    std::set<std::string> abandon;  // namespaces whose unfinished work may be left behind
    // Called when nothing can fail any more, right before the swap; an error undoes everything.
    std::function<Result<void>()> commit;
  };
  // One at a time. An error changes nothing: that of a namespace that cannot be built, unless it waits already;
  // NAMESPACE_NOT_READY where one that waits is changed, but for its backends' connections, or taken away (it may have
  // work that cannot be seen), unless it is abandoned; NAMESPACE_HAS_WORK where work
  // would be left behind; TOPIC_PARTITIONS_FIXED where the file asks for partitions that an existing topic has not;
  // that of the commit. Ends when the jobs of what was replaced have ended and the new ones run; requests and
  // subscriptions of the old assemblies may go on after it.
  Task<Result<Replacement>> replace(Context context, FileSpec file, ReplaceOptions options);
  // What replace() would have to wait for at this moment. TOPIC_PARTITIONS_FIXED.
  Task<Result<std::vector<Unfinished>>> in_the_way(Context context, FileSpec file);
  // Assemblies that were replaced and still have users.
  std::size_t retired() const;

  // `bound`: the namespace that the client is bound to, or empty. Then `name` is a topic in it, or empty for the
  // namespace's own; unbound, `name` is a namespace or a topic that exactly one namespace serves. NAMESPACE_NOT_FOUND,
  // TOPIC_AMBIGUOUS.
  // INVALID_TOPIC: the physical name is none that a log takes. NAMESPACE_NOT_READY: the namespace waits for a backend.
  // A replacement may wait for those that use what was resolved for publishing; do not keep it.
  enum class Use : std::uint8_t { publish, other };
  Result<Target> resolve(std::string_view bound, std::string_view name, Use use = Use::publish) const;
  std::shared_ptr<Namespace> find(std::string_view name) const;  // null: none; not for publishing
  std::vector<std::shared_ptr<Namespace>> all() const;           // not for publishing; without those that wait

  // By name; those that wait too.
  std::vector<NamespaceHealth> health() const;
  // In the order of opening.
  std::vector<BackendState> backend_states() const;
  // Called at once, and on a loop whenever the state of a namespace has changed; one call at a time, must not block.
  // Null: nobody is called any more.
  void on_health(std::function<void(const std::vector<NamespaceHealth>&)> changed);

  std::vector<JobStatus> jobs() const;
  Result<void> pause_job(std::string_view name);  // JOB_NOT_FOUND; all shards, after their present round
  Result<void> resume_job(std::string_view name);

  // The object store of a backend and bucket that some namespace uses, or null (for the test server's object count).
  std::vector<std::pair<std::string, std::shared_ptr<ObjectStore>>> object_stores(std::string_view backend) const;
  // Is the background work of every namespace done (see Namespace::settled)?
  Task<Result<bool>> settled(Context context) const;
  // Before the metrics are shown: see Namespace::measure.
  Task<void> measure(Context context) const;
  // Which backend name is served by what, for people: "kafka -> sqlite (data/kafka.db)".
  std::vector<std::string> bindings() const;

  // Ends the jobs (batch finished, checkpointed, leases released), closes the chains outer to inner, then the backends.
  // No replacement and no request is under way.
  Task<void> close(Context context);

 private:
  friend class Assembling;
  class Backends;
  class Connecting;
  class Gate;
  class WaitingPublisher;
  class WaitingSubscriber;
  using Gone = std::shared_ptr<std::atomic<bool>>;
  // What is asked for is given by handles, so that it is known when the users of an assembly have gone.
  struct Served {
    std::shared_ptr<Namespace> own;             // the assembly
    std::shared_ptr<Namespace> publish, other;  // handles
    Gone publish_gone, other_gone;
  };
  using NamespaceMap = std::map<std::string, Served, std::less<>>;
  // A namespace of the file whose backend has not answered yet.
  struct Waiting {
    NamespaceSpec spec;
    OptionValues meaning;
    Error error;  // of the last try
    WallTime since{};
    std::set<std::string> backends;  // that were reached for in the last try
    Backoff backoff;
    Clock::time_point next_try{};
  };
  using WaitingMap = std::map<std::string, Waiting, std::less<>>;
  // An assembly that is replaced and has places that nothing of the new file has.
  struct Moving {
    Served old;
    std::vector<const Pattern*> patterns;  // whose places they are
    bool topics = false;                   // what is not consumed would not be found any more
    std::set<std::string> topics_served;   // but for these
    // The declared groups from now on, where fewer groups count than before: what the others have not acknowledged
    // would be cleaned up under them.
    std::optional<std::vector<std::string>> groups;
    bool renames = false;  // names mean other topics from now on
  };
  struct Next;

  Registry(const Components& components, Runtime& runtime, Metrics& metrics, Options options);
  Result<Target> find_target(std::string_view bound, std::string_view name, Use use) const;
  std::pair<std::shared_ptr<Namespace>, Gone> handle(std::shared_ptr<Namespace> own) const;
  Served serve(std::shared_ptr<Namespace> own) const;
  using Keeps = std::function<bool(const std::string& backend)>;  // does it lead to the same data as before?
  std::vector<Moving> moving(const NamespaceMap& present, const FileSpec& file, const Keeps& keeps) const;
  Task<Result<void>> take_over(Context context, const FileSpec* file);
  Task<Result<void>> check_partitions(Context context, const NamespaceSpec* spec, const Connecting* connecting) const;
  Task<Result<void>> build(Context context, FileSpec file, Next* next);
  Task<Result<Replacement>> replace_now(Context context, FileSpec file, ReplaceOptions options);
  Result<void> may_change_waiting(const FileSpec& file, const std::set<std::string>& abandon) const;
  WaitingMap waiting() const;
  std::vector<std::shared_ptr<OpenBackend>> open_backends() const;  // in the order of opening
  Task<void> tend();
  Task<void> open_waiting(Context context);
  void show_health();
  void tell_health();  // with health_mutex_
  Task<Result<std::vector<Unfinished>>> wait_until_done(Context context, const std::vector<Moving>* moving);
  void swap(Next& next);
  static Task<Result<Unfinished>> unfinished(Context context, const Moving* moving);
  void begin_jobs(Namespace& ns);
  static Task<bool> end_jobs(Context context, std::shared_ptr<Namespace> ns);
  Task<void> retire(Served old);
  Result<void> set_paused(std::string_view name, bool paused);

  const Components& components_;
  Runtime& runtime_;
  Metrics& metrics_;
  const Options options_;
  EventLoop& loop_;
  std::shared_ptr<Backends> backends_;
  std::shared_ptr<Notifier> released_;  // a handle's last user has gone
  mutable std::shared_mutex mutex_;
  NamespaceMap namespaces_;                        // guarded by mutex_, as all below
  std::set<std::string, std::less<>> paused_;      // jobs that an operator has paused, by name
  std::vector<std::weak_ptr<Namespace>> retired_;  // that may still have users
  WaitingMap waiting_;
  std::map<std::string, std::shared_ptr<Gauge>> ready_;  // by namespace
  std::atomic<bool> replacing_{false};
  FileSpec file_;          // that is served; of whoever has set replacing_
  bool may_wait_ = false;  // a namespace that is built for the first time may wait; the same
  std::mutex health_mutex_;
  std::function<void(const std::vector<NamespaceHealth>&)> health_changed_;  // guarded by health_mutex_
  std::map<std::string, NamespaceState> health_shown_;                       // the same
  Scope tending_;         // looks after the backends and what waits for them
  bool serving_ = false;  // open() has ended: a replacement may be refused for what a start only warns of
  Scope scope_;
};

}  // namespace prism
