#include "namespaces/registry.h"

#include <algorithm>
#include <filesystem>
#include <mutex>
#include <ranges>
#include <shared_mutex>

#include "base/text.h"
#include "patterns/log_ports.h"
#include "telemetry/log.h"

namespace prism {
namespace {

constexpr std::string_view kStateBackend = "prism";  // the name of the default state store: <data_dir>/prism.db

std::string overlap_text(const std::string& backend, const std::string& bucket, const std::string& prefix) {
  return backend + "://" + bucket + "/" + prefix;
}

// Topics are noted in the state store before they are made, so that jobs of any process find them.
class NamespaceTopics final : public Topics {
 public:
  NamespaceTopics(std::string namespace_name, std::uint32_t partitions, std::shared_ptr<EventLog> log,
                  std::shared_ptr<KeyValueStore> state)
      : prefix_("topics/" + namespace_name + "/"),
        partitions_(partitions),
        log_(std::move(log)),
        state_(std::move(state)) {}

  Task<Result<TopicInfo>> ensure(Context context, std::string topic) override {
    {
      const std::shared_lock lock(mutex_);
      if (const auto it = known_.find(topic); it != known_.end()) co_return it->second;
    }
    Batch<Mutation> note;
    note.push_back({.key = prefix_ + topic, .value = Bytes(), .expect = {}, .expect_absent = false, .ttl = {}});
    auto noted = co_await state_->apply(context, std::move(note));
    if (!noted.front()) co_return std::unexpected(std::move(noted.front()).error());
    PRISM_CO_TRY(auto info, co_await log_->ensure_topic(context, TopicSpec{.name = topic, .partitions = partitions_}));
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

 private:
  std::string prefix_;
  std::uint32_t partitions_;
  std::shared_ptr<EventLog> log_;
  std::shared_ptr<KeyValueStore> state_;
  std::shared_mutex mutex_;
  std::map<std::string, TopicInfo> known_;  // guarded by mutex_
};

}  // namespace

// What the namespaces of a file share: connected backends, the state store, reservations.
struct Registry::Backends {
  Backends(const Components& c, Runtime& r, Options o) : components(c), runtime(r), options(std::move(o)) {}

  const Components& components;
  Runtime& runtime;
  Options options;
  std::vector<BackendSpec> configured;

  mutable std::shared_mutex mutex;
  std::map<std::string, std::unique_ptr<Backend>, std::less<>> open;  // guarded by mutex; grows only
  std::vector<std::string> order;                                     // in which they were opened; assembly only

  struct Reservation {
    std::string backend, bucket, prefix, owner;
  };
  std::vector<Reservation> reservations;                              // assembly only
  std::map<std::pair<std::string, std::string>, std::string> tables;  // backend and table -> owner; assembly only

  Backend* find(std::string_view name) const {
    const std::shared_lock lock(mutex);
    const auto it = open.find(name);
    return it != open.end() ? it->second.get() : nullptr;
  }

  Task<Result<Backend*>> get(Context context, std::string name) {
    if (Backend* present = find(name)) co_return present;
    const auto spec =
        std::find_if(configured.begin(), configured.end(), [&](const BackendSpec& b) { return b.name == name; });
    const BackendType* type = components.backend(spec != configured.end() ? spec->type : name);
    if (type == nullptr) {
      co_return fail(Code::invalid_argument, "BACKEND_NOT_CONFIGURED", "there is no backend named \"" + name + "\"",
                     "add it under `backends:` with its `type`");
    }
    Result<std::unique_ptr<Backend>> made;
    if (options.embedded && type->embed) {
      made = co_await type->embed(context, runtime, name, options.data_dir);
    } else if (spec == configured.end()) {
      co_return fail(Code::failed_precondition, "BACKEND_NOT_CONFIGURED",
                     "backend \"" + name + "\" is used and not configured",
                     "give its connection under `backends:`, or run with `prism dev` or `prism serve --embedded`");
    } else if (!type->connect) {
      co_return fail(Code::unimplemented, "BACKEND_NOT_AVAILABLE",
                     "this version of Prism has no connector for " + std::string(type->name),
                     "run with `prism dev` or `prism serve --embedded`, which bind it to its embedded twin");
    } else {
      made = co_await type->connect(context, runtime, name, spec->options);
    }
    if (!made) co_return std::unexpected(std::move(made).error().with("backend", name));
    Backend* backend = made->get();
    const std::unique_lock lock(mutex);
    open.emplace(name, std::move(*made));
    order.push_back(name);
    co_return backend;
  }

  static std::unexpected<Error> lacks(const std::string& name, const Backend& backend, std::string_view capability) {
    return fail(Code::failed_precondition, "BACKEND_LACKS_CAPABILITY",
                "backend \"" + name + "\", " + backend.describe() + ", is no " + std::string(capability));
  }
};

class NamespaceAssembly final : public Assembly {
 public:
  NamespaceAssembly(Registry::Backends& backends, JobKeeper& jobs, Metrics& metrics, const NamespaceSpec& spec,
                    std::shared_ptr<KeyValueStore> state)
      : backends_(backends),
        jobs_(jobs),
        metrics_(metrics),
        spec_(spec),
        state_(std::move(state)),
        pending_(std::make_shared<PendingReferences>()) {}

  Task<Result<void>> open_log(Context context, std::string backend) {
    PRISM_CO_TRY(Backend * found, co_await backends_.get(context, backend));
    log_ = found->event_log();
    if (log_ == nullptr) co_return Registry::Backends::lacks(backend, *found, "event log");
    topics_ = std::make_shared<NamespaceTopics>(spec_.name, spec_.backend.partitions.value_or(0), log_, state_);
    co_return {};
  }
  // Jobs start when the whole file is assembled.
  void start() {
    for (auto& job : pending_jobs_) jobs_.add(std::move(job));
    pending_jobs_.clear();
  }

  Runtime& runtime() override { return backends_.runtime; }
  Metrics& metrics() override { return metrics_; }
  const std::string& namespace_name() const override { return spec_.name; }
  Task<Result<std::shared_ptr<ObjectStore>>> object_store(Context context, std::string backend,
                                                          std::string bucket) override {
    PRISM_CO_TRY(Backend * found, co_await backends_.get(context, backend));
    auto store = found->objects(bucket);
    if (!store && store.error().reason == "BACKEND_LACKS_CAPABILITY")
      co_return Registry::Backends::lacks(backend, *found, "object store");
    co_return store;
  }
  Task<Result<std::shared_ptr<SqlDatabase>>> sql_database(Context context, std::string backend) override {
    PRISM_CO_TRY(Backend * found, co_await backends_.get(context, backend));
    auto database = found->sql();
    if (database == nullptr) co_return Registry::Backends::lacks(backend, *found, "SQL database");
    co_return database;
  }
  FindObjectStore object_stores() override {
    return [backends = &backends_](const std::string& name,
                                   const std::string& bucket) -> Result<std::shared_ptr<ObjectStore>> {
      Backend* const found = backends->find(name);
      if (found == nullptr) {
        return fail(Code::failed_precondition, "BACKEND_NOT_CONFIGURED",
                    "the payload is in backend \"" + name + "\", which no namespace of the present configuration uses",
                    "configure the backend again until these messages are consumed");
      }
      return found->objects(bucket);
    };
  }
  std::shared_ptr<EventLog> log() override { return log_; }
  std::size_t max_inline_bytes() const override { return max_payload_bytes(log_->features()); }
  std::shared_ptr<KeyValueStore> state() override { return state_; }
  std::shared_ptr<Topics> topics() override { return topics_; }
  Result<void> reserve_objects(const std::string& backend, const std::string& bucket,
                               const std::string& prefix) override {
    for (const auto& r : backends_.reservations) {
      if (r.backend != backend || r.bucket != bucket ||
          (!r.prefix.starts_with(prefix) && !prefix.starts_with(r.prefix)))
        continue;
      return fail(Code::invalid_argument, "OBJECT_PREFIX_SHARED",
                  "namespaces \"" + r.owner + "\" and \"" + spec_.name + "\" both keep payloads below " +
                      overlap_text(backend, bucket, prefix) + ": the clean-up of one would delete the other's",
                  "give each its own bucket or prefix");
    }
    backends_.reservations.push_back({backend, bucket, prefix, spec_.name});
    return {};
  }
  Result<void> reserve_table(const std::string& backend, const std::string& table) override {
    const auto [it, added] = backends_.tables.try_emplace({backend, table}, spec_.name);
    if (added) return {};
    return fail(Code::invalid_argument, "TABLE_SHARED",
                "namespaces \"" + it->second + "\" and \"" + spec_.name + "\" both use table \"" + table + "\" of " +
                    backend + ": each would publish the other's rows",
                "give each its own with `table:`");
  }
  const std::vector<std::string>& consumer_groups() const override { return spec_.consumer_groups; }
  void add(std::shared_ptr<Job> job) override { pending_jobs_.push_back(std::move(job)); }
  std::shared_ptr<PendingReferences> pending_references() override { return pending_; }

 private:
  Registry::Backends& backends_;
  JobKeeper& jobs_;
  Metrics& metrics_;
  const NamespaceSpec& spec_;
  std::shared_ptr<KeyValueStore> state_;
  std::shared_ptr<PendingReferences> pending_;
  std::shared_ptr<EventLog> log_;
  std::shared_ptr<Topics> topics_;
  std::vector<std::shared_ptr<Job>> pending_jobs_;
};

Namespace::~Namespace() = default;

std::string Namespace::physical_topic(std::string_view topic) const {
  for (const auto& pattern : patterns_) {
    if (auto fixed = pattern->fixed_topic(); !fixed.empty()) return fixed;
  }
  if (!spec_.backend.topic.empty()) return spec_.backend.topic;
  const std::string name(topic.empty() ? std::string_view(spec_.name) : topic);
  return spec_.backend.topic_prefix.empty() ? name : spec_.backend.topic_prefix + "." + name;
}

Task<Result<bool>> Namespace::settled(Context context) const {
  // Work flows inwards: from the outbox to the log, and from there to the clean-up of the claim check.
  for (const auto& pattern : std::views::reverse(patterns_)) {
    PRISM_CO_TRY(const bool done, co_await pattern->settled(context));
    if (!done) co_return false;
  }
  co_return true;
}

Registry::Registry() = default;
Registry::~Registry() = default;

Task<Result<std::unique_ptr<Registry>>> Registry::open(Context context, FileSpec file, const Components& components,
                                                       Runtime& runtime, Metrics& metrics, Options options) {
  std::unique_ptr<Registry> registry(new Registry());
  auto opened = co_await registry->build(context, std::move(file), components, runtime, metrics, std::move(options));
  if (!opened) {
    co_await registry->close(context);
    co_return std::unexpected(std::move(opened).error());
  }
  co_return registry;
}

Task<Result<void>> Registry::build(Context context, FileSpec file, const Components& components, Runtime& runtime,
                                   Metrics& metrics, Options options) {
  const std::string holder = options.holder;
  const Clock::duration lease_ttl = options.lease_ttl;
  backends_ = std::make_unique<Backends>(components, runtime, std::move(options));
  backends_->configured = std::move(file.backends);

  // The default state store is an embedded file of Prism's own.
  const BackendType* state_type = components.backend("sqlite");
  if (state_type == nullptr)
    co_return fail(Code::internal, "STATE_STORE_MISSING", "this program was built without the sqlite backend");
  PRISM_CO_TRY(auto state_backend,
               co_await state_type->embed(context, runtime, std::string(kStateBackend), backends_->options.data_dir));
  Backend& state_owner = *state_backend;
  backends_->open.emplace(kStateBackend, std::move(state_backend));
  backends_->order.emplace_back(kStateBackend);
  jobs_ = std::make_unique<JobKeeper>(runtime.next_loop(), state_owner.lease(),
                                      JobKeeper::Options{.lease_ttl = lease_ttl, .holder = holder});

  std::vector<std::unique_ptr<NamespaceAssembly>> assemblies;
  for (auto& spec : file.namespaces) {
    auto ns = std::make_shared<Namespace>();
    ns->spec_ = std::move(spec);
    std::shared_ptr<KeyValueStore> state = state_owner.key_value();
    if (!ns->spec_.state.empty()) {
      PRISM_CO_TRY(Backend * backend, co_await backends_->get(context, ns->spec_.state));
      state = backend->key_value();
      if (state == nullptr) co_return Backends::lacks(ns->spec_.state, *backend, "key-value store");
    }
    auto assembly = std::make_unique<NamespaceAssembly>(*backends_, *jobs_, metrics, ns->spec_, std::move(state));
    auto built = co_await assemble(context, *ns, *assembly, components);
    if (!built) co_return std::unexpected(std::move(built).error().with("namespace", ns->name()));
    assemblies.push_back(std::move(assembly));
    namespaces_.emplace(ns->name(), std::move(ns));
  }
  for (auto& assembly : assemblies) assembly->start();
  co_return {};
}

// Awaited at once by build, which owns what it is given.
// NOLINTBEGIN(cppcoreguidelines-avoid-reference-coroutine-parameters)
Task<Result<void>> Registry::assemble(Context context, Namespace& ns, NamespaceAssembly& assembly,
                                      const Components& components) {
  for (const auto& entry : ns.spec_.patterns) {
    if (!entry.enabled) continue;
    const PatternType* type = components.pattern(entry.type);
    if (type == nullptr || !type->make) {
      co_return fail(Code::unimplemented, "PATTERN_NOT_AVAILABLE",
                     "pattern " + entry.type + " is not available in this version of Prism");
    }
    ns.patterns_.push_back(type->make(entry.options));
  }
  // Canonical order, outermost first (docs/architecture.md): the order in the file leaves no doubt of what is meant.
  std::stable_sort(ns.patterns_.begin(), ns.patterns_.end(),
                   [](const auto& a, const auto& b) { return a->info().rank < b->info().rank; });

  std::string log_backend = ns.spec_.backend.name;
  for (const auto& pattern : ns.patterns_) {
    if (auto named = pattern->log_backend(); !named.empty()) log_backend = named;
  }
  if (log_backend.empty()) {
    co_return fail(Code::invalid_argument, "BACKEND_MISSING",
                   "namespace \"" + ns.name() + "\" names no backend for its messages",
                   "add `backend: kafka`, or a destination to the outbox's publisher");
  }
  PRISM_CO_CHECK(co_await assembly.open_log(context, log_backend));
  ns.max_inline_bytes_ = assembly.max_inline_bytes();
  ns.log_ = assembly.log();
  ns.topics_ = assembly.topics();

  Ports ports{.publish = make_log_publisher(assembly.log(), assembly.topics()),
              .subscribe = make_log_subscriber(assembly.log(), assembly.topics(), assembly.consumer_groups())};
  for (const auto& type : components.patterns) {
    if (type.decode) ports.subscribe = type.decode(std::move(ports.subscribe), assembly);
  }
  ns.chain_.insert(ns.chain_.begin(), log_backend);
  for (auto it = ns.patterns_.rbegin(); it != ns.patterns_.rend(); ++it) {
    auto wrapped = co_await (*it)->wrap(context, std::move(ports), assembly);
    if (!wrapped)
      co_return std::unexpected(std::move(wrapped).error().with("pattern", std::string((*it)->info().name)));
    ports = std::move(*wrapped);
    ns.chain_.insert(ns.chain_.begin(), std::string((*it)->info().name));
  }
  ns.ports_ = std::move(ports);
  co_return {};
}
// NOLINTEND(cppcoreguidelines-avoid-reference-coroutine-parameters)

Result<Target> Registry::resolve(std::string_view bound, std::string_view name) const {
  PRISM_TRY(Target target, find_target(bound, name));
  // What the log would refuse later must not be accepted now, by an outbox before it.
  PRISM_CHECK(check_topic_name(target.topic));
  return target;
}

Result<Target> Registry::find_target(std::string_view bound, std::string_view name) const {
  const auto missing = [&](std::string_view asked) {
    const std::string what = shown(asked);
    std::string known;
    for (const auto& [ns, unused] : namespaces_) known += (known.empty() ? "" : ", ") + ns;
    return fail(Error{Code::not_found,
                      "NAMESPACE_NOT_FOUND",
                      "there is no namespace \"" + what + "\"",
                      known.empty() ? "the configuration has no namespaces" : "the namespaces are: " + known,
                      Retry::never,
                      {},
                      {{"namespace", what}}});
  };
  if (!bound.empty()) {
    auto ns = find(bound);
    if (ns == nullptr) return missing(bound);
    return Target{ns, ns->physical_topic(name == bound ? std::string_view() : name)};
  }
  if (name.empty()) {
    return fail(Code::invalid_argument, "NAMESPACE_MISSING", "the request names neither a namespace nor a topic",
                "set the request header prism-namespace, open a session, or name the namespace as the topic");
  }
  if (auto ns = find(name)) return Target{ns, ns->physical_topic({})};
  // A topic that exactly one namespace serves under this name.
  std::vector<std::shared_ptr<Namespace>> serving;
  for (const auto& [unused, ns] : namespaces_) {
    if (ns->serves(name)) serving.push_back(ns);
  }
  if (serving.size() == 1) return Target{serving.front(), serving.front()->physical_topic(name)};
  if (serving.empty()) return missing(name);
  std::string names;
  for (const auto& ns : serving) names += (names.empty() ? "" : ", ") + ns->name();
  return fail(Code::invalid_argument, "TOPIC_AMBIGUOUS",
              "topic \"" + shown(name) + "\" is served by several namespaces: " + names,
              "bind the client to one of them (request header prism-namespace)");
}

bool Namespace::serves(std::string_view topic) const {
  if (spec_.backend.topic == topic && !topic.empty()) return true;
  return std::any_of(patterns_.begin(), patterns_.end(),
                     [&](const auto& p) { return !topic.empty() && p->fixed_topic() == topic; });
}

std::shared_ptr<Namespace> Registry::find(std::string_view name) const {
  const auto it = namespaces_.find(name);
  return it != namespaces_.end() ? it->second : nullptr;
}

std::vector<std::shared_ptr<Namespace>> Registry::all() const {
  std::vector<std::shared_ptr<Namespace>> out;
  for (const auto& [name, ns] : namespaces_) out.push_back(ns);
  return out;
}

std::vector<std::pair<std::string, std::shared_ptr<ObjectStore>>> Registry::object_stores(
    std::string_view backend) const {
  std::vector<std::pair<std::string, std::shared_ptr<ObjectStore>>> out;
  for (const auto& r : backends_->reservations) {
    if (r.backend != backend) continue;
    if (std::any_of(out.begin(), out.end(), [&](const auto& o) { return o.first == r.bucket; })) continue;
    if (Backend* found = backends_->find(backend)) {
      if (auto store = found->objects(r.bucket)) out.emplace_back(r.bucket, std::move(*store));
    }
  }
  return out;
}

Task<Result<bool>> Registry::settled(Context context) const {
  for (const auto& [name, ns] : namespaces_) {
    PRISM_CO_TRY(const bool done, co_await ns->settled(context));
    if (!done) co_return false;
  }
  co_return true;
}

std::vector<std::string> Registry::bindings() const {
  std::vector<std::string> out;
  for (const auto& name : backends_->order) out.push_back(name + " -> " + backends_->find(name)->describe());
  return out;
}

Task<void> Registry::close(Context context) {
  if (jobs_ != nullptr) co_await jobs_->close(context);
  namespaces_.clear();
  jobs_.reset();
  if (backends_ == nullptr) co_return;
  // The last one opened may rest on an earlier one.
  for (auto it = backends_->order.rbegin(); it != backends_->order.rend(); ++it)
    co_await backends_->find(*it)->close(context);
  backends_->open.clear();
  backends_->order.clear();
}

}  // namespace prism
