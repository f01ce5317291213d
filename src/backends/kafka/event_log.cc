#include "backends/kafka/event_log.h"

#include <algorithm>
#include <map>
#include <mutex>

#include "backends/kafka/errors.h"
#include "backends/kafka/group_consumer.h"
#include "backends/kafka/producer.h"
#include "backends/kafka/reader.h"
#include "backends/kafka/topics.h"
#include "base/text.h"
#include "runtime/scope.h"

namespace prism::kafka {
namespace {

constexpr std::size_t kMaxGroupBytes = 255;
constexpr auto kFlush = std::chrono::seconds(10);   // what closing waits for records under way
constexpr auto kMove = std::chrono::seconds(30);    // what seek() waits for consumers elsewhere
constexpr auto kReplace = std::chrono::seconds(1);  // how often a producer is replaced, at most
constexpr auto kProbe = std::chrono::milliseconds(500);

class ConsumerHandle final : public GroupConsumer {
 public:
  explicit ConsumerHandle(std::shared_ptr<Consumer> consumer) : consumer_(std::move(consumer)) {}
  ~ConsumerHandle() override { consumer_->abandon(); }
  Task<Result<Batch<Delivery>>> receive(Context context, std::size_t max, std::size_t max_bytes) override {
    return Consumer::receive(consumer_, std::move(context), max, max_bytes);
  }
  Task<Batch<Settled>> settle(Context context, Batch<Settle> settles) override {
    return Consumer::settle(consumer_, std::move(context), std::move(settles));
  }
  Task<void> close(Context /*context*/) override { return Consumer::leave(consumer_); }

 private:
  const std::shared_ptr<Consumer> consumer_;
};

class Log final : public KafkaEventLog {
 public:
  Log(std::shared_ptr<Connection> connection, std::shared_ptr<Producer> producer, EventLoop& loop)
      : connection_(std::move(connection)),
        loop_(loop),
        main_(std::move(producer)),
        topics_(*connection_),
        blocking_("kafka", 4) {
    features_ = {.durability = connection_->options().replication > 1 ? Durability::replicated : Durability::os,
                 .deduplicates = false,
                 .persists_attempts = true};
    features_.max_record_bytes = Topic{.max_message_bytes = 1'048'588}.max_record_bytes();
    producers_.emplace(connection_->options().batch_bytes, main_);
  }
  ~Log() override { shut(); }

  void start() { scope_.spawn(probe(this)); }

  const LogFeatures& features() const noexcept override { return features_; }
  std::string describe() const override {
    return "Kafka (" + connection_->peer().address + "), acknowledged by all replicas in sync";
  }

  Task<Result<void>> check(Context context) override {
    auto found = co_await ask<Admin::TopicMeta>(
        context,
        [this](Clock::time_point deadline) -> Result<Admin::TopicMeta> {
          Admin admin(*connection_);
          // A topic that is hardly there: the answer is small, and needs no right.
          auto meta = admin.metadata(std::string(kInternalPrefix) + ".check", deadline);
          if (!meta && meta.error().reason == "TOPIC_NOT_FOUND") return Admin::TopicMeta{};
          return meta;
        },
        false);
    if (found || found.error().code == Code::permission_denied) co_return Result<void>();
    if (const auto trouble = connection_->trouble()) co_return fail(*trouble);
    co_return fail(std::move(found).error());
  }

  Task<Result<TopicInfo>> ensure_topic(Context context, TopicSpec spec) override {
    if (const auto known = topics_.cached(spec.name); known != nullptr && !topics_.stale(*known))
      co_return known->info();
    PRISM_CO_TRY(const auto topic, co_await ask<TopicPtr>(context, [this, spec](Clock::time_point deadline) {
                   return topics_.ensure(spec, deadline);
                 }));
    co_return topic->info();
  }

  Task<Result<TopicInfo>> topic(Context context, std::string name) override {
    PRISM_CO_TRY(const auto topic, co_await find(context, std::move(name), true));
    co_return topic->info();
  }

  Task<Result<std::vector<TopicInfo>>> topics(Context context) override {
    PRISM_CO_TRY(const auto all, co_await ask<std::vector<TopicPtr>>(
                                     context, [this](Clock::time_point deadline) { return topics_.all(deadline); }));
    std::vector<TopicInfo> infos;
    infos.reserve(all.size());
    for (const auto& topic : all) infos.push_back(topic->info());
    co_return infos;
  }

  Task<Batch<Result<Appended>>> append(Context context, std::string name, Batch<Record> records) override {
    const std::size_t n = records.size();
    const auto fail_all = [n](const Error& error) {
      Batch<Result<Appended>> results;
      results.reserve(n);
      for (std::size_t i = 0; i < n; ++i) results.push_back(fail(error));
      return results;
    };
    auto topic = co_await find(context, name, false);
    if (!topic) co_return fail_all(topic.error());
    auto producer = producer_for(**topic);
    if (!producer) co_return fail_all(producer.error());
    auto results = co_await Producer::append(std::move(*producer), std::move(context), *topic, std::move(records));
    const bool gone = std::any_of(results.begin(), results.end(),
                                  [](const auto& r) { return !r && r.error().reason == "TOPIC_NOT_FOUND"; });
    if (gone) topics_.forget(name);
    co_return results;
  }

  Task<Result<std::unique_ptr<LogReader>>> read(Context context, std::string name,
                                                std::optional<std::uint32_t> partition, Start start) override {
    PRISM_CO_TRY(const auto topic, co_await find(context, std::move(name), false));
    if (partition && *partition >= topic->partitions) {
      co_return fail(Code::out_of_range, "PARTITION_NOT_FOUND",
                     "topic \"" + shown(topic->name) + "\" has " + counted(topic->partitions, "partition"));
    }
    co_return co_await ask<std::unique_ptr<LogReader>>(
        context, [this, topic, partition, start](Clock::time_point deadline) -> Result<std::unique_ptr<LogReader>> {
          Admin admin(*connection_);
          PRISM_TRY(const auto offsets, resolve(admin, *topic, start, deadline));
          std::vector<std::pair<std::uint32_t, std::uint64_t>> from;
          for (std::uint32_t p = partition.value_or(0); p < (partition ? *partition + 1 : topic->partitions); ++p)
            from.emplace_back(p, offsets[p]);
          return open_reader(connection_, loop_, topic, std::move(from));
        });
  }

  Task<Result<std::unique_ptr<GroupConsumer>>> join(Context context, GroupSpec spec) override {
    PRISM_CO_TRY(const auto topic, co_await find(context, spec.topic, true));
    PRISM_CO_TRY(const std::string group, wire_group(spec.group));
    const Start start = spec.start;
    auto consumer = std::make_shared<Consumer>(connection_, loop_, topic, group, std::move(spec));
    PRISM_CO_CHECK(
        co_await ask<void>(context, [this, topic, group, start, consumer](Clock::time_point deadline) -> Result<void> {
          PRISM_CHECK(place(*topic, group, start, deadline));
          return consumer->start();
        }));
    {
      const std::lock_guard lock(mutex_);
      std::erase_if(consumers_, [](const auto& weak) { return weak.expired(); });
      consumers_.push_back(consumer);
    }
    co_return std::make_unique<ConsumerHandle>(std::move(consumer));
  }

  Task<Result<std::vector<std::string>>> groups(Context context, std::string name) override {
    PRISM_CO_TRY(const auto topic, co_await find(context, std::move(name), false));
    using Names = std::vector<std::string>;
    co_return co_await ask<Names>(context, [this, topic](Clock::time_point deadline) -> Result<Names> {
      Admin admin(*connection_);
      PRISM_TRY(const auto all, admin.groups(deadline));
      const std::string& prefix = connection_->options().prefix;
      Names names;
      for (const auto& group : all) {
        if (group.starts_with(kInternalPrefix) || !group.starts_with(prefix)) continue;
        PRISM_TRY(const auto held, admin.committed(group, topic->wire, topic->partitions, deadline));
        if (std::any_of(held.begin(), held.end(), [](const auto& h) { return h.offset.has_value(); }))
          names.push_back(group.substr(prefix.size()));
      }
      std::sort(names.begin(), names.end());
      return names;
    });
  }

  Task<Result<Batch<GroupFloor>>> floors(Context context, std::string name, std::string group) override {
    PRISM_CO_TRY(const auto topic, co_await find(context, std::move(name), false));
    PRISM_CO_TRY(const std::string wire, wire_group(group));
    using Floors = Batch<GroupFloor>;
    co_return co_await ask<Floors>(context, [this, topic, wire](Clock::time_point deadline) -> Result<Floors> {
      Admin admin(*connection_);
      PRISM_TRY(const auto held, admin.committed(wire, topic->wire, topic->partitions, deadline));
      PRISM_TRY(const auto begins, admin.offsets(topic->wire, topic->partitions, RD_KAFKA_OFFSET_BEGINNING, deadline));
      PRISM_TRY(const auto ends, admin.offsets(topic->wire, topic->partitions, RD_KAFKA_OFFSET_END, deadline));
      Floors floors;
      for (std::uint32_t p = 0; p < topic->partitions; ++p) {
        floors.push_back({.partition = p,
                          .acked_below = std::max(held[p].offset.value_or(0), begins[p]),
                          .begin = begins[p],
                          .end = ends[p],
                          .ever_committed = held[p].offset.has_value()});
      }
      return floors;
    });
  }

  // Only members of a group may commit for it, while there are any. So the move is committed in a group of its own,
  // where members look for it now and then; it is done when each partition's commit names it.
  Task<Result<void>> seek(Context context, std::string name, std::string group, Start start) override {
    PRISM_CO_TRY(const auto topic, co_await find(context, std::move(name), true));
    PRISM_CO_TRY(const std::string wire, wire_group(group));
    const Id128 move = random_id();
    using Offsets = std::vector<std::uint64_t>;
    PRISM_CO_TRY(const auto to, co_await ask<Offsets>(context, [this, topic, start](Clock::time_point deadline) {
                   Admin admin(*connection_);
                   return resolve(admin, *topic, start, deadline);
                 }));
    const auto limit = std::min(context.deadline(), Clock::now() + kMove);
    for (bool told = false; true;) {
      PRISM_CO_TRY(const bool done,
                   co_await ask<bool>(context, [this, topic, wire, move, to, told](Clock::time_point deadline) {
                     return moved(*topic, wire, move, to, told, deadline);
                   }));
      if (done) co_return Result<void>();
      if (!told) {
        const std::lock_guard lock(mutex_);
        for (const auto& weak : consumers_) {
          const auto consumer = weak.lock();
          if (consumer && consumer->wire_group() == wire && consumer->topic().wire == topic->wire)
            consumer->check_moves();
        }
      }
      told = true;
      if (Clock::now() >= limit) {
        co_return fail(Code::unavailable, "GROUP_NOT_MOVED",
                       "consumers of group \"" + shown(group) + "\" have not yet gone where they are to go",
                       "they will when they are Prism's and run; else end them, and repeat it", Retry::safe);
      }
      if (!co_await sleep_for(loop_, context, std::chrono::milliseconds(50)) && context.stopped())
        co_return fail(context.over(true));
    }
  }

  Task<Result<Position>> end(Context context, std::string name) override {
    PRISM_CO_TRY(const auto topic, co_await find(context, std::move(name), false));
    co_return co_await ask<Position>(context, [this, topic](Clock::time_point deadline) -> Result<Position> {
      Admin admin(*connection_);
      PRISM_TRY(const auto ends, admin.offsets(topic->wire, topic->partitions, RD_KAFKA_OFFSET_END, deadline));
      Position position;
      for (std::uint32_t p = 0; p < topic->partitions; ++p) {
        if (ends[p] != 0) position.merge(topic->position(p, ends[p] - 1));
      }
      return position;
    });
  }

  Task<void> close(Context /*context*/) override {
    closed_.store(true);
    co_await offload(blocking_, loop_, [this] { shut(); });
  }

 private:
  Result<void> open() const {
    if (!closed_.load()) return {};
    return fail(Code::unavailable, "LOG_CLOSED", "the log has been closed", "", Retry::safe);
  }

  // Blocks.
  void shut() {
    const std::lock_guard once(shut_mutex_);
    closed_.store(true);
    scope_.request_stop();
    {
      const std::lock_guard lock(mutex_);
      for (const auto& weak : consumers_) {
        if (const auto consumer = weak.lock()) consumer->abandon();
      }
    }
    connection_->threads().stop();
    connection_->threads().join();
    std::map<std::uint64_t, std::shared_ptr<Producer>> producers;
    {
      const std::lock_guard lock(mutex_);
      producers = producers_;
    }
    for (const auto& [size, producer] : producers) {
      if (producer != nullptr) producer->close(Clock::now() + kFlush);
    }
    main_->close(Clock::now());
    scope_.join_blocking();
  }

  Result<std::string> wire_group(const std::string& group) const {
    std::string wire = connection_->options().prefix + group;
    if (!group.empty() && group.size() <= kMaxGroupBytes && !wire.starts_with(kInternalPrefix)) return wire;
    return fail(Code::invalid_argument, "INVALID_GROUP",
                "a consumer group's name has 1 to " + std::to_string(kMaxGroupBytes) +
                    " bytes and does not begin with " + std::string(kInternalPrefix));
  }

  // Runs `work`, which may block until the deadline that it is given, on a thread of the log's.
  template <class T, class F>
  Task<Result<T>> ask(Context context, F work, bool admitted = true) {
    PRISM_CO_CHECK(open());
    if (admitted) PRISM_CO_CHECK(connection_->admit());
    if (context.stop().stop_requested()) co_return fail(context.over(false));
    const auto deadline = std::min(context.deadline(), Clock::now() + connection_->options().timeouts.operation);
    auto shot = std::make_shared<OneShot<Result<T>>>(&loop_);
    blocking_.submit([shot, deadline, work = std::move(work)]() mutable {
      if (shot->begin()) resume_on_loop(shot->complete(work(deadline)));
    });
    if (co_await shot->wait(context.stop()) != Outcome::done) co_return fail(context.over(false));
    co_return shot->take();
  }

  // `sure`: as it is now, not as it was lately.
  Task<Result<TopicPtr>> find(Context context, std::string name, bool sure) {
    PRISM_CO_CHECK(open());
    const auto known = topics_.cached(name);
    if (known != nullptr && !topics_.stale(*known)) {
      if (!sure || Clock::now() - known->loaded < std::chrono::seconds(1)) co_return known;
    }
    if (known != nullptr && !sure) {
      look_again(name);
      co_return known;
    }
    co_return co_await ask<TopicPtr>(std::move(context),
                                     [this, name](Clock::time_point deadline) { return topics_.load(name, deadline); });
  }

  // Brings what is known of a topic up to date, while it is used as it was.
  void look_again(const std::string& name) {
    {
      const std::lock_guard lock(mutex_);
      const auto now = Clock::now();
      auto& next = next_look_[name];
      if (now < next) return;
      next = now + std::chrono::seconds(30);
    }
    scope_.spawn(reload(this, name));
  }
  static Task<void> reload(Log* self, std::string name) {
    (void)co_await self->ask<TopicPtr>(
        Context::background(self->scope_.stop_token()).with_timeout(std::chrono::seconds(30)),
        [self, name](Clock::time_point deadline) { return self->topics_.load(name, deadline); });
  }

  // A producer's batches must be no larger than the topic takes.
  Result<std::shared_ptr<Producer>> producer_for(const Topic& topic) {
    const std::uint64_t size =
        std::max<std::uint64_t>(std::min(topic.max_message_bytes, connection_->options().batch_bytes), 1);
    const std::lock_guard lock(mutex_);
    auto& held = producers_[size];
    if ((held != nullptr && !held->broken()) || closed_.load()) return held != nullptr ? held : main_;
    const auto now = Clock::now();
    if (held != nullptr && now < next_producer_) return held;  // it says why it does not go on
    next_producer_ = now + kReplace;
    PRISM_TRY(auto fresh, Producer::open(connection_, loop_, size));
    if (held != nullptr) connection_->threads().start([old = std::move(held)] { old->close(Clock::now()); });
    held = std::move(fresh);
    return held;
  }

  // A group that has never been there begins at `start`, whichever of its members comes first.
  Result<void> place(const Topic& topic, const std::string& group, const Start& start, Clock::time_point deadline) {
    Admin admin(*connection_);
    PRISM_TRY(const auto held, admin.committed(group, topic.wire, topic.partitions, deadline));
    if (std::all_of(held.begin(), held.end(), [](const auto& h) { return h.offset.has_value(); })) return {};
    PRISM_TRY(const auto from, resolve(admin, topic, start, deadline));
    PartitionList list;
    for (std::uint32_t p = 0; p < topic.partitions; ++p) {
      if (!held[p].offset) list.add(topic.wire, p, static_cast<std::int64_t>(from[p]));
    }
    PRISM_TRY(const bool written, admin.commit(group, list, deadline));
    (void)written;  // where there are members, they do it for what they are assigned
    return {};
  }

  // True: the group is there.
  Result<bool> moved(const Topic& topic, const std::string& group, const Id128& move,
                     const std::vector<std::uint64_t>& to, bool told, Clock::time_point deadline) {
    Admin admin(*connection_);
    PartitionList progress;
    PartitionList command;
    for (std::uint32_t p = 0; p < topic.partitions; ++p) {
      Committed at;
      at.seek = move;
      at.progress.acked = AckSet(to[p]);
      at.progress.delivered_below = to[p];
      progress.add(topic.wire, p, static_cast<std::int64_t>(to[p]), encode_progress(at));
      command.add(topic.wire, p, static_cast<std::int64_t>(to[p]), to_hex(move));
    }
    if (told) {
      PRISM_TRY(const auto held, admin.committed(group, topic.wire, topic.partitions, deadline));
      const bool all = std::all_of(held.begin(), held.end(), [&](const Admin::GroupOffset& h) {
        return h.offset && decode_progress(*h.offset, h.metadata).seek == move;
      });
      if (all) return true;
    }
    PRISM_TRY(const bool written, admin.commit(group, progress, deadline));
    if (written) return true;
    if (told) return false;
    PRISM_TRY(const bool commanded, admin.commit(seek_group(group), command, deadline));
    (void)commanded;  // nobody consumes in that group
    return false;
  }

  // While brokers are away: notices that they are back, also where nobody asks for anything.
  static Task<void> probe(Log* self) {
    const Context context = Context::background(self->scope_.stop_token());
    while (co_await sleep_for(self->loop_, context, kProbe)) {
      if (!self->connection_->trouble()) continue;
      (void)co_await self->check(context.with_timeout(std::chrono::seconds(2)));
    }
  }

  const std::shared_ptr<Connection> connection_;
  EventLoop& loop_;
  LogFeatures features_;
  std::atomic<bool> closed_{false};
  std::mutex shut_mutex_;
  const std::shared_ptr<Producer> main_;
  Topics topics_;
  std::mutex mutex_;
  std::vector<std::weak_ptr<Consumer>> consumers_;                   // guarded by mutex_
  std::map<std::uint64_t, std::shared_ptr<Producer>> producers_;     // by size of batches; guarded by mutex_
  std::map<std::string, Clock::time_point, std::less<>> next_look_;  // guarded by mutex_
  Clock::time_point next_producer_{};                                // guarded by mutex_
  Scope scope_;
  OffloadPool blocking_;  // ends first: what it runs uses the rest
};

}  // namespace

Result<std::shared_ptr<KafkaEventLog>> open_event_log(Runtime& runtime, std::string backend, Options options) {
  auto connection = std::make_shared<Connection>(std::move(backend), std::move(options));
  EventLoop& loop = runtime.next_loop();
  PRISM_TRY(auto producer, Producer::open(connection, loop, connection->options().batch_bytes));
  auto log = std::make_shared<Log>(std::move(connection), std::move(producer), loop);
  log->start();
  return log;
}

}  // namespace prism::kafka
