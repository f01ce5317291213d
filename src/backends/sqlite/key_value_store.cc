#include "backends/sqlite/key_value_store.h"

#include <algorithm>
#include <limits>

#include "backends/sqlite/statements.h"

namespace prism::sqlite {
namespace {

constexpr std::size_t kMaxKey = 4096;
constexpr std::size_t kMaxValue = 16UL << 20;
constexpr std::size_t kMaxScanRows = 100000;

// Versions are the file's numbers (see take_numbers): none is ever given twice.
constexpr const char* kDdl =
    "CREATE TABLE IF NOT EXISTS prism_kv (key BLOB NOT NULL PRIMARY KEY, value BLOB NOT NULL, version INTEGER NOT "
    "NULL, "
    "expires INTEGER) STRICT; "
    "CREATE INDEX IF NOT EXISTS prism_kv_expires ON prism_kv (expires) WHERE expires IS NOT NULL;";

std::int64_t micros(WallTime time) { return time.time_since_epoch().count(); }

Result<void> check(const Mutation& m) {
  if (m.key.empty() || m.key.size() > kMaxKey) {
    return fail(Code::invalid_argument, "INVALID_KEY", "a key has 1 to " + std::to_string(kMaxKey) + " bytes");
  }
  if (m.value && m.value->size() > kMaxValue) {
    return fail(
        Code::invalid_argument, "VALUE_TOO_LARGE",
        "a value of " + std::to_string(m.value->size()) + " bytes; at most " + std::to_string(kMaxValue) + " are kept",
        "keep large values in an object store");
  }
  if (m.expect && m.expect_absent) {
    return fail(Code::invalid_argument, "CONTRADICTORY_CONDITIONS",
                "a version is expected of a key that is expected to be absent");
  }
  if (m.ttl && *m.ttl <= Clock::duration(0)) {
    return fail(Code::invalid_argument, "INVALID_TTL", "the time to live must be positive");
  }
  return {};
}

// One call of apply(), on the writing thread.
class Apply {
 public:
  Apply(Connection& connection, Id128 source) : connection_(connection), source_(source), now_(micros(wall_now())) {}

  Result<Batch<Result<Written>>> run(const Batch<Mutation>& mutations) {
    Batch<Result<Written>> out;
    out.reserve(mutations.size());
    for (const auto& mutation : mutations) {
      auto written = one(mutation, mutations.size());
      if (!written && broken(written.error())) return fail(std::move(written).error());
      out.push_back(std::move(written));
    }
    PRISM_CHECK(remove_expired(static_cast<std::int64_t>(16 + 2 * mutations.size())));
    // Every entry is at the end of the group: a position between two of them could be seen by nobody.
    for (auto& written : out) {
      if (written) written->at = Position(PositionPart{.source = source_, .partition = 0, .offset = last_});
    }
    return out;
  }

 private:
  // Anything but a refused entry ends the whole group.
  static bool broken(const Error& error) {
    return error.code != Code::invalid_argument && error.reason != "VERSION_MISMATCH" &&
           error.reason != "ALREADY_EXISTS";
  }

  Result<Written> one(const Mutation& m, std::size_t reserve) {
    PRISM_CHECK(check(m));
    if (m.expect || m.expect_absent) {
      PRISM_TRY(Query query, connection_.prepare(
                                 "SELECT version FROM prism_kv WHERE key = ?1 AND (expires IS NULL OR expires > ?2)"));
      query.bind_blob_view(1, m.key).bind(2, now_);
      PRISM_TRY(const bool present, query.step());
      if (m.expect_absent && present) return fail(Code::already_exists, "ALREADY_EXISTS", "the key exists");
      if (m.expect && (!present || query.integer(0) != static_cast<std::int64_t>(m.expect->value))) {
        return fail(Code::aborted, "VERSION_MISMATCH",
                    present ? "the entry has been changed" : "the entry does not exist (any more)",
                    "read it again and repeat the change");
      }
    }
    if (next_ == 0) {
      PRISM_TRY(last_, take_numbers(connection_, reserve));
      next_ = last_ - reserve + 1;
    }
    const std::uint64_t version = next_++;
    if (m.value) {
      PRISM_TRY(Query query,
                connection_.prepare("INSERT INTO prism_kv (key, value, version, expires) VALUES (?1, ?2, ?3, ?4) "
                                    "ON CONFLICT (key) DO UPDATE SET value = excluded.value, "
                                    "version = excluded.version, expires = excluded.expires"));
      query.bind_blob_view(1, m.key).bind_blob_view(2, m.value->view()).bind(3, static_cast<std::int64_t>(version));
      const auto ttl = m.ttl ? std::chrono::ceil<std::chrono::microseconds>(*m.ttl).count() : 0;
      if (ttl == 0 || ttl > std::numeric_limits<std::int64_t>::max() - now_) {
        query.bind_null(4);  // for ever
      } else {
        query.bind(4, now_ + ttl);
      }
      PRISM_CHECK(query.run());
    } else {
      PRISM_TRY(Query query, connection_.prepare("DELETE FROM prism_kv WHERE key = ?1"));
      query.bind_blob_view(1, m.key);
      PRISM_CHECK(query.run());
    }
    return Written{.version = Version{version}, .at = {}};
  }

  // More than one call adds, so that what has expired goes away as long as somebody writes.
  Result<void> remove_expired(std::int64_t rows) {
    PRISM_TRY(Query query, connection_.prepare("DELETE FROM prism_kv WHERE rowid IN (SELECT rowid FROM prism_kv "
                                               "WHERE expires <= ?1 ORDER BY expires LIMIT ?2)"));
    query.bind(1, now_).bind(2, rows);
    return query.run();
  }

  Connection& connection_;
  Id128 source_;
  std::int64_t now_;
  std::uint64_t last_ = 0;
  std::uint64_t next_ = 0;  // 0: none taken yet
};

class Store final : public KeyValueStore {
 public:
  explicit Store(std::shared_ptr<Engine> engine) : engine_(std::move(engine)) {}

  const KeyValueFeatures& features() const noexcept override { return features_; }

  Task<Batch<Result<std::optional<Entry>>>> get(Context context, Batch<std::string> keys, Position min) override {
    using Out = Batch<Result<std::optional<Entry>>>;
    if (keys.empty()) co_return Out();
    auto read = co_await engine_->read(context, [&](Connection& connection) -> Result<Out> {
      PRISM_CHECK(check_reached(connection, min));
      PRISM_TRY(Query query, connection.prepare("SELECT value, version, expires FROM prism_kv "
                                                "WHERE key = ?1 AND (expires IS NULL OR expires > ?2)"));
      const std::int64_t now = micros(wall_now());
      Out out;
      out.reserve(keys.size());
      for (const auto& key : keys) {
        query.bind_blob_view(1, key).bind(2, now);
        PRISM_TRY(const bool present, query.step());
        if (present) {
          out.emplace_back(entry(query, 0));
        } else {
          out.emplace_back(std::nullopt);
        }
        query.reset();
      }
      return out;
    });
    if (!read) co_return Out(keys.size(), std::unexpected(read.error()));
    co_return std::move(*read);
  }

  Task<Batch<Result<Written>>> apply(Context context, Batch<Mutation> mutations) override {
    const std::size_t n = mutations.size();
    if (n == 0) co_return {};
    if (context.stopped()) co_return Batch<Result<Written>>(n, std::unexpected(context.over(false)));
    std::size_t bytes = 512;
    for (const auto& m : mutations) bytes += sizeof(Mutation) + m.key.size() + (m.value ? m.value->size() : 0);
    auto done = co_await engine_->write(
        context,
        [mutations = std::move(mutations), source = engine_->incarnation()](Connection& connection) {
          return Apply(connection, source).run(mutations);
        },
        /*alone=*/false, bytes);
    if (!done) co_return Batch<Result<Written>>(n, std::unexpected(done.error()));
    co_return std::move(*done);
  }

  Task<Result<KeyPage>> scan(Context context, std::string prefix, std::string after, std::size_t max_rows,
                             std::size_t max_bytes) override {
    max_rows = std::clamp<std::size_t>(max_rows, 1, kMaxScanRows);
    co_return co_await engine_->read(std::move(context), [&](Connection& connection) -> Result<KeyPage> {
      // The first key behind all that begin with the prefix; none for a prefix of 0xff only.
      std::string end = prefix;
      while (!end.empty() && static_cast<unsigned char>(end.back()) == 0xff) end.pop_back();
      if (!end.empty()) end.back() = static_cast<char>(static_cast<unsigned char>(end.back()) + 1);
      const bool behind = !after.empty() && after >= prefix;
      PRISM_TRY(Query query,
                connection.prepare(std::string("SELECT key, value, version, expires FROM prism_kv WHERE key ") +
                                   (behind ? ">" : ">=") + " ?1" + (end.empty() ? "" : " AND key < ?4") +
                                   " AND (expires IS NULL OR expires > ?2) ORDER BY key LIMIT ?3"));
      query.bind_blob_view(1, behind ? after : prefix)
          .bind(2, micros(wall_now()))
          .bind(3, static_cast<std::int64_t>(max_rows + 1));
      if (!end.empty()) query.bind_blob_view(4, end);
      KeyPage page;
      std::size_t bytes = 0;
      while (true) {
        PRISM_TRY(const bool row, query.step());
        if (!row) return page;
        const std::string_view key = query.blob(0);
        bytes += key.size() + static_cast<std::size_t>(sqlite3_column_bytes(query.handle(), 1));
        if (page.entries.size() == max_rows || (!page.entries.empty() && bytes > max_bytes)) {
          page.more = true;
          return page;
        }
        page.entries.emplace_back(std::string(key), entry(query, 1));
      }
    });
  }

  Task<void> close(Context /*context*/) override { co_return; }

 private:
  static Entry entry(const Query& query, int column) {
    Entry out{.value = Bytes::copy(query.blob(column)),
              .version = Version{static_cast<std::uint64_t>(query.integer(column + 1))},
              .expires = {}};
    if (!query.is_null(column + 2)) out.expires = WallTime(std::chrono::microseconds(query.integer(column + 2)));
    return out;
  }

  Result<void> check_reached(Connection& connection, const Position& min) const {
    if (min.empty()) return {};
    PRISM_TRY(const std::uint64_t number, last_number(connection));
    switch (min.compare(Position(PositionPart{.source = engine_->incarnation(), .partition = 0, .offset = number}))) {
      case Position::Order::reached:
        return {};
      case Position::Order::behind:
        return fail(Code::failed_precondition, "POSITION_NOT_REACHED",
                    "the store has not seen this position: was it restored from a backup?", "read without a position");
      case Position::Order::unknown:
        break;
    }
    return fail(Code::failed_precondition, "POSITION_UNKNOWN", "the position is of another source than this store",
                "read without a position");
  }

  std::shared_ptr<Engine> engine_;
  KeyValueFeatures features_{.durability = Durability::fsync, .max_key_bytes = kMaxKey, .max_value_bytes = kMaxValue};
};

}  // namespace

Task<Result<std::shared_ptr<KeyValueStore>>> open_key_value_store(Context context, std::shared_ptr<Engine> engine) {
  auto made = co_await engine->write(
      std::move(context), [](Connection& connection) { return connection.execute(std::string(kNumbersDdl) + kDdl); });
  if (!made) co_return std::unexpected(std::move(made).error());
  co_return std::make_shared<Store>(std::move(engine));
}

}  // namespace prism::sqlite
