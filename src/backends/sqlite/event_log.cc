#include "backends/sqlite/event_log.h"

#include <algorithm>
#include <limits>
#include <set>

#include "backends/sqlite/group_consumer.h"
#include "backends/sqlite/log_state.h"
#include "base/text.h"
#include "runtime/scope.h"

namespace prism::sqlite {
namespace {

const char* const kLogSchema =
    // first_uid: every partition of the file has a number of its own, from 1.
    "CREATE TABLE IF NOT EXISTS prism_topics(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, partitions INTEGER NOT "
    "NULL, "
    "first_uid INTEGER NOT NULL, incarnation BLOB NOT NULL, created INTEGER NOT NULL) STRICT;"
    // seq: partition's number << 40 | offset. One integer key and one blob: clustered on two columns it writes two to
    // three times slower.
    "CREATE TABLE IF NOT EXISTS prism_records(seq INTEGER PRIMARY KEY, data BLOB NOT NULL) STRICT;";

constexpr std::uint32_t kMaxPartitions = 1024;
constexpr std::size_t kMaxNameBytes = 255;
constexpr std::size_t kEncodeInlineBytes = 256UL << 10;
constexpr std::size_t kMaxRecordsPerRead = 10000;

Error topic_not_found(const std::string& name) {
  return Error{Code::not_found,
               "TOPIC_NOT_FOUND",
               "there is no topic \"" + shown(name) + "\"",
               "create it, or check its name",
               Retry::never,
               {},
               {{"topic", name}}};
}

std::shared_ptr<Topic> make_topic(Query& row) {
  auto topic = std::make_shared<Topic>();
  topic->id = row.integer(0);
  topic->name = row.text(1);
  topic->partitions = static_cast<std::uint32_t>(row.integer(2));
  topic->first_uid = static_cast<std::uint64_t>(row.integer(3));
  const auto incarnation = row.blob(4);
  std::memcpy(topic->incarnation.data(), incarnation.data(), std::min(incarnation.size(), topic->incarnation.size()));
  topic->cursors.resize(topic->partitions);
  topic->ends = std::make_unique<std::atomic<std::uint64_t>[]>(topic->partitions);
  return topic;
}

Result<std::vector<std::shared_ptr<Topic>>> load_topics(Connection& connection,
                                                        const std::optional<std::string>& name) {
  std::vector<std::shared_ptr<Topic>> topics;
  PRISM_TRY(Query query, connection.prepare("SELECT id, name, partitions, first_uid, incarnation FROM prism_topics "
                                            "WHERE ?1 IS NULL OR name = ?1 ORDER BY name"));
  if (name) query.bind_text_view(1, *name);
  while (true) {
    PRISM_TRY(const bool row, query.step());
    if (!row) return topics;
    topics.push_back(make_topic(query));
  }
}

// The records of one call. Encoded once; their rows get their numbers inside the writer's transaction.
class AppendOp final : public WriteOp {
 public:
  // A record without key goes where its transaction's others go: a group of calls then fills few pages instead of
  // touching one in each partition, which is most of what a small append costs. The next group takes the next one.
  static constexpr std::uint32_t kAnyPartition = std::numeric_limits<std::uint32_t>::max();
  struct Entry {
    std::uint32_t partition;
    bool keyless = false;
    std::size_t index = 0;  // in the batch
    std::size_t begin = 0;
    std::size_t size = 0;
    std::uint64_t offset = 0;
  };

  AppendOp(Engine& engine, std::shared_ptr<Topic> topic, Batch<Record> records, std::vector<Entry> entries,
           std::size_t bytes, Clock::time_point deadline)
      : entries(std::move(entries)),
        shot(&engine.loop()),
        engine_(engine),
        topic_(std::move(topic)),
        records_(std::move(records)),
        bytes_(bytes),
        deadline_(deadline) {
    // Rows of one partition stand together in the tree. Stable: the order of a key is the order of the batch.
    if (this->entries.size() > 1) {
      std::stable_sort(this->entries.begin(), this->entries.end(),
                       [](const Entry& a, const Entry& b) { return a.partition < b.partition; });
    }
    if (bytes_ <= kEncodeInlineBytes) encode();
  }

  std::size_t bytes() const noexcept override { return bytes_; }
  Clock::time_point deadline() const noexcept override { return deadline_; }
  bool begin() noexcept override { return shot.begin(); }

  Result<void> execute(Connection& connection) override {
    if (memory_.empty()) encode();
    const WallTime now = wall_now();
    PRISM_TRY(Query insert, connection.prepare("INSERT INTO prism_records(seq, data) VALUES(?1, ?2)"));
    Topic::Cursor* cursor = nullptr;
    std::uint32_t partition = 0;
    if (topic_->keyless_transaction != engine_.transaction()) {
      topic_->keyless_transaction = engine_.transaction();
      topic_->keyless_partition = (topic_->keyless_partition + 1) % topic_->partitions;
    }
    for (Entry& entry : entries) {
      if (entry.keyless) entry.partition = topic_->keyless_partition;  // a replay may take another
      if (cursor == nullptr || partition != entry.partition) {
        partition = entry.partition;
        PRISM_TRY(cursor, prepare(connection, partition));
      }
      char* const data = memory_.data() + entry.begin;
      cursor->prepared_last = std::max(now, cursor->prepared_last);
      set_record_time(data, cursor->prepared_last);
      entry.offset = cursor->prepared_next++;
      insert.bind(1, topic_->seq(partition, entry.offset)).bind_blob_view(2, std::string_view(data, entry.size));
      PRISM_TRY(const bool row, insert.step());
      (void)row;
      insert.reset();
    }
    return {};
  }

  void committed(CompletionBatch& batch) noexcept override {
    std::uint64_t mask = 0;
    for (std::size_t i = 0; i < entries.size(); ++i) {
      const Entry& entry = entries[i];
      if (i + 1 != entries.size() && entries[i + 1].partition == entry.partition) continue;
      Topic::Cursor& cursor = topic_->cursors[entry.partition];
      cursor.next = entry.offset + 1;
      cursor.last = cursor.prepared_last;
      topic_->note_end(entry.partition, cursor.next);
      mask |= 1ULL << (entry.partition % 64);
    }
    topic_->wake(mask, batch);
    batch.add(shot.complete(Result<void>()));
  }
  void failed(Error error, CompletionBatch& batch) noexcept override {
    batch.add(shot.complete(std::unexpected(std::move(error))));
  }

  std::vector<Entry> entries;  // of the caller again once it is completed
  OneShot<Result<void>> shot;

 private:
  void encode() {
    memory_.reserve(bytes_);
    for (Entry& entry : entries) {
      entry.begin = memory_.size();
      encode_record(records_[entry.index], memory_);
      entry.size = memory_.size() - entry.begin;
    }
    records_.clear();
  }

  // The partition's end as this transaction sees it.
  Result<Topic::Cursor*> prepare(Connection& connection, std::uint32_t partition) {
    Topic::Cursor& cursor = topic_->cursors[partition];
    if (cursor.transaction == engine_.transaction()) return &cursor;
    if (cursor.generation != engine_.foreign_generation()) {
      PRISM_TRY(cursor.next, end_offset(connection, *topic_, partition, &cursor.last));
      cursor.generation = engine_.foreign_generation();
    }
    cursor.prepared_next = cursor.next;
    cursor.prepared_last = cursor.last;
    cursor.transaction = engine_.transaction();
    return &cursor;
  }

  Engine& engine_;
  const std::shared_ptr<Topic> topic_;
  Batch<Record> records_;
  const std::size_t bytes_;
  const Clock::time_point deadline_;
  std::string memory_;
};

class Reader final : public LogReader {
 public:
  Reader(Engine& engine, std::shared_ptr<Topic> topic, std::vector<std::pair<std::uint32_t, std::uint64_t>> next)
      : engine_(engine),
        topic_(std::move(topic)),
        next_(std::move(next)),
        listener_(std::make_shared<Listener>(engine.loop())) {
    std::uint64_t mask = 0;
    for (const auto& [partition, offset] : next_) mask |= 1ULL << (partition % 64);
    listener_->mask.store(mask);
    topic_->listen(listener_);
  }
  ~Reader() override { topic_->unlisten(listener_); }

  Task<Result<Batch<std::pair<Record, Position>>>> next(Context context, std::size_t max_bytes) override {
    std::optional<Engine::Watch> watch;
    while (true) {
      const std::uint64_t seen = listener_->wake.version();
      if (closed_.load()) co_return fail(Code::failed_precondition, "READER_CLOSED", "this reader has been closed");
      if (context.stop().stop_requested()) co_return fail(context.over(false));
      if (may_have_more()) {
        auto got = co_await engine_.read(Context(), [&](Connection& c) { return fetch(c, max_bytes); });
        if (!got || !got->empty()) co_return got;
        if (may_have_more()) continue;
      }
      const auto now = Clock::now();
      if (now >= context.deadline()) co_return Batch<std::pair<Record, Position>>();
      if (!watch) watch.emplace(engine_);
      const auto until = std::min(context.deadline(), now + std::chrono::hours(1));
      co_await listener_->wake.wait(context, seen, until - now);
    }
  }
  Task<void> close(Context /*context*/) override {
    closed_.store(true);
    listener_->wake.notify();
    co_return;
  }

 private:
  bool may_have_more() const {
    return foreign_seen_ != engine_.foreign_generation() ||
           std::any_of(next_.begin(), next_.end(), [this](const auto& n) {
             return n.second < topic_->ends[n.first].load(std::memory_order_acquire);
           });
  }

  Result<Batch<std::pair<Record, Position>>> fetch(Connection& connection, std::size_t max_bytes) {
    const std::uint64_t foreign = engine_.foreign_generation();
    // Before the snapshot is taken, by the first query: what is committed up to here, the snapshot holds.
    std::vector<std::uint64_t> ends;
    for (const auto& [partition, offset] : next_)
      ends.push_back(topic_->ends[partition].load(std::memory_order_acquire));
    if (foreign_seen_ != foreign) {
      for (std::size_t n = 0; n < next_.size(); ++n) {
        PRISM_TRY(ends[n], end_offset(connection, *topic_, next_[n].first));
        topic_->note_end(next_[n].first, ends[n]);
      }
      foreign_seen_ = foreign;
    }
    RecordBatch raw;
    std::size_t count = kMaxRecordsPerRead;
    std::size_t bytes = std::max<std::size_t>(max_bytes, 1);
    std::vector<std::pair<std::size_t, std::uint64_t>> read_to;
    const std::size_t first = rotation_++ % next_.size();
    for (std::size_t i = 0; i < next_.size() && count != 0 && bytes != 0; ++i) {
      const std::size_t n = (first + i) % next_.size();
      const auto [partition, from] = next_[n];
      if (from >= ends[n]) continue;
      PRISM_TRY(const bool all, raw.read(connection, *topic_, partition, from, ends[n], count, bytes));
      if (all) read_to.emplace_back(n, ends[n]);
    }
    PRISM_TRY(auto items, std::move(raw).decode());
    Batch<std::pair<Record, Position>> out;
    out.reserve(items.size());
    std::size_t n = 0;
    for (auto& item : items) {
      if (next_[n].first != item.partition) {
        n = static_cast<std::size_t>(
            std::find_if(next_.begin(), next_.end(), [&](const auto& x) { return x.first == item.partition; }) -
            next_.begin());
      }
      next_[n].second = item.offset + 1;
      out.emplace_back(std::move(item.record), topic_->position(item.partition, item.offset));
    }
    for (const auto& [at, end] : read_to) next_[at].second = end;
    return out;
  }

  Engine& engine_;
  const std::shared_ptr<Topic> topic_;
  std::vector<std::pair<std::uint32_t, std::uint64_t>> next_;  // partition, the next offset
  const std::shared_ptr<Listener> listener_;
  std::uint64_t foreign_seen_ = 0;
  std::size_t rotation_ = 0;
  std::atomic<bool> closed_{false};
};

// What the user holds of a Consumer; going without close() gives its partitions back in the background.
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
  std::shared_ptr<Consumer> consumer_;
};

class SqliteEventLog final : public EventLog {
 public:
  SqliteEventLog(std::shared_ptr<Engine> engine, EventLogOptions options)
      : engine_(std::move(engine)), options_(options) {
    features_ = {.durability = Durability::fsync,
                 .max_record_bytes = options.max_record_bytes,
                 .deduplicates = false,
                 .persists_attempts = true};
  }
  ~SqliteEventLog() override {
    scope_.request_stop();
    scope_.join_blocking();
  }

  void start() { scope_.spawn(forward(this)); }

  const LogFeatures& features() const noexcept override { return features_; }

  Task<Result<TopicInfo>> ensure_topic(Context context, TopicSpec spec) override {
    if (spec.name.empty() || spec.name.size() > kMaxNameBytes || spec.partitions > kMaxPartitions) {
      co_return fail(Code::invalid_argument, "INVALID_TOPIC",
                     "a topic's name has 1 to " + std::to_string(kMaxNameBytes) + " bytes and the topic at most " +
                         std::to_string(kMaxPartitions) + " partitions");
    }
    auto found = co_await find(context, spec.name);
    if (!found && found.error().reason != "TOPIC_NOT_FOUND") co_return fail(std::move(found).error());
    if (!found) {
      const std::uint32_t partitions = spec.partitions != 0 ? spec.partitions : options_.partitions;
      PRISM_CO_CHECK(co_await engine_->write(
          context,
          [name = spec.name, partitions](Connection& c) -> Result<void> {
            PRISM_TRY(Query insert,
                      c.prepare("INSERT INTO prism_topics(name, partitions, first_uid, incarnation, created) "
                                "SELECT ?1, ?2, coalesce(max(first_uid + partitions), 1), ?3, ?4 FROM prism_topics "
                                "WHERE true ON CONFLICT(name) DO NOTHING"));
            const Id128 incarnation = random_id();
            insert.bind_text_view(1, name).bind(2, static_cast<std::int64_t>(partitions));
            insert.bind_blob_view(
                3, std::string_view(reinterpret_cast<const char*>(incarnation.data()), incarnation.size()));
            insert.bind(4, wall_now().time_since_epoch().count());
            return insert.run();
          },
          false));
      found = co_await find(context, spec.name);
      if (!found) co_return fail(std::move(found).error());
    }
    co_return (*found)->info(options_.max_record_bytes);
  }

  Task<Result<TopicInfo>> topic(Context context, std::string name) override {
    PRISM_CO_TRY(const auto topic, co_await find(std::move(context), std::move(name)));
    co_return topic->info(options_.max_record_bytes);
  }

  Task<Result<std::vector<TopicInfo>>> topics(Context context) override {
    PRISM_CO_CHECK(open());
    PRISM_CO_TRY(const auto all,
                 co_await engine_->read(context, [](Connection& c) { return load_topics(c, std::nullopt); }));
    std::vector<TopicInfo> infos;
    infos.reserve(all.size());
    for (const auto& topic : all) infos.push_back(topic->info(options_.max_record_bytes));
    co_return infos;
  }

  Task<Batch<Result<Appended>>> append(Context context, std::string name, Batch<Record> records) override {
    const std::size_t n = records.size();
    Batch<Result<Appended>> results;
    results.reserve(n);
    auto found = co_await find(context, std::move(name));
    if (!found) {
      for (std::size_t i = 0; i < n; ++i) results.push_back(fail(found.error()));
      co_return results;
    }
    const auto topic = std::move(*found);
    std::vector<AppendOp::Entry> entries;
    entries.reserve(n);
    std::size_t bytes = 0;
    std::set<std::string, std::less<>> failed_keys;
    for (std::size_t i = 0; i < n; ++i) {
      const Record& record = records[i];
      results.emplace_back(Appended{.at = {}, .durability = Durability::fsync, .duplicate = false});
      const std::size_t size = record_bytes(record);
      if (size > options_.max_record_bytes) {
        results[i] = fail(Error{Code::invalid_argument,
                                "RECORD_TOO_LARGE",
                                "a record of " + std::to_string(size) + " bytes; topic \"" + topic->name + "\" takes " +
                                    std::to_string(options_.max_record_bytes),
                                "add claim-check to the namespace, or send less",
                                Retry::never,
                                {},
                                {{"topic", topic->name}}});
        if (!record.key.empty()) failed_keys.insert(record.key);
        continue;
      }
      if (!failed_keys.empty() && failed_keys.contains(record.key)) {
        results[i] = fail(Code::aborted, "EARLIER_MESSAGE_FAILED",
                          "an earlier record of key \"" + shown(record.key) + "\" in this batch failed",
                          "append from the failed one on again, in order", Retry::safe);
        continue;
      }
      const bool keyless = record.key.empty();
      const std::uint32_t partition =
          keyless ? AppendOp::kAnyPartition : static_cast<std::uint32_t>(hash_key(record.key) % topic->partitions);
      entries.push_back({.partition = partition, .keyless = keyless, .index = i});
      bytes += size + 32 + 8 * record.headers.size();
    }
    if (entries.empty()) co_return results;

    auto op = std::make_shared<AppendOp>(*engine_, topic, std::move(records), entries, bytes, context.deadline());
    const auto fail_all = [&](const Error& error) {
      for (const auto& entry : entries) results[entry.index] = fail(error);
    };
    if (auto queued = engine_->submit(op); !queued) {
      Error error = std::move(queued).error();
      if (error.reason == "ENGINE_OVERLOADED") error.reason = "LOG_FULL";
      fail_all(error);
      co_return results;
    }
    const Outcome outcome = co_await op->shot.wait(context.stop());
    if (outcome != Outcome::done) {
      fail_all(context.over(outcome == Outcome::abandoned));
    } else if (auto done = op->shot.take(); !done) {
      fail_all(done.error());
    } else {
      for (const auto& entry : op->entries) results[entry.index]->at = topic->position(entry.partition, entry.offset);
    }
    co_return results;
  }

  Task<Result<std::unique_ptr<LogReader>>> read(Context context, std::string name,
                                                std::optional<std::uint32_t> partition, Start start) override {
    PRISM_CO_TRY(const auto topic, co_await find(context, std::move(name)));
    if (partition && *partition >= topic->partitions) {
      co_return fail(Code::out_of_range, "PARTITION_NOT_FOUND",
                     "topic \"" + topic->name + "\" has " + std::to_string(topic->partitions) + " partitions");
    }
    using Next = std::vector<std::pair<std::uint32_t, std::uint64_t>>;
    PRISM_CO_TRY(auto next, co_await engine_->read(context, [&](Connection& c) -> Result<Next> {
      Next from;
      for (std::uint32_t p = partition.value_or(0); p < (partition ? *partition + 1 : topic->partitions); ++p) {
        PRISM_TRY(const std::uint64_t offset, resolve(c, *topic, p, start));
        from.emplace_back(p, offset);
      }
      return from;
    }));
    co_return std::make_unique<Reader>(*engine_, topic, std::move(next));
  }

  Task<Result<std::unique_ptr<GroupConsumer>>> join(Context context, GroupSpec spec) override {
    PRISM_CO_TRY(const auto topic, co_await find(context, spec.topic));
    PRISM_CO_CHECK(check_group(spec.group));
    PRISM_CO_TRY(const std::int64_t group, co_await engine_->write(context, [topic, spec](Connection& c) {
      return ensure_group(c, *topic, spec.group, spec.start);
    }));
    auto consumer = std::make_shared<Consumer>(*engine_, topic, group, std::move(spec), options_);
    consumer->attach();
    auto synced = co_await Consumer::sync(consumer, context);
    if (!synced) {
      co_await Consumer::leave(consumer);
      co_return fail(std::move(synced).error());
    }
    scope_.spawn(Consumer::keep(consumer, scope_.stop_token()));
    co_return std::make_unique<ConsumerHandle>(std::move(consumer));
  }

  Task<Result<std::vector<std::string>>> groups(Context context, std::string name) override {
    PRISM_CO_TRY(const auto topic, co_await find(context, std::move(name)));
    co_return co_await engine_->read(context, [&](Connection& c) -> Result<std::vector<std::string>> {
      std::vector<std::string> names;
      PRISM_TRY(Query query, c.prepare("SELECT name FROM prism_groups WHERE topic = ?1 ORDER BY name"));
      query.bind(1, topic->id);
      while (true) {
        PRISM_TRY(const bool row, query.step());
        if (!row) return names;
        names.emplace_back(query.text(0));
      }
    });
  }

  Task<Result<Batch<GroupFloor>>> floors(Context context, std::string name, std::string group) override {
    PRISM_CO_TRY(const auto topic, co_await find(context, std::move(name)));
    co_return co_await engine_->read(context, [&](Connection& c) -> Result<Batch<GroupFloor>> {
      Batch<GroupFloor> floors;
      for (std::uint32_t p = 0; p < topic->partitions; ++p) {
        GroupFloor floor{.partition = p};
        PRISM_TRY(floor.begin, first_offset(c, *topic, p));
        PRISM_TRY(floor.end, end_offset(c, *topic, p));
        floor.acked_below = floor.begin;
        floors.push_back(floor);
      }
      PRISM_TRY(Query query, c.prepare("SELECT partition, acked_below FROM prism_progress WHERE grp = "
                                       "(SELECT id FROM prism_groups WHERE topic = ?1 AND name = ?2)"));
      query.bind(1, topic->id).bind_text_view(2, group);
      while (true) {
        PRISM_TRY(const bool row, query.step());
        if (!row) return floors;
        GroupFloor& floor = floors.at(static_cast<std::size_t>(query.integer(0)));
        floor.acked_below = static_cast<std::uint64_t>(query.integer(1));
        floor.ever_committed = true;
      }
    });
  }

  Task<Result<void>> seek(Context context, std::string name, std::string group, Start start) override {
    PRISM_CO_TRY(const auto topic, co_await find(context, std::move(name)));
    PRISM_CO_CHECK(check_group(group));
    PRISM_CO_CHECK(co_await engine_->write(
        context, [topic, group, start](Connection& c) { return seek_group(c, *topic, group, start); }));
    PRISM_CO_TRY(const std::int64_t id, co_await engine_->read(Context(), [&](Connection& c) -> Result<std::int64_t> {
      PRISM_TRY(Query query, c.prepare("SELECT id FROM prism_groups WHERE topic = ?1 AND name = ?2"));
      query.bind(1, topic->id).bind_text_view(2, group);
      PRISM_CHECK(query.step());
      return query.integer(0);
    }));
    std::vector<std::shared_ptr<Consumer>> here;
    {
      const std::lock_guard lock(topic->mutex);
      for (const auto& weak : topic->consumers) {
        if (auto consumer = weak.lock(); consumer && consumer->group() == id) here.push_back(std::move(consumer));
      }
    }
    for (const auto& consumer : here) consumer->moved();
    co_return Result<void>();
  }

  Task<Result<Position>> end(Context context, std::string name) override {
    PRISM_CO_TRY(const auto topic, co_await find(context, std::move(name)));
    co_return co_await engine_->read(context, [&](Connection& c) -> Result<Position> {
      Position position;
      for (std::uint32_t p = 0; p < topic->partitions; ++p) {
        PRISM_TRY(const std::uint64_t end, end_offset(c, *topic, p));
        if (end != 0) position.merge(topic->position(p, end - 1));
      }
      return position;
    });
  }

  Task<void> close(Context /*context*/) override {
    closed_.store(true);
    scope_.request_stop();
    co_await scope_.join();
  }

 private:
  Result<void> open() const {
    if (!closed_.load()) return {};
    return fail(Code::unavailable, "LOG_CLOSED", "the log has been closed", "", Retry::safe);
  }
  static Result<void> check_group(const std::string& group) {
    if (!group.empty() && group.size() <= kMaxNameBytes) return {};
    return fail(Code::invalid_argument, "INVALID_GROUP",
                "a consumer group's name has 1 to " + std::to_string(kMaxNameBytes) + " bytes");
  }

  // Topics do not change: what was found once is kept.
  Task<Result<std::shared_ptr<Topic>>> find(Context context, std::string name) {
    PRISM_CO_CHECK(open());
    {
      const std::lock_guard lock(mutex_);
      if (const auto it = topics_.find(name); it != topics_.end()) co_return it->second;
    }
    PRISM_CO_TRY(auto loaded, co_await engine_->read(context, [&](Connection& c) { return load_topics(c, name); }));
    if (loaded.empty()) co_return fail(topic_not_found(name));
    const std::lock_guard lock(mutex_);
    co_return topics_.emplace(std::move(name), std::move(loaded.front())).first->second;
  }

  // Tells those who wait for records of what other processes append.
  static Task<void> forward(SqliteEventLog* self) {
    const Context context = Context::background(self->scope_.stop_token());
    Notifier& foreign = self->engine_->foreign_commits();
    std::uint64_t seen = foreign.version();
    while (!context.stopped()) {
      seen = co_await foreign.wait(context, seen, std::chrono::hours(1));
      std::vector<std::shared_ptr<Topic>> topics;
      {
        const std::lock_guard lock(self->mutex_);
        for (const auto& [name, topic] : self->topics_) topics.push_back(topic);
      }
      CompletionBatch batch;
      for (const auto& topic : topics) topic->wake_all(batch);
    }
  }

  const std::shared_ptr<Engine> engine_;
  const EventLogOptions options_;
  LogFeatures features_;
  std::atomic<bool> closed_{false};
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<Topic>, std::less<>> topics_;  // guarded by mutex_
  Scope scope_;
};

}  // namespace

Task<Result<std::shared_ptr<EventLog>>> open_event_log(std::shared_ptr<Engine> engine, EventLogOptions options) {
  options.partitions = std::clamp(options.partitions, 1U, kMaxPartitions);
  PRISM_CO_CHECK(co_await engine->write(
      Context(),
      [](Connection& c) -> Result<void> {
        PRISM_CHECK(c.execute(kLogSchema));
        return c.execute(kGroupSchema);
      },
      false));
  auto log = std::make_shared<SqliteEventLog>(std::move(engine), options);
  log->start();
  co_return log;
}

}  // namespace prism::sqlite
