#include "namespaces/registry.h"

#include <algorithm>
#include <mutex>
#include <ranges>

#include "base/text.h"
#include "capabilities/measured.h"
#include "capabilities/traced.h"
#include "patterns/log_ports.h"
#include "patterns/measured.h"
#include "patterns/traced.h"
#include "telemetry/log.h"

namespace prism {
namespace {

constexpr std::string_view kStateBackend = "prism";  // the name of the default state store: <data_dir>/prism.db
constexpr Clock::duration kJobPatience = std::chrono::seconds(20);    // for the last rounds of jobs that are replaced
constexpr Clock::duration kClosePatience = std::chrono::seconds(10);  // for backends that nothing uses any more
constexpr Clock::duration kAssemblyPatience = std::chrono::seconds(20);  // for one namespace, where it may wait
constexpr auto kTryAgain = std::chrono::milliseconds(500);               // first pause after a namespace was not opened
constexpr auto kTryAgainMost = std::chrono::milliseconds(30'000);        // the longest
constexpr Clock::duration kTopicPatience = std::chrono::seconds(3);      // for what a log knows of its topics
constexpr Clock::duration kStartPatience = std::chrono::seconds(40);     // for work that was left before the start
constexpr Clock::duration kLook = std::chrono::milliseconds(20);         // between looks at what is unfinished
// Work that has not become less for so long will not be done in time: publishes need not wait for it.
constexpr Clock::duration kStandstill = std::chrono::milliseconds(1500);

// A topic keeps the partitions that it was made with. Of another number more could be made, but a key's messages would
// go to another one then and come before those that are there.
Notice partitions_notice(const std::string& topic, std::uint32_t has, std::uint32_t wanted) {
  return {"TOPIC_PARTITIONS_FIXED",
          "topic \"" + topic + "\" has " + counted(has, "partition") + " and the file asks for " +
              std::to_string(wanted) +
              (wanted < has ? ": partitions that hold messages cannot be taken away"
                            : ": with more, messages would overtake earlier ones of the same key"),
          "leave `partitions` at " + std::to_string(has) + " or out, or give the namespace a new `topic` with " +
              std::to_string(wanted) + ", which takes over when every group has consumed the old one"};
}

// Topics are noted in the state store before they are made, so that jobs of any process find them.
class NamespaceTopics final : public Topics {
 public:
  NamespaceTopics(std::string namespace_name, std::uint32_t partitions, std::uint32_t replication,
                  std::shared_ptr<EventLog> log, std::shared_ptr<KeyValueStore> state, std::shared_ptr<Notices> notices)
      : namespace_(std::move(namespace_name)),
        prefix_("topics/" + namespace_ + "/"),
        partitions_(partitions),
        replication_(replication),
        log_(std::move(log)),
        state_(std::move(state)),
        notices_(std::move(notices)) {}

  // By topic: the partitions of those that exist and have others than the file asks for.
  static Task<Result<std::map<std::string, std::uint32_t>>> unlike(Context context, std::shared_ptr<EventLog> log,
                                                                   std::vector<std::string> topics,
                                                                   std::uint32_t partitions) {
    std::map<std::string, std::uint32_t> out;
    for (const auto& topic : topics) {
      const auto info = co_await log->topic(context, topic);
      if (!info && info.error().code == Code::not_found) continue;
      if (!info) co_return std::unexpected(info.error());
      if (info->partitions != partitions) out.emplace(topic, info->partitions);
    }
    co_return out;
  }

  // Notes topics that another state store knew.
  Task<Result<void>> note(Context context, std::vector<std::string> topics) {
    if (topics.empty()) co_return {};
    Batch<Mutation> notes;
    for (const auto& topic : topics)
      notes.push_back({.key = prefix_ + topic, .value = Bytes(), .expect = {}, .expect_absent = false, .ttl = {}});
    for (auto& noted : co_await state_->apply(context, std::move(notes))) {
      if (!noted) co_return std::unexpected(std::move(noted).error());
    }
    co_return {};
  }

  Task<Result<TopicInfo>> ensure(Context context, std::string topic) override {
    {
      const std::shared_lock lock(mutex_);
      if (const auto it = known_.find(topic); it != known_.end()) co_return it->second;
    }
    PRISM_CO_CHECK(co_await note(context, {topic}));
    PRISM_CO_TRY(auto info,
                 co_await log_->ensure_topic(
                     context, TopicSpec{.name = topic, .partitions = partitions_, .replication = replication_}));
    if (partitions_ != 0 && info.partitions != partitions_) note_partitions(topic, info.partitions);
    const std::unique_lock lock(mutex_);
    known_.insert_or_assign(topic, info);
    co_return info;
  }

  Task<Result<std::vector<std::string>>> known(Context context) override {
    std::vector<std::string> names;
    std::string after;
    for (bool more = true; more;) {
      PRISM_CO_TRY(const auto page, co_await state_->scan(context, prefix_, after, 1000, 1 << 20));
      for (const auto& [key, entry] : page.entries) {
        names.push_back(key.substr(prefix_.size()));
        after = key;
      }
      more = page.more;
    }
    co_return names;
  }

  void note_partitions(const std::string& topic, std::uint32_t has) {
    Notice notice = partitions_notice(topic, has, partitions_);
    if (!notices_->add(topic, notice)) return;
    log::warn("a topic has other partitions than the file asks for", {{"namespace", namespace_},
                                                                      {"topic", topic},
                                                                      {"reason", notice.reason},
                                                                      {"count", has},
                                                                      {"value", partitions_},
                                                                      {"hint", notice.hint}});
  }

 private:
  const std::string namespace_, prefix_;
  const std::uint32_t partitions_, replication_;
  std::shared_ptr<EventLog> log_;
  std::shared_ptr<KeyValueStore> state_;
  std::shared_ptr<Notices> notices_;
  std::shared_mutex mutex_;
  std::map<std::string, TopicInfo> known_;  // guarded by mutex_
};

// How a namespace's names become topics.
std::string physical(const BackendUse& backend, const std::string& fixed_topic, const std::string& namespace_name,
                     std::string_view topic) {
  if (!fixed_topic.empty()) return fixed_topic;
  if (!backend.topic.empty()) return backend.topic;
  std::string name(topic.empty() ? std::string_view(namespace_name) : topic);
  return backend.topic_prefix.empty() ? name : backend.topic_prefix + "." + name;
}

std::unexpected<Error> partitions_refused(const std::string& namespace_name, Notice notice) {
  return fail(Error{Code::failed_precondition,
                    std::move(notice.reason),
                    std::move(notice.message),
                    std::move(notice.hint),
                    Retry::never,
                    {},
                    {{"namespace", namespace_name}}});
}

// Does the file ask this namespace for other partitions than before? Where it did so before too, it was told already.
bool asks_for_partitions(const NamespaceSpec& spec, const NamespaceSpec* before) {
  return spec.backend.partitions && (before == nullptr || before->backend.partitions != spec.backend.partitions);
}

// What can be told of a namespace before it is built.
struct Plan {
  std::vector<std::unique_ptr<Pattern>> patterns;  // in canonical order, outermost first
  std::string log_backend, state_backend;          // names; empty: none
  std::string fixed_topic;
  std::vector<std::vector<Place>> places;  // of each pattern
};

std::vector<Place> places_of(const PatternType& type, const PatternSpec& entry, const std::string& namespace_name) {
  std::vector<Place> out;
  if (!type.holdings) return out;
  for (auto& holding : type.holdings(entry.options, namespace_name)) {
    std::string name = std::move(holding.name);
    if (holding.kind == Holding::Kind::objects) name.insert(0, holding.container + "/");
    out.push_back({holding.kind, std::move(holding.backend), std::move(name)});
  }
  return out;
}

Result<Plan> make_plan(const NamespaceSpec& spec, const Components& components) {
  std::vector<std::pair<const PatternType*, const PatternSpec*>> entries;
  for (const auto& entry : spec.patterns) {
    if (!entry.enabled) continue;
    const PatternType* type = components.pattern(entry.type);
    if (type == nullptr || !type->make) {
      return fail(Code::unimplemented, "PATTERN_NOT_AVAILABLE",
                  "pattern " + entry.type + " is not available in this version of Prism");
    }
    entries.emplace_back(type, &entry);
  }
  // Canonical order, outermost first (docs/architecture.md): the order in the file leaves no doubt of what is meant.
  std::ranges::sort(entries, {}, [](const auto& e) { return std::pair(e.first->info.rank, e.first->info.name); });
  Plan plan;
  plan.log_backend = spec.backend.name;
  plan.state_backend = spec.state.empty() ? std::string(kStateBackend) : spec.state;
  for (const auto& [type, entry] : entries) {
    auto pattern = type->make(entry->options);
    if (auto named = pattern->log_backend(); !named.empty()) plan.log_backend = named;
    if (plan.fixed_topic.empty()) plan.fixed_topic = pattern->fixed_topic();
    plan.places.push_back(places_of(*type, *entry, spec.name));
    plan.patterns.push_back(std::move(pattern));
  }
  return plan;
}

// May a message published to such a namespace go to this topic?
bool publishes_to(const BackendUse& backend, const std::string& fixed_topic, const std::string& topic) {
  const std::string& only = fixed_topic.empty() ? backend.topic : fixed_topic;
  if (!only.empty()) return topic == only;
  return backend.topic_prefix.empty() || topic.starts_with(backend.topic_prefix + ".");
}

// Of the topics that were used under this name, those that are still the namespace's, and its own.
std::vector<std::string> topics_of(std::vector<std::string> known, const NamespaceSpec& spec,
                                   const std::string& fixed_topic) {
  std::erase_if(known, [&](const auto& topic) { return !publishes_to(spec.backend, fixed_topic, topic); });
  auto own = physical(spec.backend, fixed_topic, spec.name, {});
  if (std::ranges::find(known, own) == known.end()) known.push_back(std::move(own));
  return known;
}

}  // namespace

namespace {
void log_waiting(const NamespaceSpec& spec, const Error& error) {
  const auto backend = error.metadata.find("backend");
  log::warn("a namespace waits for a backend", {{"namespace", spec.name},
                                                {"backend", backend != error.metadata.end() ? backend->second : ""},
                                                {"reason", error.reason},
                                                {"error", error.message},
                                                {"hint", error.hint}});
}
}  // namespace

bool Notices::add(const std::string& about, Notice notice) {
  const std::lock_guard lock(mutex_);
  return notices_.insert_or_assign(about, std::move(notice)).second;
}

std::vector<Notice> Notices::all() const {
  const std::lock_guard lock(mutex_);
  std::vector<Notice> out;
  for (const auto& [about, notice] : notices_) out.push_back(notice);
  return out;
}

// The connected backends. Those of the present file are found by name; others stay until nobody uses them.
class Registry::Backends {
 public:
  using Map = std::map<std::string, std::shared_ptr<OpenBackend>, std::less<>>;

  std::shared_ptr<OpenBackend> find(std::string_view name) const {
    const std::shared_lock lock(mutex_);
    const auto it = present_.find(name);
    return it != present_.end() ? it->second : nullptr;
  }
  Map present() const {
    const std::shared_lock lock(mutex_);
    return present_;
  }
  std::uint64_t next_number() noexcept { return ++opened_; }

  void replace(Map next) {
    const std::unique_lock lock(mutex_);
    for (auto& [name, open] : present_) {
      const auto it = next.find(name);
      if (it == next.end() || it->second != open) leaving_.push_back(std::move(open));
    }
    present_ = std::move(next);
  }
  void leave(std::shared_ptr<OpenBackend> open) {
    const std::unique_lock lock(mutex_);
    leaving_.push_back(std::move(open));
  }
  // Closes those that are not of the present file and that nobody uses.
  Task<void> close_unused(Context context) {
    std::vector<std::shared_ptr<OpenBackend>> unused;
    {
      const std::unique_lock lock(mutex_);
      const auto used = std::ranges::partition(leaving_, [](const auto& open) { return open.use_count() > 1; });
      std::ranges::move(used, std::back_inserter(unused));
      leaving_.erase(used.begin(), used.end());
    }
    co_await close(std::move(context), std::move(unused));
  }
  Task<void> close_all(Context context) {
    std::vector<std::shared_ptr<OpenBackend>> all;
    {
      const std::unique_lock lock(mutex_);
      all = std::exchange(leaving_, {});
      for (auto& [name, open] : present_) all.push_back(std::move(open));
      present_.clear();
    }
    co_await close(std::move(context), std::move(all));
  }

 private:
  // The last one opened may rest on an earlier one.
  static Task<void> close(Context context, std::vector<std::shared_ptr<OpenBackend>> backends) {
    std::ranges::sort(backends, std::greater(), &OpenBackend::number);
    for (const auto& open : backends) co_await open->backend->close(context);
  }

  mutable std::shared_mutex mutex_;
  Map present_;                                        // guarded by mutex_
  std::vector<std::shared_ptr<OpenBackend>> leaving_;  // guarded by mutex_
  std::atomic<std::uint64_t> opened_{0};
};

// The backends of the file that is being built: those that are connected already stay, others are connected.
class Registry::Connecting {
 public:
  Connecting(const Registry& registry, const std::vector<BackendSpec>& configured)
      : registry_(registry), configured_(configured), present_(registry.backends_->present()) {}

  // Is this backend, as it is connected now, the one that the file means?
  bool keeps(const std::string& name) const {
    const auto it = present_.find(name);
    return it != present_.end() && it->second->meaning == meaning(name);
  }

  Task<Result<std::shared_ptr<OpenBackend>>> get(Context context, std::string name) {
    if (const auto it = next_.find(name); it != next_.end()) co_return it->second;
    if (keeps(name)) co_return next_.emplace(name, present_.at(name)).first->second;
    PRISM_CO_TRY(auto made, co_await connect(std::move(context), name));
    Engine engine = engine_of(name, *made);
    auto open = std::make_shared<OpenBackend>(
        name, meaning(name), std::move(made), registry_.backends_->next_number(), std::move(engine),
        std::make_unique<BackendHealth>(name, registry_.options_.measured ? &registry_.metrics_ : nullptr));
    next_.emplace(name, open);
    fresh_.push_back(open);
    co_return open;
  }
  void keep(const std::shared_ptr<OpenBackend>& open) { next_.emplace(open->name, open); }
  // Asked once for all namespaces, so that one that does not answer holds up a start for no longer than this.
  Task<Result<void>> answers(Context context, std::shared_ptr<OpenBackend> open) {
    if (const auto it = answers_.find(open->name); it != answers_.end()) co_return it->second;
    auto answer = co_await ask(context, open, registry_.options_.check_patience, registry_.options_.check_every);
    answers_.emplace(open->name, answer);
    co_return answer;
  }

  Backends::Map take() {
    fresh_.clear();
    return std::move(next_);
  }
  // What was connected for nothing.
  void give_up() {
    next_.clear();
    for (auto& open : fresh_) registry_.backends_->leave(std::move(open));
    fresh_.clear();
  }

 private:
  const BackendSpec* spec(const std::string& name) const {
    const auto it = std::ranges::find(configured_, name, &BackendSpec::name);
    return it != configured_.end() ? &*it : nullptr;
  }
  const BackendType* type(const std::string& name) const {
    if (name == kStateBackend) return registry_.components_.backend("sqlite");
    const BackendSpec* given = spec(name);
    return registry_.components_.backend(given != nullptr ? given->type : name);
  }
  Engine engine_of(const std::string& name, const Backend& made) const {
    const BackendType* found = type(name);
    Engine engine{std::string(found != nullptr ? found->name : name), name, std::string(made.embedded())};
    if (engine.twin == engine.system) engine.twin.clear();
    return engine;
  }
  bool embeds(const std::string& name) const {
    const BackendType* found = type(name);
    return name == kStateBackend || (registry_.options_.embedded && found != nullptr && found->embed);
  }
  std::string meaning(const std::string& name) const {
    const BackendType* found = type(name);
    std::string out(found != nullptr ? found->name : name);
    if (embeds(name)) return out + " embedded";
    if (const BackendSpec* given = spec(name)) {
      for (const auto& [option, value] : options_of(*given, registry_.components_))
        out += "\n" + option + "=" + value.meaning;
    }
    return out;
  }
  Task<Result<std::unique_ptr<Backend>>> connect(Context context, std::string name) {
    const BackendSpec* given = spec(name);
    const BackendType* found = type(name);
    if (found == nullptr) {
      if (name == kStateBackend)
        co_return fail(Code::internal, "STATE_STORE_MISSING", "this program was built without the sqlite backend");
      co_return fail(Code::invalid_argument, "BACKEND_NOT_CONFIGURED", "there is no backend named \"" + name + "\"",
                     "add it under `backends:` with its `type`");
    }
    Result<std::unique_ptr<Backend>> made;
    if (embeds(name)) {
      made = co_await found->embed(context, registry_.runtime_, name, registry_.options_.data_dir);
    } else if (given == nullptr) {
      co_return fail(Code::failed_precondition, "BACKEND_NOT_CONFIGURED",
                     "backend \"" + name + "\" is used and not configured",
                     "give its connection under `backends:`, or run with `prism dev` or `prism serve --embedded`");
    } else if (!found->connect) {
      co_return fail(Code::unimplemented, "BACKEND_NOT_AVAILABLE",
                     "this version of Prism has no connector for " + std::string(found->name),
                     "run with `prism dev` or `prism serve --embedded`, which bind it to its embedded twin");
    } else {
      made = co_await found->connect(context, registry_.runtime_, name, given->options);
    }
    if (!made) co_return std::unexpected(std::move(made).error().with("backend", name));
    co_return made;
  }

  const Registry& registry_;
  const std::vector<BackendSpec>& configured_;
  const Backends::Map present_;
  Backends::Map next_;
  std::map<std::string, Result<void>> answers_;
  std::vector<std::shared_ptr<OpenBackend>> fresh_;
};

struct Registry::Next {
  std::vector<BackendSpec> configured;
  std::unique_ptr<Connecting> connecting;            // refers to configured
  std::vector<std::pair<Place, std::string>> taken;  // places and the namespaces that have them
  NamespaceMap namespaces;
  WaitingMap waiting;
  std::vector<std::shared_ptr<Namespace>> built;
  std::vector<Served> leaving;
  std::vector<Moving> moving;
};

// Puts one namespace together.
class Assembling final : public Assembly {
 public:
  // `before`: the assembly that it takes the place of; null: none.
  Assembling(Registry& registry, Registry::Connecting& connecting, std::vector<std::pair<Place, std::string>>& taken,
             Namespace& ns, const Namespace* before, bool refuses_partitions)
      : registry_(registry),
        connecting_(connecting),
        taken_(taken),
        ns_(ns),
        before_(before),
        refuses_partitions_(refuses_partitions),
        pattern_metrics_(registry.metrics_, ns.name(),
                         ns.spec().observability.pattern_metrics && registry.options_.measured),
        pending_(std::make_shared<PendingReferences>()) {}

  Task<Result<void>> run(Context context) {
    PRISM_CO_TRY(auto plan, make_plan(ns_.spec_, registry_.components_));
    ns_.patterns_ = std::move(plan.patterns);
    ns_.places_ = std::move(plan.places);
    ns_.fixed_topic_ = plan.fixed_topic;
    ns_.log_backend_ = plan.log_backend;
    ns_.state_backend_ = plan.state_backend;
    if (ns_.log_backend_.empty()) {
      co_return fail(Code::invalid_argument, "BACKEND_MISSING",
                     "namespace \"" + ns_.name() + "\" names no backend for its messages",
                     "add `backend: kafka`, or a destination to the outbox's publisher");
    }
    PRISM_CO_TRY(const auto own, co_await use(context, std::string(kStateBackend)));
    PRISM_CO_TRY(const auto state, co_await use(context, ns_.state_backend_));
    // Processes that share a state store share the jobs.
    const auto& leases = state->backend->lease() != nullptr ? state : own;
    ns_.jobs_ = std::make_unique<JobKeeper>(registry_.runtime_.next_loop(),
                                            measured(leases->backend->lease(), user(leases->name)),
                                            JobKeeper::Options{.lease_ttl = registry_.options_.lease_ttl,
                                                               .holder = registry_.options_.holder,
                                                               .metrics = &registry_.metrics_});
    state_ = measured(state->backend->key_value(), user(state->name));
    if (state_ == nullptr) co_return lacks(*state, "key-value store");
    PRISM_CO_TRY(const auto log, co_await use(context, ns_.log_backend_));
    ns_.log_ = measured(log->backend->event_log(), user(log->name, "log"));
    if (ns_.log_ == nullptr) co_return lacks(*log, "event log");
    const auto topics =
        std::make_shared<NamespaceTopics>(ns_.name(), ns_.spec_.backend.partitions.value_or(0),
                                          ns_.spec_.backend.replication.value_or(0), ns_.log_, state_, ns_.notices_);
    ns_.topics_ = topics;
    PRISM_CO_CHECK(co_await look_at_topics(context, topics));
    ns_.max_inline_bytes_ = max_inline_bytes();

    Ports ports{.publish = make_log_publisher(ns_.log_, ns_.topics_, engine(ns_.log_backend_)),
                .subscribe = make_log_subscriber(ns_.log_, ns_.topics_, consumer_groups())};
    const ChainMetrics chain(registry_.metrics_, ns_.name(), ns_.spec_.observability.pattern_metrics);
    const bool is_measured = registry_.options_.measured;
    if (is_measured && !ns_.patterns_.empty()) ports.publish = chain.step(std::move(ports.publish), 0, {});
    for (const auto& type : registry_.components_.patterns) {
      if (type.decode) ports.subscribe = type.decode(std::move(ports.subscribe), *this);
    }
    ns_.chain_.insert(ns_.chain_.begin(), ns_.log_backend_);
    for (auto it = ns_.patterns_.rbegin(); it != ns_.patterns_.rend(); ++it) {
      step_ = (*it)->info().name;
      auto wrapped = co_await (*it)->wrap(context, std::move(ports), *this);
      if (!wrapped) co_return std::unexpected(std::move(wrapped).error().with("pattern", step_));
      ports = std::move(*wrapped);
      if (is_measured) ports.publish = chain.step(std::move(ports.publish), ns_.chain_.size(), step_);
      ns_.chain_.insert(ns_.chain_.begin(), step_);
    }
    for (const auto& pattern : ns_.patterns_) {
      if (pattern->info().encloses) ports.publish = make_enclosing(std::move(ports.publish), pattern->info().name);
    }
    // Where there are patterns the log is measured too.
    const std::size_t steps = ns_.patterns_.empty() ? 0 : ns_.patterns_.size() + 1;
    ns_.ports_ = is_measured ? chain.chain(std::move(ports), steps) : std::move(ports);
    ns_.measures_ = make_measures(registry_.metrics_);
    co_return {};
  }

  Runtime& runtime() override { return registry_.runtime_; }
  Metrics& metrics() override { return registry_.metrics_; }
  const PatternMetrics& pattern_metrics() const override { return pattern_metrics_; }
  const std::string& namespace_name() const override { return ns_.spec_.name; }
  Task<Result<std::shared_ptr<ObjectStore>>> object_store(Context context, std::string backend,
                                                          std::string bucket) override {
    PRISM_CO_TRY(const auto found, co_await use(context, backend));
    auto store = found->objects(bucket);
    if (!store && store.error().reason == "BACKEND_LACKS_CAPABILITY") co_return lacks(*found, "object store");
    if (!store) co_return store;
    co_return measured(std::move(*store), user(backend, step_));
  }
  Task<Result<std::shared_ptr<SqlDatabase>>> sql_database(Context context, std::string backend) override {
    PRISM_CO_TRY(const auto found, co_await use(context, backend));
    auto database = measured(found->backend->sql(), user(backend, step_));
    if (database == nullptr) co_return lacks(*found, "SQL database");
    co_return database;
  }
  FindObjectStore object_stores() override {
    return [backends = registry_.backends_, metrics = metrics_or_null()](
               const std::string& name, const std::string& bucket) -> Result<std::shared_ptr<ObjectStore>> {
      const auto found = backends->find(name);
      if (found == nullptr) {
        return fail(Code::failed_precondition, "BACKEND_NOT_CONFIGURED",
                    "the payload is in backend \"" + name + "\", which no namespace of the present configuration uses",
                    "configure the backend again until these messages are consumed");
      }
      auto store = found->objects(bucket);
      if (!store) return store;
      return measured(std::move(*store), {metrics, name, {}, {}});
    };
  }
  Engine engine(const std::string& backend) const override {
    const auto it = ns_.uses_.find(backend);
    return it != ns_.uses_.end() ? it->second->engine : Engine{backend, backend, {}};
  }
  std::shared_ptr<EventLog> log() override { return ns_.log_; }
  std::size_t max_inline_bytes() const override { return max_payload_bytes(ns_.log_->features()); }
  std::shared_ptr<KeyValueStore> state() override { return state_; }
  std::shared_ptr<Topics> topics() override { return ns_.topics_; }
  Result<void> reserve_objects(const std::string& backend, const std::string& bucket,
                               const std::string& prefix) override {
    const Place place{Holding::Kind::objects, backend, bucket + "/" + prefix};
    for (const auto& [other, owner] : taken_) {
      if (other.kind != place.kind || other.backend != backend ||
          (!other.name.starts_with(place.name) && !place.name.starts_with(other.name)))
        continue;
      return fail(Code::invalid_argument, "OBJECT_PREFIX_SHARED",
                  "namespaces \"" + owner + "\" and \"" + ns_.name() + "\" both keep payloads below " + backend +
                      "://" + place.name + ": the clean-up of one would delete the other's",
                  "give each its own bucket or prefix");
    }
    taken_.emplace_back(place, ns_.name());
    return {};
  }
  Result<void> reserve_table(const std::string& backend, const std::string& table) override {
    const Place place{Holding::Kind::table, backend, table};
    const auto other = std::ranges::find(taken_, place, &std::pair<Place, std::string>::first);
    if (other != taken_.end()) {
      return fail(Code::invalid_argument, "TABLE_SHARED",
                  "namespaces \"" + other->second + "\" and \"" + ns_.name() + "\" both use table \"" + table +
                      "\" of " + backend + ": each would publish the other's rows",
                  "give each its own with `table:`");
    }
    taken_.emplace_back(place, ns_.name());
    return {};
  }
  const std::vector<std::string>& consumer_groups() const override { return ns_.spec_.consumer_groups; }
  void add(std::shared_ptr<Job> job) override { ns_.jobs_to_start_.push_back(std::move(job)); }
  std::shared_ptr<PendingReferences> pending_references() override { return pending_; }

 private:
  // The topics that were used before: those that the state store of the assembly before knew are noted here too, and
  // their partitions are compared with what is asked for.
  Task<Result<void>> look_at_topics(Context context, std::shared_ptr<NamespaceTopics> topics) {
    if (before_ != nullptr && before_->topics_ != nullptr &&
        before_->uses_.at(before_->state_backend_) != ns_.uses_.at(ns_.state_backend_)) {
      PRISM_CO_TRY(auto known, co_await before_->topics_->known(context));
      std::erase_if(known,
                    [&](const auto& topic) { return !publishes_to(ns_.spec_.backend, ns_.fixed_topic_, topic); });
      PRISM_CO_CHECK(co_await topics->note(context, std::move(known)));
    }
    const std::uint32_t wanted = ns_.spec_.backend.partitions.value_or(0);
    if (wanted == 0) co_return {};
    PRISM_CO_TRY(auto known, co_await topics->known(context));
    const auto unlike =
        co_await NamespaceTopics::unlike(context.with_timeout(kTopicPatience), ns_.log_,
                                         topics_of(std::move(known), ns_.spec_, ns_.fixed_topic_), wanted);
    if (!unlike) co_return {};  // a log that does not answer now is compared when a topic is used
    for (const auto& [topic, has] : *unlike) {
      if (refuses_partitions_) co_return partitions_refused(ns_.name(), partitions_notice(topic, has, wanted));
      topics->note_partitions(topic, has);
    }
    co_return {};
  }

  Task<Result<std::shared_ptr<OpenBackend>>> use(Context context, std::string name) {
    PRISM_CO_TRY(auto open, co_await connecting_.get(context, name));
    ns_.uses_.insert_or_assign(name, open);
    PRISM_CO_CHECK(co_await connecting_.answers(std::move(context), open));
    co_return open;
  }
  BackendUser user(std::string backend, std::string step = {}) const {
    if (!ns_.spec_.observability.pattern_metrics) step.clear();
    return {metrics_or_null(), std::move(backend), ns_.name(), std::move(step)};
  }
  Metrics* metrics_or_null() const noexcept { return registry_.options_.measured ? &registry_.metrics_ : nullptr; }
  static std::unexpected<Error> lacks(const OpenBackend& open, std::string_view capability) {
    return fail(Code::failed_precondition, "BACKEND_LACKS_CAPABILITY",
                "backend \"" + open.name + "\", " + open.backend->describe() + ", is no " + std::string(capability));
  }

  Registry& registry_;
  Registry::Connecting& connecting_;
  std::vector<std::pair<Place, std::string>>& taken_;
  Namespace& ns_;
  const Namespace* const before_;
  const bool refuses_partitions_;
  const PatternMetrics pattern_metrics_;
  std::string step_;  // the pattern that is being put into the chain
  std::shared_ptr<PendingReferences> pending_;
  std::shared_ptr<KeyValueStore> state_;
};

// Publishes wait here while the work of an assembly comes to its end; then they go to the next one, or, where there is
// none, back to the old one.
class Registry::Gate {
 public:
  explicit Gate(EventLoop& loop) : opened_(loop) {}
  void open(Result<std::shared_ptr<Namespace>> to) {
    {
      const std::lock_guard lock(mutex_);
      to_ = std::move(to);
    }
    opened_.notify();
  }
  Task<Result<std::shared_ptr<Namespace>>> wait(Context context) {
    while (true) {
      const auto seen = opened_.version();
      {
        const std::lock_guard lock(mutex_);
        if (to_) co_return *to_;
      }
      if (context.stopped()) co_return std::unexpected(context.over(false));
      co_await opened_.wait(context, seen, std::chrono::minutes(1));
    }
  }

 private:
  Notifier opened_;
  std::mutex mutex_;
  std::optional<Result<std::shared_ptr<Namespace>>> to_;  // guarded by mutex_
};

class Registry::WaitingPublisher final : public Publisher {
 public:
  // `renames`: topics of messages are what clients named, and are still to be made physical.
  WaitingPublisher(std::shared_ptr<Gate> gate, bool renames) : gate_(std::move(gate)), renames_(renames) {}

  Task<Batch<Result<Appended>>> publish(Context context, Batch<Message> messages) override {
    Batch<Result<Appended>> results(messages.size());
    const auto to = co_await gate_->wait(context);
    Batch<Message> sent;
    std::vector<std::size_t> index;
    FailedKeys failed;
    for (std::size_t i = 0; i < messages.size(); ++i) {
      Message& message = messages[i];
      std::optional<Error> error = failed.check(message.key);
      if (!error && !to) error = to.error();
      if (!error && renames_) {
        message.topic = (*to)->physical_topic(message.topic == (*to)->name() ? std::string() : message.topic);
        if (auto good = check_topic_name(message.topic); !good) error = std::move(good).error();
      }
      if (error) {
        failed.add(message.key);
        results[i] = std::unexpected(std::move(*error));
        continue;
      }
      sent.push_back(std::move(message));
      index.push_back(i);
    }
    if (sent.empty()) co_return results;
    auto published = co_await (*to)->publisher().publish(std::move(context), std::move(sent));
    for (std::size_t i = 0; i < index.size(); ++i) results[index[i]] = std::move(published[i]);
    co_return results;
  }

 private:
  std::shared_ptr<Gate> gate_;
  bool renames_;
};

// Whoever consumes goes on: it is what the waiting is for.
class Registry::WaitingSubscriber final : public Subscriber {
 public:
  explicit WaitingSubscriber(std::shared_ptr<Namespace> old) : old_(std::move(old)) {}
  Task<Result<std::unique_ptr<Subscription>>> subscribe(Context context, GroupSpec spec) override {
    return old_->subscriber().subscribe(std::move(context), std::move(spec));
  }

 private:
  std::shared_ptr<Namespace> old_;
};

Namespace::~Namespace() = default;

std::string Namespace::physical_topic(std::string_view topic) const {
  if (waits_) return std::string(topic.empty() ? std::string_view(spec_.name) : topic);
  return physical(spec_.backend, fixed_topic_, spec_.name, topic);
}

bool Namespace::serves(std::string_view topic) const {
  return !topic.empty() && (spec_.backend.topic == topic || fixed_topic_ == topic);
}

Task<Result<std::vector<std::string>>> Namespace::present_topics(Context context) const {
  PRISM_CO_TRY(auto known, co_await topics_->known(std::move(context)));
  co_return topics_of(std::move(known), spec_, fixed_topic_);
}

Task<Result<bool>> Namespace::settled(Context context) const {
  // Work flows inwards: from the outbox to the log, and from there to the clean-up of the claim check.
  for (const auto& pattern : std::views::reverse(patterns_)) {
    PRISM_CO_TRY(const bool done, co_await pattern->settled(context));
    if (!done) co_return false;
  }
  co_return true;
}

// --- opening and closing ---

Registry::Registry(const Components& components, Runtime& runtime, Metrics& metrics, Options options)
    : components_(components),
      runtime_(runtime),
      metrics_(metrics),
      options_(std::move(options)),
      loop_(runtime.next_loop()),
      backends_(std::make_shared<Backends>()),
      released_(std::make_shared<Notifier>(loop_)) {}
Registry::~Registry() = default;

Task<Result<std::unique_ptr<Registry>>> Registry::open(Context context, FileSpec file, const Components& components,
                                                       Runtime& runtime, Metrics& metrics, Options options) {
  std::unique_ptr<Registry> registry(new Registry(components, runtime, metrics, std::move(options)));
  auto opened = co_await registry->take_over(context, &file);
  if (opened) {
    registry->may_wait_ = true;
    auto replaced = co_await registry->replace(context, std::move(file), {.abandon = registry->options_.abandon});
    registry->may_wait_ = false;
    if (replaced) {
      for (const auto& left : replaced->abandoned)
        log::warn("unfinished work was abandoned",
                  {{"namespace", left.name}, {"count", left.count}, {"error", left.what}});
    } else {
      opened = std::unexpected(std::move(replaced).error());
    }
  }
  if (!opened) {
    co_await registry->close(context);
    co_return std::unexpected(std::move(opened).error());
  }
  registry->serving_ = true;
  registry->tending_.spawn(registry->tend());
  co_return registry;
}

// Serves those namespaces of the file before whose places the present one does not have, so that it replaces them as it
// would have while they were served.
Task<Result<void>> Registry::take_over(Context context, const FileSpec* given) {
  if (!options_.before) co_return {};
  const FileSpec& file = *given;
  FileSpec last = *options_.before;
  // What is given a new address is most likely the same: nothing could tell.
  const auto type_of = [&](const FileSpec& of, const std::string& name) {
    const BackendSpec* spec = of.backend(name);
    return components_.backend(spec != nullptr ? spec->type : name);
  };
  const auto keeps = [&](const std::string& name) {
    return name == kStateBackend || type_of(last, name) == type_of(file, name);
  };
  NamespaceMap before;
  for (const auto& spec : last.namespaces) {
    auto plan = make_plan(spec, components_);
    if (!plan) continue;
    auto ns = std::make_shared<Namespace>();
    ns->spec_ = spec;
    ns->patterns_ = std::move(plan->patterns);
    ns->places_ = std::move(plan->places);
    ns->fixed_topic_ = plan->fixed_topic;
    ns->log_backend_ = plan->log_backend;
    ns->state_backend_ = plan->state_backend;
    before.emplace(spec.name,
                   Served{.own = std::move(ns), .publish = {}, .other = {}, .publish_gone = {}, .other_gone = {}});
  }
  std::set<std::string> moved;
  for (const auto& each : moving(before, file, keeps)) moved.insert(each.old.own->name());
  for (auto& backend : last.backends) {
    const BackendSpec* now = file.backend(backend.name);
    if (now == nullptr || !keeps(backend.name)) continue;
    if (options_of(backend, components_) != options_of(*now, components_) && !options_.embedded) {
      log::warn("a backend was given another connection; what namespaces left at the one before is not looked for",
                {{"backend", backend.name}});
    }
    backend = *now;
  }
  std::erase_if(last.namespaces, [&](const auto& spec) { return !moved.contains(spec.name); });
  if (last.namespaces.empty()) co_return {};
  log::info("the configuration was changed while nothing served it; what was served before is looked through first",
            {{"count", last.namespaces.size()}});
  auto opened = co_await replace(context, last, {});
  if (!opened) {
    // What is given up need not be looked at.
    const auto gone = std::erase_if(last.namespaces, [&](const auto& s) { return options_.abandon.contains(s.name); });
    if (gone > 0) opened = co_await replace(context, std::move(last), {});
  }
  if (!opened) {
    Error error = std::move(opened).error();
    error.message =
        "the configuration was changed while the server was stopped, and what was served before cannot be "
        "opened to see whether it left work behind: " +
        error.message;
    error.hint = "make it reachable, or start with --abandon NAMESPACE to give up what it may have left";
    co_return std::unexpected(std::move(error));
  }
  co_return {};
}

Task<void> Registry::close(Context context) {
  tending_.request_stop();
  co_await tending_.join();
  NamespaceMap last;
  {
    const std::unique_lock lock(mutex_);
    waiting_.clear();
    ready_.clear();
    last = std::exchange(namespaces_, {});
  }
  std::vector<Task<bool>> ends;
  for (const auto& [name, served] : last) ends.push_back(end_jobs(context, served.own));
  co_await when_all(std::move(ends));
  last.clear();
  scope_.request_stop();
  co_await scope_.join();
  co_await backends_->close_all(context);
}

// --- what waits for a backend ---

Registry::WaitingMap Registry::waiting() const {
  const std::shared_lock lock(mutex_);
  return waiting_;
}

std::vector<std::shared_ptr<OpenBackend>> Registry::open_backends() const {
  std::vector<std::shared_ptr<OpenBackend>> out;
  for (auto& [name, open] : backends_->present()) out.push_back(open);
  std::ranges::sort(out, {}, &OpenBackend::number);
  return out;
}

// What a namespace that waits has left from an earlier time cannot be seen: it must stay where it is.
Result<void> Registry::may_change_waiting(const FileSpec& file, const std::set<std::string>& abandon) const {
  const auto type_of = [&](const FileSpec& of, const std::string& name) {
    const BackendSpec* spec = of.backend(name);
    return components_.backend(spec != nullptr ? spec->type : name);
  };
  for (const auto& [name, waits] : waiting()) {
    if (abandon.contains(name)) continue;
    const NamespaceSpec* spec = file.find(name);
    bool stays = spec != nullptr && options_of(*spec, components_) == waits.meaning;
    const auto plan = make_plan(waits.spec, components_);
    std::set<std::string> used = waits.backends;
    if (plan) {
      used.insert({plan->log_backend, plan->state_backend});
      for (const auto& places : plan->places) {
        for (const auto& place : places) used.insert(place.backend);
      }
    }
    for (const auto& backend : used) stays = stays && type_of(file, backend) == type_of(file_, backend);
    if (stays) continue;
    return fail(Error{Code::failed_precondition,
                      "NAMESPACE_NOT_READY",
                      "namespace \"" + name + "\" waits for its backend, so that nobody can tell what a change of it " +
                          "would leave behind: " + waits.error.message,
                      "change only the connection of its backend until it is open; to give up what it may have left: "
                      "prism apply --abandon " +
                          name,
                      Retry::never,
                      {},
                      {{"namespace", name}}});
  }
  return {};
}

Task<void> Registry::open_waiting(Context context) {
  const auto before = waiting();
  const auto open = open_backends();
  const auto now = Clock::now();
  const bool worth_a_try = std::ranges::any_of(before, [&](const auto& each) {
    return each.second.next_try <= now && std::ranges::none_of(open, [&](const auto& backend) {
             return each.second.backends.contains(backend->name) && backend->health->trouble();
           });
  });
  if (!worth_a_try || replacing_.exchange(true)) co_return;
  const auto done = co_await replace_now(std::move(context), file_, {});
  replacing_ = false;
  if (!done) {
    if (done.error().code != Code::cancelled)
      log::warn("what waits could not be opened", {{"reason", done.error().reason}, {"error", done.error().message}});
    const std::unique_lock lock(mutex_);
    for (auto& [name, waits] : waiting_) waits.next_try = Clock::now() + waits.backoff.next();
    co_return;
  }
  const auto after = waiting();
  for (const auto& [name, waits] : before) {
    const auto it = after.find(name);
    if (it == after.end()) {
      log::info("a namespace that has waited is open", {{"namespace", name}, {"age_ms", wall_now() - waits.since}});
    } else if (it->second.error.reason != waits.error.reason) {
      log_waiting(it->second.spec, it->second.error);
    }
  }
}

// Asks the backends in turns, and opens what waits for them.
Task<void> Registry::tend() {
  co_await resume_on(loop_);
  const Context context = Context::background(tending_.stop_token());
  for (const auto& [name, waits] : waiting()) log_waiting(waits.spec, waits.error);
  while (!context.stopped()) {
    std::vector<Task<Result<void>>> asks;
    for (const auto& open : open_backends()) {
      if (open->health->ask_again() <= Clock::now())
        asks.push_back(ask(context, open, options_.check_patience, options_.check_every));
    }
    co_await when_all(std::move(asks));
    co_await resume_on(loop_);
    if (context.stopped()) co_return;
    // What was replaced while it was asked.
    co_await backends_->close_unused(Context().with_timeout(kClosePatience));
    if (!waiting().empty()) co_await open_waiting(context);
    show_health();
    auto next = Clock::now() + options_.check_every;
    for (const auto& open : open_backends()) next = std::min(next, open->health->ask_again());
    for (const auto& [name, waits] : waiting()) next = std::min(next, std::max(waits.next_try, Clock::now() + kLook));
    co_await sleep_for(loop_, context, std::max<Clock::duration>(next - Clock::now(), std::chrono::milliseconds(1)));
  }
}

// --- replacing ---

std::pair<std::shared_ptr<Namespace>, Registry::Gone> Registry::handle(std::shared_ptr<Namespace> own) const {
  auto gone = std::make_shared<std::atomic<bool>>(false);
  Namespace* const raw = own.get();
  // The assembly is let go before it is said so: whoever waits for that has the last reference.
  auto release = [own = std::move(own), gone, released = released_](Namespace*) mutable {
    own.reset();
    gone->store(true, std::memory_order_release);
    released->notify();
  };
  return {std::shared_ptr<Namespace>(raw, std::move(release)), gone};
}

Registry::Served Registry::serve(std::shared_ptr<Namespace> own) const {
  auto [publish, publish_gone] = handle(own);
  auto [other, other_gone] = handle(own);
  return {std::move(own), std::move(publish), std::move(other), std::move(publish_gone), std::move(other_gone)};
}

std::vector<Registry::Moving> Registry::moving(const NamespaceMap& present, const FileSpec& file,
                                               const Keeps& keeps) const {
  std::map<std::string, Plan> plans;
  std::set<Place> places;
  for (const auto& spec : file.namespaces) {
    auto plan = make_plan(spec, components_);
    if (!plan) continue;  // said when it is built
    for (const auto& theirs : plan->places) places.insert(theirs.begin(), theirs.end());
    plans.emplace(spec.name, std::move(*plan));
  }
  std::vector<Moving> out;
  for (const auto& [name, served] : present) {
    const Namespace& old = *served.own;
    const NamespaceSpec* spec = file.find(name);
    const auto plan = plans.find(name);
    const bool stays = spec != nullptr && plan != plans.end();
    Moving moving{.old = served, .patterns = {}, .topics = false, .topics_served = {}, .groups = {}, .renames = false};
    if (stays) {
      const auto& before = old.spec_.consumer_groups;
      const auto& after = spec->consumer_groups;
      const bool fewer = before.empty() ? !after.empty() : std::ranges::any_of(before, [&](const auto& g) {
        return std::ranges::find(after, g) == after.end();
      });
      if (fewer) moving.groups = after;
    }
    moving.renames = !stays || spec->backend.topic != old.spec_.backend.topic ||
                     spec->backend.topic_prefix != old.spec_.backend.topic_prefix ||
                     plan->second.fixed_topic != old.fixed_topic_;
    moving.topics = moving.renames || plan->second.log_backend != old.log_backend_ || !keeps(old.log_backend_);
    const bool all_patterns =
        moving.topics || plan->second.state_backend != old.state_backend_ || !keeps(old.state_backend_);
    for (std::size_t i = 0; i < old.patterns_.size(); ++i) {
      const auto& theirs = old.places_[i];
      const bool moved =
          std::ranges::any_of(theirs, [&](const Place& p) { return !places.contains(p) || !keeps(p.backend); });
      if (moved || (all_patterns && !theirs.empty())) moving.patterns.push_back(old.patterns_[i].get());
    }
    if (keeps(old.log_backend_)) {
      for (const auto& other : file.namespaces) {
        const auto found = plans.find(other.name);
        if (found == plans.end() || found->second.log_backend != old.log_backend_) continue;
        for (const auto& topic : {found->second.fixed_topic, other.backend.topic}) {
          if (!topic.empty()) moving.topics_served.insert(topic);
        }
      }
    }
    if (moving.topics || moving.groups || !moving.patterns.empty()) out.push_back(std::move(moving));
  }
  return out;
}

Task<Result<void>> Registry::build(Context context, FileSpec file, Next* next) {
  next->configured = file.connections();
  next->connecting = std::make_unique<Connecting>(*this, next->configured);
  Connecting& connecting = *next->connecting;
  NamespaceMap present;
  {
    const std::shared_lock lock(mutex_);
    present = namespaces_;
  }
  const WaitingMap was_waiting = waiting();
  PRISM_CO_CHECK(co_await connecting.get(context, std::string(kStateBackend)));
  std::vector<std::pair<NamespaceSpec*, OptionValues>> to_build;
  for (auto& spec : file.namespaces) {
    auto meaning = options_of(spec, components_);
    const auto it = present.find(spec.name);
    if (it != present.end() && it->second.own->meaning_ == meaning &&
        std::ranges::all_of(it->second.own->uses_, [&](const auto& use) { return connecting.keeps(use.first); })) {
      for (const auto& [name, open] : it->second.own->uses_) connecting.keep(open);
      for (const auto& places : it->second.own->places_) {
        for (const auto& place : places) next->taken.emplace_back(place, spec.name);
      }
      next->namespaces.emplace(spec.name, std::move(it->second));
      present.erase(it);
    } else {
      to_build.emplace_back(&spec, std::move(meaning));
    }
  }
  next->moving = moving(present, file, [&](const std::string& name) { return connecting.keeps(name); });
  for (auto& [name, served] : present) next->leaving.push_back(std::move(served));
  for (auto& [spec, meaning] : to_build) {
    auto ns = std::make_shared<Namespace>();
    ns->spec_ = std::move(*spec);
    ns->meaning_ = std::move(meaning);
    const auto old =
        std::ranges::find(next->leaving, ns->name(), [](const auto& served) { return served.own->name(); });
    const Namespace* const before = old != next->leaving.end() ? old->own.get() : nullptr;
    const bool refuses_partitions =
        serving_ && asks_for_partitions(ns->spec_, before != nullptr ? &before->spec_ : nullptr);
    const auto waited = was_waiting.find(ns->name());
    const bool may_wait = may_wait_ || waited != was_waiting.end();
    Assembling assembling(*this, connecting, next->taken, *ns, before, refuses_partitions);
    auto built = co_await assembling.run(may_wait ? context.with_timeout(kAssemblyPatience) : context);
    if (built) {
      next->built.push_back(std::move(ns));
      continue;
    }
    Error error = std::move(built).error();
    const bool real =
        std::ranges::any_of(ns->uses_, [](const auto& use) { return use.second->backend->embedded().empty(); });
    if (!may_wait || !real || !can_pass(error) || context.stopped())
      co_return std::unexpected(std::move(error).with("namespace", ns->name()));
    Waiting waits{.spec = std::move(ns->spec_),
                  .meaning = std::move(ns->meaning_),
                  .error = std::move(error),
                  .since = waited != was_waiting.end() ? waited->second.since : wall_now(),
                  .backends = {},
                  .backoff = waited != was_waiting.end() ? waited->second.backoff : Backoff(kTryAgain, kTryAgainMost)};
    for (const auto& [name, open] : ns->uses_) waits.backends.insert(name);
    waits.next_try = Clock::now() + waits.backoff.next();
    next->waiting.emplace(waits.spec.name, std::move(waits));
  }
  co_return {};
}

Task<Result<Unfinished>> Registry::unfinished(Context context, const Moving* moving) {
  const Namespace& ns = *moving->old.own;
  Unfinished out{.name = ns.name(), .count = 0, .what = {}};
  const auto add = [&](std::uint64_t count, const std::string& what) {
    if (count == 0) return;
    out.count += count;
    out.what += (out.what.empty() ? "" : ", ") + what;
  };
  for (const Pattern* pattern : moving->patterns) {
    PRISM_CO_TRY(auto left, co_await const_cast<Pattern*>(pattern)->unfinished(context));
    add(left.count, left.what);
  }
  if (!moving->topics && !moving->groups) co_return out;
  PRISM_CO_TRY(const auto topics, co_await ns.topics_->known(context));
  for (const auto& topic : topics) {
    if (!publishes_to(ns.spec_.backend, ns.fixed_topic_, topic)) continue;  // left behind by an earlier change
    const bool leaves = moving->topics && !moving->topics_served.contains(topic);
    if (!leaves && !moving->groups) continue;
    std::vector<std::string> groups = ns.spec_.consumer_groups;
    if (groups.empty()) {
      auto existing = co_await ns.log_->groups(context, topic);
      if (!existing && existing.error().reason == "TOPIC_NOT_FOUND") continue;  // noted, and never made
      if (!existing) co_return std::unexpected(std::move(existing).error());
      groups = std::move(*existing);
    }
    const bool nobody = groups.empty();
    if (nobody && leaves) groups.emplace_back();
    for (const auto& group : groups) {
      if (!leaves && std::ranges::find(*moving->groups, group) != moving->groups->end()) continue;
      PRISM_CO_TRY(const auto floors, co_await ns.log_->floors(context, topic, group));
      std::uint64_t count = 0;
      for (const auto& floor : floors) count += floor.end - std::max(floor.begin, nobody ? 0 : floor.acked_below);
      out.of_topics += count;
      add(count, counted(count, "message") + " in topic " + topic +
                     (nobody ? " that nobody has consumed" : " that group " + group + " has not acknowledged"));
    }
  }
  co_return out;
}

Task<Result<std::vector<Unfinished>>> Registry::in_the_way(Context context, FileSpec file) {
  NamespaceMap leaving;
  {
    const std::shared_lock lock(mutex_);
    leaving = namespaces_;
  }
  PRISM_CO_CHECK(may_change_waiting(file, {}));
  const auto configured = file.connections();
  const Connecting connecting(*this, configured);
  for (const auto& spec : file.namespaces) {
    const auto it = leaving.find(spec.name);
    if (it != leaving.end() && it->second.own->meaning_ == options_of(spec, components_) &&
        std::ranges::all_of(it->second.own->uses_, [&](const auto& use) { return connecting.keeps(use.first); })) {
      leaving.erase(it);
      continue;
    }
    if (asks_for_partitions(spec, it != leaving.end() ? &it->second.own->spec_ : nullptr))
      PRISM_CO_CHECK(co_await check_partitions(context, &spec, &connecting));
  }
  std::vector<Unfinished> out;
  for (const auto& each : moving(leaving, file, [&](const std::string& name) { return connecting.keeps(name); })) {
    PRISM_CO_TRY(auto left, co_await unfinished(context, &each));
    if (left.count > 0) out.push_back(std::move(left));
  }
  co_return out;
}

// Of a namespace whose log and state store stay: has it topics with other partitions than the file asks for?
Task<Result<void>> Registry::check_partitions(Context context, const NamespaceSpec* spec,
                                              const Connecting* connecting) const {
  const auto plan = make_plan(*spec, components_);
  if (!plan || !connecting->keeps(plan->log_backend) || !connecting->keeps(plan->state_backend)) co_return {};
  const auto log = backends_->find(plan->log_backend)->backend->event_log();
  const auto state = backends_->find(plan->state_backend)->backend->key_value();
  if (log == nullptr || state == nullptr) co_return {};
  NamespaceTopics topics(spec->name, 0, 0, log, state, nullptr);
  PRISM_CO_TRY(auto known, co_await topics.known(context));
  const std::uint32_t wanted = *spec->backend.partitions;
  PRISM_CO_TRY(const auto unlike,
               co_await NamespaceTopics::unlike(context.with_timeout(kTopicPatience), log,
                                                topics_of(std::move(known), *spec, plan->fixed_topic), wanted));
  if (unlike.empty()) co_return {};
  co_return partitions_refused(spec->name, partitions_notice(unlike.begin()->first, unlike.begin()->second, wanted));
}

// Waits until the publishes under way have ended and nothing is unfinished, as long as that makes progress. What is
// left after it.
Task<Result<std::vector<Unfinished>>> Registry::wait_until_done(Context context, const std::vector<Moving>* moving) {
  // At the start nobody publishes meanwhile; the jobs of a process that was killed begin when its leases have ended.
  const auto end = Clock::now() + (serving_ ? options_.handover : kStartPatience);
  const auto standstill = serving_ ? kStandstill : options_.lease_ttl * 3 / 2 + kStandstill;
  auto progress = Clock::now();
  std::uint64_t least = UINT64_MAX;
  while (true) {
    std::vector<Unfinished> left;
    std::uint64_t count = 0;
    bool for_good = false;  // nobody will do it, however long this waits
    for (const auto& each : *moving) {
      Unfinished one;
      if (!each.old.publish_gone->load(std::memory_order_acquire)) {
        one = {.name = each.old.own->name(), .count = 1, .what = "publishes under way"};
      } else {
        PRISM_CO_TRY(one, co_await unfinished(context, &each));
        for_good = for_good || (!serving_ && one.of_topics > 0);
      }
      count += one.count;
      if (one.count > 0) left.push_back(std::move(one));
    }
    const auto now = Clock::now();
    if (count < least) {
      least = count;
      progress = now;
    }
    if (left.empty() || for_good || now >= end || now - progress > standstill) co_return left;
    if (context.stopped()) co_return std::unexpected(context.over(false));
    co_await sleep_for(loop_, context, kLook);
  }
}

void Registry::swap(Next& next) {
  for (auto& ns : next.built) next.namespaces.emplace(ns->name(), serve(ns));
  NamespaceMap old;
  std::vector<std::shared_ptr<Namespace>> end;  // their subscriptions are to be opened again
  {
    const std::unique_lock lock(mutex_);
    // Before the namespaces, so that what a new one refers to is found.
    backends_->replace(next.connecting->take());
    old = std::exchange(namespaces_, next.namespaces);
    const auto family = metrics_.gauge(
        "prism_namespace_ready", "1 while a namespace takes requests, 0 while it waits for a backend.", {"namespace"});
    waiting_ = std::exchange(next.waiting, {});
    std::erase_if(
        ready_, [&](const auto& each) { return !namespaces_.contains(each.first) && !waiting_.contains(each.first); });
    const auto show = [&](const std::string& name, bool is_ready) {
      auto& gauge = ready_[name];
      if (gauge == nullptr) gauge = family.held({name});
      gauge->set(is_ready ? 1 : 0);
    };
    for (const auto& [name, served] : namespaces_) show(name, true);
    for (const auto& [name, waits] : waiting_) show(name, false);
    std::erase_if(retired_, [](const auto& ns) { return ns.expired(); });
    for (const auto& served : next.leaving) retired_.push_back(served.own);
    for (const auto& weak : retired_) {
      auto ns = weak.lock();
      if (ns == nullptr) continue;
      // A subscription goes on where its topic, its group and its connection are what they would be if it were opened
      // now.
      const auto it = namespaces_.find(ns->name());
      const Namespace* now = it != namespaces_.end() ? it->second.own.get() : nullptr;
      const bool goes_on =
          now != nullptr && now->log_backend_ == ns->log_backend_ && now->fixed_topic_ == ns->fixed_topic_ &&
          now->spec_.backend.topic == ns->spec_.backend.topic &&
          now->spec_.backend.topic_prefix == ns->spec_.backend.topic_prefix &&
          now->spec_.consumer_groups == ns->spec_.consumer_groups && now->api() == ns->api() &&
          now->spec_.client_api == ns->spec_.client_api &&
          now->spec_.observability.trace_patterns == ns->spec_.observability.trace_patterns &&
          now->spec_.observability.pattern_metrics == ns->spec_.observability.pattern_metrics &&
          std::ranges::all_of(ns->uses_, [&](const auto& use) { return backends_->find(use.first) == use.second; });
      if (!goes_on) end.push_back(std::move(ns));
    }
  }
  for (const auto& ns : end) ns->replaced_.request_stop();
}

Task<Result<Registry::Replacement>> Registry::replace(Context context, FileSpec file, ReplaceOptions options) {
  co_await resume_on(loop_);
  while (replacing_.exchange(true)) {  // by the opening of what has waited
    if (context.stopped()) co_return std::unexpected(context.over(false));
    co_await sleep_for(loop_, context, kLook);
  }
  FileSpec next = file;
  Result<Replacement> done;
  if (auto may = may_change_waiting(file, options.abandon); !may) {
    done = std::unexpected(std::move(may).error());
  } else {
    done = co_await replace_now(std::move(context), std::move(file), std::move(options));
  }
  if (done) file_ = std::move(next);
  replacing_ = false;
  show_health();
  co_return done;
}

Task<Result<Registry::Replacement>> Registry::replace_now(Context context, FileSpec file, ReplaceOptions options) {
  co_await resume_on(loop_);
  Next next;
  Replacement done;
  std::vector<std::shared_ptr<Gate>> gates;  // as next.moving
  auto outcome = co_await build(context, std::move(file), &next);
  if (outcome) {
    for (const auto& each : next.moving) {
      if (!options.abandon.contains(each.old.own->name())) continue;
      auto left = co_await unfinished(context, &each);  // as far as can be told
      if (left && left->count > 0) done.abandoned.push_back(std::move(*left));
    }
    std::erase_if(next.moving, [&](const Moving& each) { return options.abandon.contains(each.old.own->name()); });
    // From here on publishes to what moves wait.
    for (auto& each : next.moving) {
      gates.push_back(std::make_shared<Gate>(loop_));
      auto waiting = std::make_shared<Namespace>();
      waiting->spec_ = each.old.own->spec_;
      waiting->fixed_topic_ = each.old.own->fixed_topic_;
      waiting->waits_ = each.renames;
      waiting->ports_ = {.publish = std::make_unique<WaitingPublisher>(gates.back(), each.renames),
                         .subscribe = std::make_unique<WaitingSubscriber>(each.old.other)};
      each.old.publish.reset();
      for (auto& leaving : next.leaving) {
        if (leaving.own == each.old.own) leaving.publish.reset();
      }
      std::shared_ptr<Namespace> before;
      const std::unique_lock lock(mutex_);
      before = std::exchange(namespaces_.at(waiting->name()).publish, std::move(waiting));
    }
    if (!next.moving.empty()) {
      auto left = co_await wait_until_done(context, &next.moving);
      if (!left) {
        outcome = std::unexpected(std::move(left).error());
      } else if (!left->empty()) {
        std::string all, names;
        for (const auto& one : *left) {
          all += (all.empty() ? "" : "; ") + ("namespace \"" + one.name + "\" has " + one.what);
          names += (names.empty() ? "--abandon " : " --abandon ") + one.name;
        }
        outcome = fail(Error{Code::failed_precondition,
                             "NAMESPACE_HAS_WORK",
                             std::string(serving_ ? "the change would leave work behind: "
                                                  : "the file was changed while the server was stopped, and would "
                                                    "leave work behind: ") +
                                 all,
                             "let it be done first (stop those who publish, let every group consume) and try again; to "
                             "give it up: prism apply " +
                                 names,
                             Retry::never,
                             {},
                             {{"namespace", left->front().name}, {"abandon", names}}});
      }
    }
    if (outcome && context.stopped()) outcome = std::unexpected(context.over(false));
    if (outcome && options.commit) outcome = co_await offload(runtime_.files(), loop_, options.commit);
  }
  if (!outcome) {
    for (std::size_t i = 0; i < gates.size(); ++i) {
      Served again = serve(next.moving[i].old.own);
      gates[i]->open(again.publish);
      std::shared_ptr<Namespace> before;
      const std::unique_lock lock(mutex_);
      Served& present = namespaces_.at(again.own->name());
      before = std::exchange(present.publish, again.publish);
      present.publish_gone = again.publish_gone;
    }
    next.built.clear();
    if (next.connecting != nullptr) next.connecting->give_up();
    next.namespaces.clear();
    next.leaving.clear();
    next.moving.clear();
    co_await backends_->close_unused(Context().with_timeout(kClosePatience));
    co_return std::unexpected(std::move(outcome).error());
  }

  swap(next);
  for (std::size_t i = 0; i < gates.size(); ++i) {
    const std::string& name = next.moving[i].old.own->name();
    const auto it = next.namespaces.find(name);
    if (it != next.namespaces.end()) {
      gates[i]->open(it->second.publish);
    } else {
      gates[i]->open(std::unexpected(resolve(name, {}).error()));
    }
  }
  next.moving.clear();
  std::vector<Task<bool>> ends;
  for (const auto& old : next.leaving) ends.push_back(end_jobs(context.shielded(kJobPatience), old.own));
  co_await when_all(std::move(ends));
  for (const auto& ns : next.built) {
    begin_jobs(*ns);
    done.built.push_back(ns->name());
  }
  for (auto& old : next.leaving) {
    if (find(old.own->name()) == nullptr) done.removed.push_back(old.own->name());
    scope_.spawn(retire(std::move(old)));
  }
  co_return done;
}

Task<bool> Registry::end_jobs(Context context, std::shared_ptr<Namespace> ns) {
  co_await ns->jobs_->close(std::move(context));
  co_return true;
}

void Registry::begin_jobs(Namespace& ns) {
  const auto paused = [&] {
    const std::shared_lock lock(mutex_);
    return paused_;
  }();
  for (auto& job : ns.jobs_to_start_) {
    const bool stays = paused.contains(job->info().name);
    ns.jobs_->add(std::move(job), stays);
  }
  ns.jobs_to_start_.clear();
}

// Lets an assembly go when its last user has gone.
Task<void> Registry::retire(Served old) {
  co_await resume_on(loop_);
  const Context context = Context::background(scope_.stop_token());
  old.publish.reset();
  old.other.reset();
  while (!context.stopped()) {
    const auto seen = released_->version();
    if (old.publish_gone->load(std::memory_order_acquire) && old.other_gone->load(std::memory_order_acquire)) break;
    co_await released_->wait(context, seen, std::chrono::hours(1));
  }
  old.own.reset();
  co_await backends_->close_unused(Context().with_timeout(kClosePatience));
}

std::size_t Registry::retired() const {
  const std::shared_lock lock(mutex_);
  return static_cast<std::size_t>(std::ranges::count_if(retired_, [](const auto& ns) { return !ns.expired(); }));
}

// --- looking up ---

Result<Target> Registry::resolve(std::string_view bound, std::string_view name, Use use) const {
  const std::shared_lock lock(mutex_);
  PRISM_TRY(Target target, find_target(bound, name, use));
  // What the log would refuse later must not be accepted now, by an outbox before it.
  PRISM_CHECK(check_topic_name(target.topic));
  return target;
}

Result<Target> Registry::find_target(std::string_view bound, std::string_view name, Use use) const {
  const auto missing = [&](std::string_view asked) {
    const std::string what = shown(asked);
    std::string known;
    for (const auto& [ns, unused] : namespaces_) known += (known.empty() ? "" : ", ") + ns;
    for (const auto& [ns, unused] : waiting_) known += (known.empty() ? "" : ", ") + ns;
    return fail(Error{Code::not_found,
                      "NAMESPACE_NOT_FOUND",
                      "there is no namespace \"" + what + "\"",
                      known.empty() ? "the configuration has no namespaces" : "the namespaces are: " + known,
                      Retry::never,
                      {},
                      {{"namespace", what}}});
  };
  const auto target = [&](const Served& served, std::string_view topic) {
    const auto& ns = use == Use::publish ? served.publish : served.other;
    return Target{ns, ns->physical_topic(topic)};
  };
  const auto not_ready = [](const Waiting& waits) {
    const auto backend = waits.error.metadata.find("backend");
    Error error{Code::unavailable,
                "NAMESPACE_NOT_READY",
                "namespace \"" + waits.spec.name + "\" is not open yet: " + waits.error.message,
                "it opens by itself when the backend answers",
                Retry::safe,
                std::chrono::seconds(1),
                {{"namespace", waits.spec.name}, {"cause", waits.error.reason}}};
    if (backend != waits.error.metadata.end()) error.metadata.insert(*backend);
    return fail(std::move(error));
  };
  if (!bound.empty()) {
    const auto it = namespaces_.find(bound);
    if (const auto waits = waiting_.find(bound); waits != waiting_.end()) return not_ready(waits->second);
    if (it == namespaces_.end()) return missing(bound);
    return target(it->second, name == bound ? std::string_view() : name);
  }
  if (name.empty()) {
    return fail(Code::invalid_argument, "NAMESPACE_MISSING", "the request names neither a namespace nor a topic",
                "set the request header prism-namespace, open a session, or name the namespace as the topic");
  }
  if (const auto it = namespaces_.find(name); it != namespaces_.end()) return target(it->second, {});
  if (const auto waits = waiting_.find(name); waits != waiting_.end()) return not_ready(waits->second);
  // A topic that exactly one namespace serves under this name.
  const Served* serving = nullptr;
  std::string names;
  std::size_t count = 0;
  for (const auto& [ns, served] : namespaces_) {
    if (!served.own->serves(name)) continue;
    serving = &served;
    ++count;
    names += (names.empty() ? "" : ", ") + ns;
  }
  for (const auto& [ns, waits] : waiting_) {
    if (count == 0 && waits.spec.backend.topic == name) return not_ready(waits);
  }
  if (count == 1) return target(*serving, name);
  if (count == 0) return missing(name);
  return fail(Code::invalid_argument, "TOPIC_AMBIGUOUS",
              "topic \"" + shown(name) + "\" is served by several namespaces: " + names,
              "bind the client to one of them (request header prism-namespace)");
}

std::shared_ptr<Namespace> Registry::find(std::string_view name) const {
  const std::shared_lock lock(mutex_);
  const auto it = namespaces_.find(name);
  return it != namespaces_.end() ? it->second.other : nullptr;
}

std::vector<std::shared_ptr<Namespace>> Registry::all() const {
  const std::shared_lock lock(mutex_);
  std::vector<std::shared_ptr<Namespace>> out;
  for (const auto& [name, served] : namespaces_) out.push_back(served.other);
  return out;
}

std::vector<JobStatus> Registry::jobs() const {
  std::vector<JobStatus> out;
  for (const auto& ns : all()) {
    for (auto& status : ns->jobs_->status()) out.push_back(std::move(status));
  }
  return out;
}

Result<void> Registry::set_paused(std::string_view name, bool paused) {
  const std::unique_lock lock(mutex_);
  Result<void> done =
      fail(Code::not_found, "JOB_NOT_FOUND", "there is no job named " + shown(name), "list the jobs first");
  for (const auto& [ns, served] : namespaces_) {
    if (auto found = paused ? served.own->jobs_->pause(name) : served.own->jobs_->resume(name)) done = found;
  }
  if (!done) return done;
  // It stays so in later assemblies.
  if (paused) {
    paused_.emplace(name);
  } else {
    std::erase_if(paused_, [&](const auto& job) { return job == name; });
  }
  return done;
}

Result<void> Registry::pause_job(std::string_view name) { return set_paused(name, true); }
Result<void> Registry::resume_job(std::string_view name) { return set_paused(name, false); }

std::vector<std::pair<std::string, std::shared_ptr<ObjectStore>>> Registry::object_stores(
    std::string_view backend) const {
  std::vector<std::pair<std::string, std::shared_ptr<ObjectStore>>> out;
  const auto found = backends_->find(backend);
  if (found == nullptr) return out;
  for (const auto& ns : all()) {
    for (const auto& places : ns->places_) {
      for (const auto& place : places) {
        if (place.kind != Holding::Kind::objects || place.backend != backend) continue;
        const std::string bucket = place.name.substr(0, place.name.find('/'));
        if (std::ranges::any_of(out, [&](const auto& o) { return o.first == bucket; })) continue;
        if (auto store = found->backend->objects(bucket)) out.emplace_back(bucket, std::move(*store));
      }
    }
  }
  return out;
}

Task<Result<bool>> Registry::settled(Context context) const {
  for (const auto& ns : all()) {
    PRISM_CO_TRY(const bool done, co_await ns->settled(context));
    if (!done) co_return false;
  }
  co_return true;
}

std::vector<std::string> Registry::bindings() const {
  std::vector<std::shared_ptr<OpenBackend>> open;
  for (const auto& [name, backend] : backends_->present()) open.push_back(backend);
  std::ranges::sort(open, {}, &OpenBackend::number);
  std::vector<std::string> out;
  for (const auto& each : open) out.push_back(each->name + " -> " + each->backend->describe());
  return out;
}

}  // namespace prism
