#include "backends/sqlite/group_consumer.h"

#include <algorithm>
#include <limits>

#include "base/varint.h"

namespace prism::sqlite {

const char* const kGroupSchema =
    "CREATE TABLE IF NOT EXISTS prism_groups(id INTEGER PRIMARY KEY, topic INTEGER NOT NULL, name TEXT NOT NULL, "
    "generation INTEGER NOT NULL, UNIQUE(topic, name)) STRICT;"
    // expires: microseconds since 1970
    "CREATE TABLE IF NOT EXISTS prism_members(grp INTEGER NOT NULL, member TEXT NOT NULL, client TEXT NOT NULL, "
    "expires INTEGER NOT NULL, PRIMARY KEY(grp, member)) STRICT, WITHOUT ROWID;"
    // All records below acked_below are acknowledged, and those of the ranges in `acked`.
    "CREATE TABLE IF NOT EXISTS prism_progress(grp INTEGER NOT NULL, partition INTEGER NOT NULL, owner TEXT, "
    "epoch INTEGER NOT NULL, acked_below INTEGER NOT NULL, acked BLOB NOT NULL, delivered_below INTEGER NOT NULL, "
    "attempts BLOB NOT NULL, PRIMARY KEY(grp, partition)) STRICT, WITHOUT ROWID;";

namespace {

constexpr auto kSyncRetry = std::chrono::milliseconds(500);
constexpr auto kNoteDeliveriesAfter = std::chrono::milliseconds(200);
constexpr std::size_t kMaxDeliveries = 10000;  // of one receive()

std::int64_t micros(WallTime t) { return t.time_since_epoch().count(); }

struct Token {
  std::uint64_t nonce;
  std::uint64_t partition;
  std::uint64_t epoch;
  std::uint64_t serial;
  std::uint64_t offset;
};

std::optional<Token> parse_token(std::string_view text) noexcept {
  const auto nonce = take_varint(text);
  const auto partition = nonce ? take_varint(text) : std::nullopt;
  const auto epoch = partition ? take_varint(text) : std::nullopt;
  const auto serial = epoch ? take_varint(text) : std::nullopt;
  const auto offset = serial ? take_varint(text) : std::nullopt;
  if (!offset || !text.empty()) return std::nullopt;
  return Token{*nonce, *partition, *epoch, *serial, *offset};
}

// Saved with every change of owner, so that what only memory knew (deliveries since the last write) is not lost.
struct Saved {
  std::uint32_t partition;
  std::uint64_t epoch;
  std::uint64_t acked_below;
  std::string acked;
  std::uint64_t delivered_below;
  std::string attempts;

  Saved(std::uint32_t p, const DeliveryWindow& window)
      : partition(p),
        epoch(window.epoch()),
        acked_below(window.progress().acked.below()),
        acked(window.progress().acked.encode_ranges()),
        delivered_below(std::max(window.progress().delivered_below, window.progress().acked.below())),
        attempts(window.progress().encode_attempts()) {}

  // False: the partition is not `member`'s of this epoch any more, and nothing is changed.
  Result<bool> write(Connection& connection, std::int64_t group, const std::string& member, bool keep_owner) const {
    PRISM_TRY(
        Query query,
        connection.prepare(
            keep_owner ? "UPDATE prism_progress SET acked_below = ?1, acked = ?2, delivered_below = ?3, attempts = ?4 "
                         "WHERE grp = ?5 AND partition = ?6 AND owner = ?7 AND epoch = ?8"
                       : "UPDATE prism_progress SET acked_below = ?1, acked = ?2, delivered_below = ?3, attempts = ?4, "
                         "owner = NULL WHERE grp = ?5 AND partition = ?6 AND owner = ?7 AND epoch = ?8"));
    query.bind(1, static_cast<std::int64_t>(acked_below)).bind_blob_view(2, acked);
    query.bind(3, static_cast<std::int64_t>(delivered_below)).bind_blob_view(4, attempts);
    query.bind(5, group).bind(6, static_cast<std::int64_t>(partition)).bind_text_view(7, member);
    query.bind(8, static_cast<std::int64_t>(epoch));
    PRISM_CHECK(query.run());
    return connection.changes() != 0;
  }
};

Result<void> bump_generation(Connection& connection, std::int64_t group) {
  PRISM_TRY(Query query, connection.prepare("UPDATE prism_groups SET generation = generation + 1 WHERE id = ?1"));
  query.bind(1, group);
  return query.run();
}

}  // namespace

Result<std::int64_t> ensure_group(Connection& connection, const Topic& topic, const std::string& group,
                                  const Start& start) {
  {
    PRISM_TRY(Query insert,
              connection.prepare(
                  "INSERT INTO prism_groups(topic, name, generation) VALUES(?1, ?2, 0) ON CONFLICT DO NOTHING"));
    insert.bind(1, topic.id).bind_text_view(2, group);
    PRISM_CHECK(insert.run());
  }
  const bool fresh = connection.changes() != 0;
  std::int64_t id = 0;
  {
    PRISM_TRY(Query select, connection.prepare("SELECT id FROM prism_groups WHERE topic = ?1 AND name = ?2"));
    select.bind(1, topic.id).bind_text_view(2, group);
    PRISM_CHECK(select.step());
    id = select.integer(0);
  }
  if (!fresh) return id;
  for (std::uint32_t p = 0; p < topic.partitions; ++p) {
    PRISM_TRY(const std::uint64_t from, resolve(connection, topic, p, start));
    PRISM_TRY(Query insert, connection.prepare("INSERT INTO prism_progress VALUES(?1, ?2, NULL, 1, ?3, x'', ?3, x'')"));
    insert.bind(1, id).bind(2, static_cast<std::int64_t>(p)).bind(3, static_cast<std::int64_t>(from));
    PRISM_CHECK(insert.run());
  }
  return id;
}

Result<void> seek_group(Connection& connection, const Topic& topic, const std::string& group, const Start& start) {
  PRISM_TRY(const std::int64_t id, ensure_group(connection, topic, group, start));
  for (std::uint32_t p = 0; p < topic.partitions; ++p) {
    PRISM_TRY(const std::uint64_t from, resolve(connection, topic, p, start));
    PRISM_TRY(Query update,
              connection.prepare("UPDATE prism_progress SET epoch = epoch + 1, acked_below = ?1, acked = x'', "
                                 "delivered_below = ?1, attempts = x'' WHERE grp = ?2 AND partition = ?3"));
    update.bind(1, static_cast<std::int64_t>(from)).bind(2, id).bind(3, static_cast<std::int64_t>(p));
    PRISM_CHECK(update.run());
  }
  return bump_generation(connection, id);
}

// --- operations ---

class Consumer::SyncOp final : public WriteOp {
 public:
  explicit SyncOp(std::shared_ptr<Consumer> consumer) : shot(&consumer->engine_.loop()), c_(std::move(consumer)) {}
  bool begin() noexcept override {
    (void)shot.begin();  // a heartbeat is wanted whoever waits for it
    return true;
  }

  Result<void> execute(Connection& connection) override {
    mine_.clear();
    draining_.clear();
    changed_ = false;
    if (c_->left_.load()) return {};
    struct Held {
      Saved saved;
      bool movable;
    };
    std::map<std::uint32_t, Held> held;
    const auto now = Clock::now();
    {
      const std::lock_guard lock(c_->mutex_);
      for (const auto& [p, owned] : c_->owned_) {
        const bool movable = owned.window.in_flight() == 0 || (owned.drain_until && *owned.drain_until <= now);
        held.emplace(p, Held{Saved(p, owned.window), movable});
      }
    }
    const WallTime wall = wall_now();
    PRISM_CHECK(renew(connection, wall));
    PRISM_TRY(const auto members, living(connection, wall));
    PRISM_CHECK(load(connection, members));

    const auto me = static_cast<std::size_t>(std::find(members.begin(), members.end(), c_->member_) - members.begin());
    const std::size_t share = all_.size() / members.size() + (me < all_.size() % members.size() ? 1 : 0);
    std::vector<Row*> owned;
    std::vector<Row*> free;
    for (Row& row : all_) {
      if (row.mine) owned.push_back(&row);
      if (row.free) free.push_back(&row);
    }
    for (std::size_t i = 0; owned.size() < share && i < free.size(); ++i) {
      PRISM_CHECK(take(connection, *free[i]));
      owned.push_back(free[i]);
    }
    if (owned.size() > share) {
      // Those without deliveries under way first.
      const auto movable = [&](const Row* row) {
        const auto it = held.find(row->partition);
        return it == held.end() || it->second.saved.epoch != row->epoch || it->second.movable;
      };
      std::stable_partition(owned.begin(), owned.end(), movable);
      for (std::size_t i = 0; i < owned.size() - share; ++i) {
        Row& row = *owned[i];
        if (!movable(&row)) {
          draining_.push_back(row.partition);
          continue;
        }
        const auto it = held.find(row.partition);
        PRISM_CHECK(release(connection, row, it != held.end() ? &it->second.saved : nullptr));
        row.mine = false;
      }
    }
    if (changed_) PRISM_CHECK(bump_generation(connection, c_->group_));
    PRISM_TRY(Query select, connection.prepare("SELECT generation FROM prism_groups WHERE id = ?1"));
    select.bind(1, c_->group_);
    PRISM_CHECK(select.step());
    generation_ = select.integer(0);
    for (Row& row : all_) {
      if (row.mine) mine_.push_back(std::move(row));
    }
    return {};
  }

  void committed(CompletionBatch& batch) noexcept override {
    const auto now = Clock::now();
    if (!c_->left_.load()) {
      const std::lock_guard lock(c_->mutex_);
      std::map<std::uint32_t, Owned> kept;
      for (Row& row : mine_) {
        const auto it = c_->owned_.find(row.partition);
        if (it != c_->owned_.end() && it->second.window.epoch() == row.epoch) {
          kept.insert(c_->owned_.extract(it));
        } else {
          kept.emplace(row.partition,
                       Owned{.window = DeliveryWindow(row.epoch, std::move(row.progress), c_->limits())});
        }
      }
      c_->owned_ = std::move(kept);
      c_->next_sync_ = now + c_->options_.heartbeat;
      if (next_expiry_) {
        const auto left = std::chrono::microseconds(*next_expiry_ - micros(wall_now())) + std::chrono::milliseconds(5);
        c_->next_sync_ = std::min(c_->next_sync_, now + std::max<Clock::duration>(left, std::chrono::milliseconds(1)));
      }
      for (auto& [p, owned] : c_->owned_) {
        if (std::find(draining_.begin(), draining_.end(), p) == draining_.end()) {
          owned.drain_until.reset();
        } else {
          if (!owned.drain_until) owned.drain_until = now + c_->options_.drain;
          c_->next_sync_ = std::min(c_->next_sync_, *owned.drain_until);
        }
      }
      c_->generation_ = generation_;
      c_->update_mask();
    }
    c_->listener_->wake.notify_into(batch);
    if (changed_) c_->wake_peers(batch);
    batch.add(shot.complete(Result<void>()));
  }

  void failed(Error error, CompletionBatch& batch) noexcept override {
    {
      const std::lock_guard lock(c_->mutex_);
      c_->next_sync_ = Clock::now() + std::min<Clock::duration>(kSyncRetry, c_->options_.heartbeat);
    }
    batch.add(shot.complete(std::unexpected(std::move(error))));
  }

  OneShot<Result<void>> shot;

 private:
  struct Row {
    std::uint32_t partition = 0;
    std::uint64_t epoch = 0;
    Progress progress;
    bool mine = false;
    bool free = false;
  };

  Result<void> renew(Connection& connection, WallTime wall) {
    const auto expires =
        micros(wall + std::chrono::duration_cast<std::chrono::microseconds>(c_->options_.session_timeout));
    {
      PRISM_TRY(Query update,
                connection.prepare("UPDATE prism_members SET expires = ?1 WHERE grp = ?2 AND member = ?3"));
      update.bind(1, expires).bind(2, c_->group_).bind_text_view(3, c_->member_);
      PRISM_CHECK(update.run());
    }
    if (connection.changes() != 0) return {};
    changed_ = true;
    PRISM_TRY(Query insert, connection.prepare("INSERT INTO prism_members VALUES(?1, ?2, ?3, ?4)"));
    insert.bind(1, c_->group_).bind_text_view(2, c_->member_).bind_text_view(3, c_->spec_.client).bind(4, expires);
    return insert.run();
  }

  Result<std::vector<std::string>> living(Connection& connection, WallTime wall) {
    {
      PRISM_TRY(Query remove, connection.prepare("DELETE FROM prism_members WHERE grp = ?1 AND expires < ?2"));
      remove.bind(1, c_->group_).bind(2, micros(wall));
      PRISM_CHECK(remove.run());
    }
    if (connection.changes() != 0) changed_ = true;
    std::vector<std::string> members;
    next_expiry_.reset();
    PRISM_TRY(Query select,
              connection.prepare("SELECT member, expires FROM prism_members WHERE grp = ?1 ORDER BY member"));
    select.bind(1, c_->group_);
    while (true) {
      PRISM_TRY(const bool row, select.step());
      if (!row) return members;
      members.emplace_back(select.text(0));
      if (members.back() != c_->member_) next_expiry_ = std::min(next_expiry_.value_or(INT64_MAX), select.integer(1));
    }
  }

  Result<void> load(Connection& connection, const std::vector<std::string>& members) {
    all_.clear();
    PRISM_TRY(Query select,
              connection.prepare("SELECT partition, owner, epoch, acked_below, acked, delivered_below, attempts "
                                 "FROM prism_progress WHERE grp = ?1 ORDER BY partition"));
    select.bind(1, c_->group_);
    while (true) {
      PRISM_TRY(const bool more, select.step());
      if (!more) return {};
      Row row;
      row.partition = static_cast<std::uint32_t>(select.integer(0));
      const auto owner = select.text(1);
      row.epoch = static_cast<std::uint64_t>(select.integer(2));
      row.mine = owner == c_->member_;
      row.free = owner.empty() || std::find(members.begin(), members.end(), owner) == members.end();
      auto progress = Progress::decode(static_cast<std::uint64_t>(select.integer(3)), select.blob(4),
                                       static_cast<std::uint64_t>(select.integer(5)), select.blob(6));
      if (!progress) {
        return fail(corrupt(connection.handle(), "the progress of a consumer group cannot be decoded"));
      }
      row.progress = std::move(*progress);
      all_.push_back(std::move(row));
    }
  }

  Result<void> take(Connection& connection, Row& row) {
    PRISM_TRY(Query update,
              connection.prepare(
                  "UPDATE prism_progress SET owner = ?1, epoch = epoch + 1 WHERE grp = ?2 AND partition = ?3"));
    update.bind_text_view(1, c_->member_).bind(2, c_->group_).bind(3, static_cast<std::int64_t>(row.partition));
    PRISM_CHECK(update.run());
    ++row.epoch;
    row.mine = true;
    return {};
  }

  Result<void> release(Connection& connection, const Row& row, const Saved* saved) {
    changed_ = true;
    if (saved != nullptr && saved->epoch == row.epoch) {
      PRISM_CHECK(saved->write(connection, c_->group_, c_->member_, false));
      return {};
    }
    PRISM_TRY(Query update,
              connection.prepare("UPDATE prism_progress SET owner = NULL WHERE grp = ?1 AND partition = ?2"));
    update.bind(1, c_->group_).bind(2, static_cast<std::int64_t>(row.partition));
    return update.run();
  }

  const std::shared_ptr<Consumer> c_;
  std::vector<Row> all_;
  std::vector<Row> mine_;
  std::vector<std::uint32_t> draining_;
  std::optional<std::int64_t> next_expiry_;
  std::int64_t generation_ = 0;
  bool changed_ = false;
};

class Consumer::SettleOp final : public WriteOp {
 public:
  struct Ack {
    std::uint64_t offset;
    std::size_t index;  // of the settle
  };
  struct Part {
    std::uint32_t partition = 0;
    std::uint64_t epoch = 0;
    std::vector<Ack> acks;
    bool stale = false;
    std::uint64_t version = 0;
  };

  explicit SettleOp(std::shared_ptr<Consumer> consumer) : shot(&consumer->engine_.loop()), c_(std::move(consumer)) {}
  std::size_t bytes() const noexcept override { return 512 + acks_ * sizeof(Ack); }
  bool begin() noexcept override {
    (void)shot.begin();  // the acks stand, whoever waits for them
    return true;
  }

  Part& part(std::uint32_t partition, std::uint64_t epoch) {
    for (Part& p : parts) {
      if (p.partition == partition) return p;
    }
    parts.push_back({.partition = partition, .epoch = epoch});
    return parts.back();
  }
  void add(std::uint32_t partition, std::uint64_t epoch, Ack ack) {
    part(partition, epoch).acks.push_back(ack);
    ++acks_;
  }

  Result<void> execute(Connection& connection) override {
    const std::uint64_t transaction = c_->engine_.transaction();
    for (Part& part : parts) {
      std::optional<Saved> saved;
      {
        const std::lock_guard lock(c_->mutex_);
        Owned* const owned = c_->find(part.partition, part.epoch);
        part.stale = owned == nullptr;
        if (part.stale) continue;
        for (const Ack& ack : part.acks) owned->window.record_ack(ack.offset);
        part.version = owned->window.version();
        if (owned->written_transaction == transaction && owned->written_version == part.version) continue;
        saved.emplace(part.partition, owned->window);
      }
      PRISM_TRY(const bool mine, saved->write(connection, c_->group_, c_->member_, true));
      const std::lock_guard lock(c_->mutex_);
      Owned* const owned = c_->find(part.partition, part.epoch);
      if (owned == nullptr) continue;
      if (mine) {
        owned->written_transaction = transaction;
        owned->written_version = part.version;
      } else {
        part.stale = true;
        c_->owned_.erase(part.partition);
        c_->update_mask();
        c_->sync_wanted_.store(true);
      }
    }
    return {};
  }

  void committed(CompletionBatch& batch) noexcept override {
    bool drained = c_->sync_wanted_.load();
    {
      const std::lock_guard lock(c_->mutex_);
      for (Part& part : parts) {
        Owned* const owned = part.stale ? nullptr : c_->find(part.partition, part.epoch);
        if (owned == nullptr) continue;
        for (const Ack& ack : part.acks) owned->window.finish_ack(ack.offset);
        owned->durable_version = std::max(owned->durable_version, part.version);
        if (owned->drain_until && owned->window.in_flight() == 0) drained = true;
      }
    }
    c_->listener_->wake.notify_into(batch);
    if (drained) {
      c_->sync_wanted_.store(true);
      c_->keeper_.notify_into(batch);
    }
    batch.add(shot.complete(Result<void>()));
  }

  void failed(Error error, CompletionBatch& batch) noexcept override {
    undo();
    c_->listener_->wake.notify_into(batch);
    batch.add(shot.complete(std::unexpected(std::move(error))));
  }

  void undo() {
    const std::lock_guard lock(c_->mutex_);
    for (Part& part : parts) {
      Owned* const owned = part.stale ? nullptr : c_->find(part.partition, part.epoch);
      if (owned == nullptr) continue;
      for (const Ack& ack : part.acks) owned->window.cancel_ack(ack.offset, Clock::now());
    }
  }

  std::vector<Part> parts;
  OneShot<Result<void>> shot;

 private:
  const std::shared_ptr<Consumer> c_;
  std::size_t acks_ = 0;
};

class Consumer::LeaveOp final : public WriteOp {
 public:
  explicit LeaveOp(std::shared_ptr<Consumer> consumer) : shot(&consumer->engine_.loop()), c_(std::move(consumer)) {}
  bool begin() noexcept override {
    (void)shot.begin();
    return true;
  }

  Result<void> execute(Connection& connection) override {
    std::vector<Saved> all;
    {
      const std::lock_guard lock(c_->mutex_);
      for (const auto& [p, owned] : c_->owned_) all.emplace_back(p, owned.window);
    }
    for (const Saved& saved : all) PRISM_CHECK(saved.write(connection, c_->group_, c_->member_, false));
    for (const char* sql : {"UPDATE prism_progress SET owner = NULL WHERE grp = ?1 AND owner = ?2",
                            "DELETE FROM prism_members WHERE grp = ?1 AND member = ?2"}) {
      PRISM_TRY(Query query, connection.prepare(sql));
      query.bind(1, c_->group_).bind_text_view(2, c_->member_);
      PRISM_CHECK(query.run());
    }
    return bump_generation(connection, c_->group_);
  }
  void committed(CompletionBatch& batch) noexcept override { finish(batch); }
  // Its session will end by itself.
  void failed(Error /*error*/, CompletionBatch& batch) noexcept override { finish(batch); }

  OneShot<void> shot;

 private:
  void finish(CompletionBatch& batch) {
    {
      const std::lock_guard lock(c_->mutex_);
      c_->owned_.clear();
      c_->update_mask();
    }
    c_->listener_->wake.notify_into(batch);
    c_->wake_peers(batch);
    batch.add(shot.complete());
  }
  const std::shared_ptr<Consumer> c_;
};

// --- the consumer ---

Consumer::Consumer(Engine& engine, std::shared_ptr<Topic> topic, std::int64_t group, GroupSpec spec,
                   const EventLogOptions& options)
    : engine_(engine),
      topic_(std::move(topic)),
      group_(group),
      spec_(std::move(spec)),
      options_(options),
      member_(uuid7()),
      nonce_(static_cast<std::uint16_t>(hash_key(member_) & 0x3fff)),
      listener_(std::make_shared<Listener>(engine.loop())),
      keeper_(engine.loop()) {}

void Consumer::attach() {
  topic_->listen(listener_);
  const std::lock_guard lock(topic_->mutex);
  topic_->consumers.push_back(weak_from_this());
}

DeliveryWindow::Limits Consumer::limits() const {
  DeliveryWindow::Limits limits;
  limits.max_per_key = std::max<std::size_t>(spec_.max_per_key, 1);
  limits.ack_deadline = spec_.ack_deadline;
  return limits;
}

Consumer::Owned* Consumer::find(std::uint32_t partition, std::uint64_t epoch) {
  const auto it = owned_.find(partition);
  return it != owned_.end() && it->second.window.epoch() == epoch ? &it->second : nullptr;
}

void Consumer::update_mask() {
  std::uint64_t mask = 0;
  for (const auto& [p, owned] : owned_) mask |= 1ULL << (p % 64);
  listener_->mask.store(mask, std::memory_order_release);
}

void Consumer::members_changed(CompletionBatch& batch) {
  sync_wanted_.store(true);
  keeper_.notify_into(batch);
}

void Consumer::moved() {
  {
    const std::lock_guard lock(mutex_);
    owned_.clear();
    update_mask();
  }
  CompletionBatch batch;
  members_changed(batch);
  listener_->wake.notify_into(batch);
}

void Consumer::abandon() {
  abandoned_.store(true);
  keeper_.notify();
}

void Consumer::wake_peers(CompletionBatch& batch) {
  const std::lock_guard lock(topic_->mutex);
  for (const auto& weak : topic_->consumers) {
    const auto peer = weak.lock();
    if (peer && peer.get() != this && peer->group_ == group_) peer->members_changed(batch);
  }
}

std::string Consumer::make_token(std::uint32_t partition, std::uint64_t offset, std::uint64_t epoch,
                                 std::uint32_t serial) const {
  std::string token;
  put_varint(token, nonce_);
  put_varint(token, partition);
  put_varint(token, epoch);
  put_varint(token, serial);
  put_varint(token, offset);
  return token;
}

Task<Result<void>> Consumer::sync(std::shared_ptr<Consumer> self, Context context) {
  self->sync_wanted_.store(false);
  auto op = std::make_shared<SyncOp>(self);
  if (auto queued = self->engine_.submit(op); !queued) {
    const std::lock_guard lock(self->mutex_);
    self->next_sync_ = Clock::now() + std::min<Clock::duration>(kSyncRetry, self->options_.heartbeat);
    co_return std::unexpected(std::move(queued).error());
  }
  if (co_await op->shot.wait(context.stop()) != Outcome::done) co_return fail(context.over(false));
  co_return op->shot.take();
}

Clock::duration Consumer::until_due(Clock::time_point now) {
  const std::lock_guard lock(mutex_);
  auto due = next_sync_;
  if (write_due_) due = std::min(due, *write_due_);
  return std::max(due - now, Clock::duration::zero());
}

bool Consumer::has_unwritten() {
  const std::lock_guard lock(mutex_);
  return std::any_of(owned_.begin(), owned_.end(),
                     [](const auto& o) { return o.second.durable_version != o.second.window.version(); });
}

Task<void> Consumer::keep(std::shared_ptr<Consumer> self, std::stop_token stop) {
  const Context context = Context::background(stop);
  while (!stop.stop_requested() && !self->left_.load() && !self->abandoned_.load()) {
    const std::uint64_t seen = self->keeper_.version();
    const auto now = Clock::now();
    bool sync_due;
    bool write_due;
    {
      const std::lock_guard lock(self->mutex_);
      sync_due = self->sync_wanted_.load() || self->next_sync_ <= now;
      write_due = self->write_due_ && *self->write_due_ <= now;
      if (write_due) self->write_due_.reset();
    }
    if (write_due && self->has_unwritten()) {
      auto op = std::make_shared<SettleOp>(self);
      {
        const std::lock_guard lock(self->mutex_);
        for (const auto& [p, owned] : self->owned_) {
          if (owned.durable_version != owned.window.version()) op->part(p, owned.window.epoch());
        }
      }
      if (self->engine_.submit(op)) co_await op->shot.wait({});
    }
    if (sync_due) {
      (void)co_await sync(self, context);  // it is tried again when next_sync_ says so
      continue;
    }
    co_await self->keeper_.wait(context, seen, self->until_due(Clock::now()));
  }
  co_await leave(self);
}

Task<void> Consumer::leave(std::shared_ptr<Consumer> self) {
  if (self->left_.exchange(true)) co_return;
  self->keeper_.notify();
  auto op = std::make_shared<LeaveOp>(self);
  if (self->engine_.submit(op)) co_await op->shot.wait({});
  self->topic_->unlisten(self->listener_);
  const std::lock_guard lock(self->topic_->mutex);
  std::erase_if(self->topic_->consumers,
                [&](const std::weak_ptr<Consumer>& w) { return w.expired() || w.lock() == self; });
}

// --- receive ---

Consumer::Plan Consumer::plan(std::size_t max, std::size_t max_bytes, Clock::time_point now) {
  const std::lock_guard lock(mutex_);
  Plan plan;
  std::size_t in_flight = 0;
  std::size_t in_flight_bytes = 0;
  for (const auto& [p, owned] : owned_) {
    in_flight += owned.window.in_flight();
    in_flight_bytes += owned.window.in_flight_bytes();
  }
  plan.budget = {.count = max,
                 .bytes = max_bytes,
                 .credit = spec_.max_bytes - std::min(spec_.max_bytes, in_flight_bytes),
                 .nothing_in_flight = in_flight == 0};
  plan.foreign = engine_.foreign_generation();
  plan.check_ends = plan.foreign != foreign_seen_ ||
                    std::any_of(owned_.begin(), owned_.end(), [](const auto& o) { return !o.second.end_known; });
  plan.anything = plan.check_ends;
  DeliveryBudget left = plan.budget;
  bool suffices = true;
  // Another partition comes first each time.
  auto it = owned_.begin();
  if (!owned_.empty()) std::advance(it, rotation_++ % owned_.size());
  for (std::size_t i = 0; i < owned_.size(); ++i) {
    auto& [p, owned] = *it;
    if (++it == owned_.end()) it = owned_.begin();
    if (owned.drain_until) continue;
    owned.window.tick(now);
    Plan::Part part{p, owned.window.epoch(), {}, owned.window.may_fetch(), owned.window.next_fetch()};
    suffices = owned.window.wanted(left, now, part.wanted) && suffices;
    plan.anything = plan.anything || !part.wanted.empty();
    plan.parts.push_back(std::move(part));
  }
  // What is known comes before what is new: otherwise a large record would never find room beside small ones.
  const bool fetch = suffices && left.allows(1);
  for (Plan::Part& part : plan.parts) {
    part.fetch = part.fetch && fetch;
    if (part.fetch && part.from < topic_->ends[part.partition].load(std::memory_order_acquire)) plan.anything = true;
  }
  return plan;
}

Result<Consumer::Pass> Consumer::run(Connection& connection, Plan& plan) {
  // Before the snapshot is taken, by the first query: what is committed up to here, the snapshot holds; a record that
  // it does not hold must never be taken for one that does not exist any more.
  std::vector<std::uint64_t> ends;
  for (const Plan::Part& part : plan.parts)
    ends.push_back(topic_->ends[part.partition].load(std::memory_order_acquire));
  std::int64_t generation = 0;
  if (plan.check_ends) {
    PRISM_TRY(Query select, connection.prepare("SELECT generation FROM prism_groups WHERE id = ?1"));
    select.bind(1, group_);
    PRISM_CHECK(select.step());
    generation = select.integer(0);
    for (std::size_t i = 0; i < plan.parts.size(); ++i) {
      PRISM_TRY(ends[i], end_offset(connection, *topic_, plan.parts[i].partition));
      topic_->note_end(plan.parts[i].partition, ends[i]);
    }
  }
  struct Fetched {
    std::size_t begin = 0;  // of items
    std::size_t end = 0;
    std::optional<std::uint64_t> read_to;
  };
  RecordBatch raw;
  std::vector<Fetched> fetched(plan.parts.size());
  std::size_t count = plan.budget.count;
  std::size_t bytes = std::min(plan.budget.bytes, std::max<std::size_t>(plan.budget.credit, 1));
  for (const Plan::Part& part : plan.parts) {
    PRISM_CHECK(raw.read(connection, *topic_, part.partition, part.wanted));
    count -= std::min(count, part.wanted.size());
  }
  const std::size_t known = raw.size();
  for (std::size_t i = 0; i < plan.parts.size(); ++i) {
    const Plan::Part& part = plan.parts[i];
    fetched[i].begin = fetched[i].end = raw.size();
    if (!part.fetch || count == 0 || bytes == 0 || part.from >= ends[i]) continue;
    PRISM_TRY(const bool all, raw.read(connection, *topic_, part.partition, part.from, ends[i], count, bytes));
    fetched[i].end = raw.size();
    if (all) fetched[i].read_to = ends[i];
  }
  PRISM_TRY(auto items, std::move(raw).decode());

  std::unordered_map<std::int64_t, std::size_t> at_hand;
  at_hand.reserve(known);
  for (std::size_t i = 0; i < known; ++i) at_hand.emplace(topic_->seq(items[i].partition, items[i].offset), i);

  Pass pass;
  pass.deliveries.reserve(std::min(items.size(), plan.budget.count));
  bool note = false;
  {
    const std::lock_guard lock(mutex_);
    const auto now = Clock::now();
    const std::uint32_t serial = ++serial_;
    DeliveryBudget& budget = plan.budget;
    std::vector<DeliveryWindow::Handed> handed;
    const auto deliver = [&](const Plan::Part& part, RecordBatch::Item& item, std::uint32_t attempt) {
      pass.deliveries.push_back({make_token(part.partition, item.offset, part.epoch, serial), std::move(item.record),
                                 topic_->position(part.partition, item.offset), attempt});
    };
    if (plan.check_ends) {
      foreign_seen_ = plan.foreign;
      if (generation != generation_) sync_wanted_.store(true);
    }
    std::vector<Owned*> owned(plan.parts.size());
    for (std::size_t i = 0; i < plan.parts.size(); ++i) {
      const Plan::Part& part = plan.parts[i];
      owned[i] = find(part.partition, part.epoch);
      if (owned[i] != nullptr && plan.check_ends) owned[i]->end_known = true;
      if (owned[i] != nullptr && owned[i]->drain_until) owned[i] = nullptr;
      if (owned[i] == nullptr) continue;
      DeliveryWindow& window = owned[i]->window;
      for (const std::uint64_t offset : part.wanted) {
        if (!at_hand.contains(topic_->seq(part.partition, offset))) window.gone(offset);
      }
      handed.clear();
      window.deliver_ready(
          budget, now, serial,
          [&](std::uint64_t offset) { return at_hand.contains(topic_->seq(part.partition, offset)); }, handed);
      for (const auto& h : handed) deliver(part, items[at_hand.at(topic_->seq(part.partition, h.offset))], h.attempt);
      if (handed.empty()) continue;
      const auto [first, last] = std::minmax_element(handed.begin(), handed.end(),
                                                     [](const auto& a, const auto& b) { return a.offset < b.offset; });
      window.delivered(first->offset, last->offset, now);
    }
    for (std::size_t i = 0; i < plan.parts.size(); ++i) {
      if (owned[i] == nullptr) continue;
      const Plan::Part& part = plan.parts[i];
      DeliveryWindow& window = owned[i]->window;
      handed.clear();
      for (std::size_t n = fetched[i].begin; n < fetched[i].end; ++n) {
        RecordBatch::Item& item = items[n];
        const std::uint64_t key = item.record.key.empty() ? 0 : std::max<std::uint64_t>(hash_key(item.record.key), 1);
        if (window.fetched(item.offset, key, record_bytes(item.record), budget, now, serial, handed)) {
          deliver(part, item, handed.back().attempt);
        }
        pass.progressed = true;
      }
      if (fetched[i].read_to && *fetched[i].read_to > window.next_fetch()) {
        window.gone_below(*fetched[i].read_to);
        pass.progressed = true;
      }
      if (!handed.empty()) window.delivered(handed.front().offset, handed.back().offset, now);
    }
    if (!pass.deliveries.empty() && !write_due_) {
      write_due_ = now + kNoteDeliveriesAfter;
      note = true;
    }
  }
  if (note) keeper_.notify();
  return pass;
}

std::optional<Clock::time_point> Consumer::next_tick() {
  const std::lock_guard lock(mutex_);
  std::optional<Clock::time_point> next;
  for (auto& [p, owned] : owned_) {
    if (owned.drain_until) continue;
    const auto at = owned.window.next_tick();
    if (at && (!next || *at < *next)) next = at;
  }
  return next;
}

Task<Result<Batch<Delivery>>> Consumer::receive(std::shared_ptr<Consumer> self, Context context, std::size_t max,
                                                std::size_t max_bytes) {
  max = std::clamp<std::size_t>(max, 1, kMaxDeliveries);
  std::optional<Engine::Watch> watch;
  while (true) {
    const std::uint64_t seen = self->listener_->wake.version();
    if (self->left_.load()) {
      co_return fail(Code::failed_precondition, "CONSUMER_CLOSED", "this consumer has been closed",
                     "join the group again");
    }
    if (context.stop().stop_requested()) co_return fail(context.over(false));
    if (self->sync_wanted_.load()) PRISM_CO_CHECK(co_await sync(self, context));
    Plan plan = self->plan(max, max_bytes, Clock::now());
    if (plan.anything) {
      auto pass = co_await self->engine_.read(Context(), [&](Connection& c) { return self->run(c, plan); });
      if (!pass) co_return fail(std::move(pass).error());
      if (!pass->deliveries.empty()) co_return std::move(pass->deliveries);
      if (pass->progressed || self->sync_wanted_.load()) continue;
    }
    const auto now = Clock::now();
    if (now >= context.deadline()) co_return Batch<Delivery>();
    if (!watch) watch.emplace(self->engine_);
    auto until = std::min(context.deadline(), now + std::chrono::hours(1));
    if (const auto tick = self->next_tick()) until = std::min(until, *tick);
    co_await self->listener_->wake.wait(context, seen, std::max(until - now, Clock::duration::zero()));
  }
}

Task<Batch<Settled>> Consumer::settle(std::shared_ptr<Consumer> self, Context context, Batch<Settle> settles) {
  Batch<Settled> results(settles.size(), Settled::stale);
  auto op = std::make_shared<SettleOp>(self);
  bool wake = false;
  {
    const std::lock_guard lock(self->mutex_);
    const auto now = Clock::now();
    for (std::size_t i = 0; i < settles.size(); ++i) {
      const auto token = parse_token(settles[i].token);
      if (!token || token->nonce != self->nonce_) {
        results[i] = Settled::invalid;
        continue;
      }
      const auto partition = static_cast<std::uint32_t>(token->partition);
      const auto serial = static_cast<std::uint32_t>(token->serial);
      Owned* const owned = self->find(partition, token->epoch);
      if (owned == nullptr) continue;
      const auto delay = std::max(settles[i].delay, Clock::duration::zero());
      switch (settles[i].what) {
        case Settle::Do::ack:
          if (owned->window.begin_ack(token->offset, serial)) op->add(partition, token->epoch, {token->offset, i});
          break;
        case Settle::Do::nack:
          if (!owned->window.nack(token->offset, serial, now + delay)) break;
          op->part(partition, token->epoch);
          results[i] = Settled::ok;
          wake = true;
          break;
        case Settle::Do::extend:
          if (!owned->window.extend(token->offset, serial, now + delay)) break;
          results[i] = Settled::ok;
          break;
      }
    }
  }
  if (wake) self->listener_->wake.notify();
  if (op->parts.empty()) co_return results;
  const auto answer = [&](const auto& of) {
    for (const auto& part : op->parts) {
      for (const auto& ack : part.acks) results[ack.index] = of(part);
    }
  };
  const auto unknown = [](const SettleOp::Part&) { return Settled::unknown; };
  if (!self->engine_.submit(op)) {
    op->undo();
    answer(unknown);
    co_return results;
  }
  const bool done = co_await op->shot.wait(context.stop()) == Outcome::done && op->shot.take();
  if (!done) {
    // The parts belong to the writing thread until it is through with them; what is read of them here does not change.
    answer(unknown);
  } else {
    answer([](const SettleOp::Part& part) { return part.stale ? Settled::stale : Settled::ok; });
  }
  co_return results;
}

}  // namespace prism::sqlite
