#include "capabilities/measured.h"

#include <mutex>
#include <string_view>
#include <utility>

namespace prism {
namespace {

// One operation of one decorator. Its series are made when it is first called, so that only what is used is shown.
class Operation {
 public:
  enum class Kind : std::uint8_t {
    timed,
    waiting
  };  // waiting: its end is another's doing, and how long it took says nothing

  Operation(const BackendUser& user, std::string_view name, Kind kind = Kind::timed)
      : user_(user), name_(name), kind_(kind) {}

  class Call {
   public:
    Call(Operation& operation, const Context& context)
        : operation_(operation), of_request_(context.steps() != nullptr) {
      operation_.prepare(of_request_);
      operation_.count_->add();
      if (operation_.in_flight_ != nullptr) operation_.in_flight_->add(1);
    }
    ~Call() {
      if (operation_.in_flight_ == nullptr) return;
      const auto took = Clock::now() - begun_;
      operation_.in_flight_->add(-1);
      operation_.duration_->observe(took);
      if (of_request_ && operation_.of_step_ != nullptr) operation_.of_step_->observe(took);
    }
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;

    template <class T>
    void note(const Result<T>& result) {
      if (!result) operation_.fail(result.error());
    }
    template <class T>
    void note(const Batch<Result<T>>& results) {
      for (const auto& result : results) note(result);
    }
    void note(const Batch<Settled>& /*settled*/) {}  // counted by the namespace, whose deliveries they are

   private:
    Operation& operation_;
    const bool of_request_;
    const Clock::time_point begun_ = Clock::now();
  };

 private:
  void prepare(bool of_request) {
    if (of_request && kind_ == Kind::timed && !user_.step.empty()) std::call_once(step_once_, [this] { show_step(); });
    std::call_once(once_, [this] {
      Metrics& metrics = *user_.metrics;
      const LabelValues labels{user_.backend, name_};
      count_ = &metrics
                    .counter("prism_backend_operations_total", "Operations on a backend that have begun.",
                             {"backend", "operation"})
                    .with(labels);
      if (kind_ == Kind::waiting) return;
      duration_ = &metrics
                       .histogram("prism_backend_duration_seconds",
                                  "How long an operation on a backend took; storing an object includes waiting for the "
                                  "client that uploads it.",
                                  {"backend", "operation"})
                       .with(labels);
      in_flight_ = &metrics
                        .gauge("prism_backend_in_flight", "Operations on a backend that are under way.",
                               {"backend", "operation"})
                        .with(labels);
    });
  }
  void show_step() {
    of_step_ = user_.metrics
                   ->histogram("prism_pattern_backend_duration_seconds",
                               "How long requests waited for a backend's operations in the name of a pattern; pattern "
                               "\"log\" is the end of the chain.",
                               {"namespace", "pattern", "backend", "operation"}, {})
                   .held({user_.namespace_name, user_.step, user_.backend, name_});
  }
  void fail(const Error& error) {
    user_.metrics
        ->counter("prism_backend_errors_total",
                  "Operations on a backend that failed, of a batch each entry, by reason.",
                  {"backend", "operation", "reason"})
        .with({user_.backend, name_, error.reason})
        .add();
  }

  const BackendUser user_;
  const std::string name_;
  const Kind kind_;
  std::once_flag once_, step_once_;
  Counter* count_ = nullptr;
  Histogram* duration_ = nullptr;
  Gauge* in_flight_ = nullptr;
  std::shared_ptr<Histogram> of_step_;
};

// The decorator, which owns the operation, is kept by its callers until the operation has ended, as is the decorated
// one.
template <class T>
Task<T> timed(Operation* operation, Context context, Task<T> task) {
  Operation::Call call(*operation, context);
  T result = co_await std::move(task);
  call.note(result);
  co_return result;
}
Task<void> timed(Operation* operation, Context context, Task<void> task) {
  const Operation::Call call(*operation, context);
  co_await std::move(task);
}

constexpr auto kWaiting = Operation::Kind::waiting;

struct LogOperations {
  explicit LogOperations(const BackendUser& user)
      : ensure_topic(user, "log.ensure_topic"),
        topic(user, "log.topic"),
        topics(user, "log.topics"),
        append(user, "log.append"),
        read(user, "log.read"),
        next(user, "log.next", kWaiting),
        join(user, "log.join"),
        receive(user, "log.receive", kWaiting),
        settle(user, "log.settle"),
        groups(user, "log.groups"),
        floors(user, "log.floors"),
        seek(user, "log.seek"),
        end(user, "log.end") {}
  Operation ensure_topic, topic, topics, append, read, next, join, receive, settle, groups, floors, seek, end;
};

class MeasuredReader final : public LogReader {
 public:
  MeasuredReader(std::unique_ptr<LogReader> inner, std::shared_ptr<LogOperations> operations)
      : inner_(std::move(inner)), operations_(std::move(operations)) {}
  Task<Result<Batch<std::pair<Record, Position>>>> next(Context context, std::size_t max_bytes) override {
    return timed(&operations_->next, context, inner_->next(context, max_bytes));
  }
  Task<void> close(Context context) override { return inner_->close(std::move(context)); }

 private:
  std::unique_ptr<LogReader> inner_;
  std::shared_ptr<LogOperations> operations_;
};

class MeasuredConsumer final : public GroupConsumer {
 public:
  MeasuredConsumer(std::unique_ptr<GroupConsumer> inner, std::shared_ptr<LogOperations> operations)
      : inner_(std::move(inner)), operations_(std::move(operations)) {}
  Task<Result<Batch<Delivery>>> receive(Context context, std::size_t max, std::size_t max_bytes) override {
    return timed(&operations_->receive, context, inner_->receive(context, max, max_bytes));
  }
  Task<Batch<Settled>> settle(Context context, Batch<Settle> settles) override {
    return timed(&operations_->settle, context, inner_->settle(context, std::move(settles)));
  }
  Task<void> close(Context context) override { return inner_->close(std::move(context)); }

 private:
  std::unique_ptr<GroupConsumer> inner_;
  std::shared_ptr<LogOperations> operations_;
};

class MeasuredLog final : public EventLog {
 public:
  MeasuredLog(std::shared_ptr<EventLog> inner, const BackendUser& user)
      : inner_(std::move(inner)), operations_(std::make_shared<LogOperations>(user)) {}
  const LogFeatures& features() const noexcept override { return inner_->features(); }
  Task<Result<TopicInfo>> ensure_topic(Context context, TopicSpec spec) override {
    return timed(&operations_->ensure_topic, context, inner_->ensure_topic(context, std::move(spec)));
  }
  Task<Result<TopicInfo>> topic(Context context, std::string name) override {
    return timed(&operations_->topic, context, inner_->topic(context, std::move(name)));
  }
  Task<Result<std::vector<TopicInfo>>> topics(Context context) override {
    return timed(&operations_->topics, context, inner_->topics(context));
  }
  Task<Batch<Result<Appended>>> append(Context context, std::string topic, Batch<Record> records) override {
    return timed(&operations_->append, context, inner_->append(context, std::move(topic), std::move(records)));
  }
  Task<Result<std::unique_ptr<LogReader>>> read(Context context, std::string topic,
                                                std::optional<std::uint32_t> partition, Start start) override {
    PRISM_CO_TRY(auto reader, co_await timed(&operations_->read, context,
                                             inner_->read(context, std::move(topic), partition, std::move(start))));
    co_return std::make_unique<MeasuredReader>(std::move(reader), operations_);
  }
  Task<Result<std::unique_ptr<GroupConsumer>>> join(Context context, GroupSpec spec) override {
    PRISM_CO_TRY(auto consumer, co_await timed(&operations_->join, context, inner_->join(context, std::move(spec))));
    co_return std::make_unique<MeasuredConsumer>(std::move(consumer), operations_);
  }
  Task<Result<std::vector<std::string>>> groups(Context context, std::string topic) override {
    return timed(&operations_->groups, context, inner_->groups(context, std::move(topic)));
  }
  Task<Result<Batch<GroupFloor>>> floors(Context context, std::string topic, std::string group) override {
    return timed(&operations_->floors, context, inner_->floors(context, std::move(topic), std::move(group)));
  }
  Task<Result<void>> seek(Context context, std::string topic, std::string group, Start start) override {
    return timed(&operations_->seek, context,
                 inner_->seek(context, std::move(topic), std::move(group), std::move(start)));
  }
  Task<Result<Position>> end(Context context, std::string topic) override {
    return timed(&operations_->end, context, inner_->end(context, std::move(topic)));
  }
  Task<void> close(Context context) override { return inner_->close(std::move(context)); }

 private:
  std::shared_ptr<EventLog> inner_;
  std::shared_ptr<LogOperations> operations_;
};

class MeasuredKeyValueStore final : public KeyValueStore {
 public:
  MeasuredKeyValueStore(std::shared_ptr<KeyValueStore> inner, const BackendUser& user)
      : inner_(std::move(inner)), get_(user, "kv.get"), apply_(user, "kv.apply"), scan_(user, "kv.scan") {}
  const KeyValueFeatures& features() const noexcept override { return inner_->features(); }
  Task<Batch<Result<std::optional<Entry>>>> get(Context context, Batch<std::string> keys, Position min) override {
    return timed(&get_, context, inner_->get(context, std::move(keys), std::move(min)));
  }
  Task<Batch<Result<Written>>> apply(Context context, Batch<Mutation> mutations) override {
    return timed(&apply_, context, inner_->apply(context, std::move(mutations)));
  }
  Task<Result<KeyPage>> scan(Context context, std::string prefix, std::string after, std::size_t max_rows,
                             std::size_t max_bytes) override {
    return timed(&scan_, context, inner_->scan(context, std::move(prefix), std::move(after), max_rows, max_bytes));
  }
  Task<void> close(Context context) override { return inner_->close(std::move(context)); }

 private:
  std::shared_ptr<KeyValueStore> inner_;
  Operation get_, apply_, scan_;
};

class MeasuredObjectStore final : public ObjectStore {
 public:
  MeasuredObjectStore(std::shared_ptr<ObjectStore> inner, const BackendUser& user)
      : inner_(std::move(inner)),
        put_(user, "objects.put"),
        get_(user, "objects.get"),
        head_(user, "objects.head"),
        remove_(user, "objects.remove"),
        list_(user, "objects.list"),
        abort_uploads_(user, "objects.abort_uploads") {}
  const ObjectFeatures& features() const noexcept override { return inner_->features(); }
  Task<Result<ObjectInfo>> put(Context context, std::string key, Payload payload, PutOptions options) override {
    return timed(&put_, context, inner_->put(context, std::move(key), std::move(payload), std::move(options)));
  }
  Task<Result<std::pair<ObjectInfo, Payload>>> get(Context context, std::string key, std::uint64_t from,
                                                   std::optional<std::uint64_t> n) override {
    return timed(&get_, context, inner_->get(context, std::move(key), from, n));
  }
  Task<Result<ObjectInfo>> head(Context context, std::string key) override {
    return timed(&head_, context, inner_->head(context, std::move(key)));
  }
  Task<Batch<Result<void>>> remove(Context context, Batch<std::string> keys) override {
    return timed(&remove_, context, inner_->remove(context, std::move(keys)));
  }
  Task<Result<Batch<ObjectInfo>>> list(Context context, std::string prefix, std::string after,
                                       std::size_t max) override {
    return timed(&list_, context, inner_->list(context, std::move(prefix), std::move(after), max));
  }
  Task<Result<std::size_t>> abort_uploads(Context context, std::string prefix, WallTime older_than) override {
    return timed(&abort_uploads_, context, inner_->abort_uploads(context, std::move(prefix), older_than));
  }
  Task<void> close(Context context) override { return inner_->close(std::move(context)); }

 private:
  std::shared_ptr<ObjectStore> inner_;
  Operation put_, get_, head_, remove_, list_, abort_uploads_;
};

struct SqlOperations {
  explicit SqlOperations(const BackendUser& user)
      : point(user, "sql.point"),
        atomically(user, "sql.atomically"),
        begin(user, "sql.begin"),
        execute(user, "sql.execute"),
        commit(user, "sql.commit"),
        rollback(user, "sql.rollback"),
        query(user, "sql.query"),
        create(user, "sql.create"),
        describe(user, "sql.describe"),
        wait(user, "sql.wait_for_change", kWaiting) {}
  Operation point, atomically, begin, execute, commit, rollback, query, create, describe, wait;
};

class MeasuredTransaction final : public SqlTransaction {
 public:
  MeasuredTransaction(std::unique_ptr<SqlTransaction> inner, std::shared_ptr<SqlOperations> operations)
      : inner_(std::move(inner)), operations_(std::move(operations)) {}
  Task<Result<Batch<SqlRows>>> execute(Context context, Batch<Statement> statements) override {
    return timed(&operations_->execute, context, inner_->execute(context, std::move(statements)));
  }
  Task<Result<Position>> commit(Context context) override {
    return timed(&operations_->commit, context, inner_->commit(context));
  }
  Task<void> rollback(Context context) override {
    return timed(&operations_->rollback, context, inner_->rollback(context));
  }

 private:
  std::unique_ptr<SqlTransaction> inner_;
  std::shared_ptr<SqlOperations> operations_;
};

class MeasuredDatabase final : public SqlDatabase {
 public:
  MeasuredDatabase(std::shared_ptr<SqlDatabase> inner, const BackendUser& user)
      : inner_(std::move(inner)), operations_(std::make_shared<SqlOperations>(user)) {}
  SqlDialect dialect() const noexcept override { return inner_->dialect(); }
  const SqlFeatures& features() const noexcept override { return inner_->features(); }
  Id128 incarnation() const noexcept override { return inner_->incarnation(); }
  Task<Batch<Result<SqlRows>>> point(Context context, Batch<Statement> statements) override {
    return timed(&operations_->point, context, inner_->point(context, std::move(statements)));
  }
  Task<Result<Committed>> atomically(Context context, Batch<Statement> statements) override {
    return timed(&operations_->atomically, context, inner_->atomically(context, std::move(statements)));
  }
  Task<Result<std::unique_ptr<SqlTransaction>>> begin(Context context, TxOptions options) override {
    PRISM_CO_TRY(auto transaction, co_await timed(&operations_->begin, context, inner_->begin(context, options)));
    co_return std::make_unique<MeasuredTransaction>(std::move(transaction), operations_);
  }
  Task<Result<SqlRows>> query(Context context, Statement statement, std::size_t max_rows) override {
    return timed(&operations_->query, context, inner_->query(context, std::move(statement), max_rows));
  }
  Task<Result<void>> create_table(Context context, TableSpec spec) override {
    return timed(&operations_->create, context, inner_->create_table(context, std::move(spec)));
  }
  Task<Result<void>> create_from_ddl(Context context, std::string ddl) override {
    return timed(&operations_->create, context, inner_->create_from_ddl(context, std::move(ddl)));
  }
  Task<Result<std::optional<TableInfo>>> describe(Context context, std::string table) override {
    return timed(&operations_->describe, context, inner_->describe(context, std::move(table)));
  }
  Task<void> wait_for_change(Context context, std::string table, Clock::duration at_most) override {
    return timed(&operations_->wait, context, inner_->wait_for_change(context, std::move(table), at_most));
  }
  Task<void> close(Context context) override { return inner_->close(std::move(context)); }

 private:
  std::shared_ptr<SqlDatabase> inner_;
  std::shared_ptr<SqlOperations> operations_;
};

class MeasuredLease final : public Lease {
 public:
  MeasuredLease(std::shared_ptr<Lease> inner, const BackendUser& user)
      : inner_(std::move(inner)),
        acquire_(user, "lease.acquire"),
        renew_(user, "lease.renew"),
        release_(user, "lease.release") {}
  Task<Result<std::optional<Grant>>> acquire(Context context, std::string name, std::string holder,
                                             Clock::duration ttl) override {
    return timed(&acquire_, context, inner_->acquire(context, std::move(name), std::move(holder), ttl));
  }
  Task<Result<Grant>> renew(Context context, Grant grant, Clock::duration ttl) override {
    return timed(&renew_, context, inner_->renew(context, std::move(grant), ttl));
  }
  Task<void> release(Context context, Grant grant) override {
    return timed(&release_, context, inner_->release(context, std::move(grant)));
  }
  std::optional<Statement> guard(const Grant& grant) const override { return inner_->guard(grant); }

 private:
  std::shared_ptr<Lease> inner_;
  Operation acquire_, renew_, release_;
};

template <class Decorator, class T>
std::shared_ptr<T> decorate(std::shared_ptr<T> inner, const BackendUser& user) {
  if (inner == nullptr || user.metrics == nullptr) return inner;
  return std::make_shared<Decorator>(std::move(inner), user);
}

}  // namespace

std::shared_ptr<EventLog> measured(std::shared_ptr<EventLog> log, const BackendUser& user) {
  return decorate<MeasuredLog>(std::move(log), user);
}
std::shared_ptr<KeyValueStore> measured(std::shared_ptr<KeyValueStore> store, const BackendUser& user) {
  return decorate<MeasuredKeyValueStore>(std::move(store), user);
}
std::shared_ptr<ObjectStore> measured(std::shared_ptr<ObjectStore> store, const BackendUser& user) {
  return decorate<MeasuredObjectStore>(std::move(store), user);
}
std::shared_ptr<SqlDatabase> measured(std::shared_ptr<SqlDatabase> database, const BackendUser& user) {
  return decorate<MeasuredDatabase>(std::move(database), user);
}
std::shared_ptr<Lease> measured(std::shared_ptr<Lease> lease, const BackendUser& user) {
  return decorate<MeasuredLease>(std::move(lease), user);
}

}  // namespace prism
