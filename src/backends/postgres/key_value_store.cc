#include "backends/postgres/key_value_store.h"

#include <algorithm>
#include <atomic>
#include <numeric>
#include <utility>

#include "backends/postgres/values.h"

namespace prism::postgres {
namespace {

constexpr std::size_t kMaxKey = 2'000;  // an entry of a B-tree has at most 2,704 bytes
constexpr std::size_t kMaxValue = 16UL << 20;
constexpr std::size_t kMaxScanRows = 100'000;
constexpr auto kFirstPurge = std::chrono::seconds(1);
constexpr auto kPurgePause = std::chrono::seconds(30);
constexpr std::int64_t kPurgeRows = 1'000;

constexpr const char* kTable = "prism_kv";
// Versions are of one sequence for all keys: none is ever given twice.
std::vector<std::string> ddl() {
  return {"CREATE SEQUENCE prism_kv_version",
          "CREATE TABLE prism_kv (key BYTEA PRIMARY KEY, value BYTEA NOT NULL, version BIGINT NOT NULL, "
          "expires TIMESTAMPTZ)",
          "CREATE INDEX prism_kv_expires ON prism_kv (expires) WHERE expires IS NOT NULL"};
}

#define PRISM_ALIVE "(expires IS NULL OR expires > clock_timestamp())"
#define PRISM_MICROS "(extract(epoch FROM expires) * 1000000)::bigint"

constexpr const char* kGet = "SELECT value, version, " PRISM_MICROS " FROM prism_kv WHERE key = $1 AND " PRISM_ALIVE;

// A version is taken when the row is locked, so that it grows with each change of the key.
constexpr const char* kSet =
    "INSERT INTO prism_kv AS e (key, value, version, expires) VALUES ($1, $2, nextval('prism_kv_version'), "
    "clock_timestamp() + $3 * interval '1 microsecond') ON CONFLICT (key) DO UPDATE SET value = excluded.value, "
    "version = nextval('prism_kv_version'), expires = excluded.expires RETURNING version";
constexpr const char* kSetIfAbsent =
    "INSERT INTO prism_kv AS e (key, value, version, expires) VALUES ($1, $2, nextval('prism_kv_version'), "
    "clock_timestamp() + $3 * interval '1 microsecond') ON CONFLICT (key) DO UPDATE SET value = excluded.value, "
    "version = nextval('prism_kv_version'), expires = excluded.expires WHERE e.expires <= clock_timestamp() "
    "RETURNING version";
constexpr const char* kSetIfVersion =
    "UPDATE prism_kv SET value = $2, version = nextval('prism_kv_version'), "
    "expires = clock_timestamp() + $3 * interval '1 microsecond' "
    "WHERE key = $1 AND version = $4 AND " PRISM_ALIVE " RETURNING version";
constexpr const char* kDelete =
    "WITH gone AS (DELETE FROM prism_kv WHERE key = $1 RETURNING 1) "
    "SELECT nextval('prism_kv_version') FROM (SELECT count(*) FROM gone) n";
constexpr const char* kDeleteIfAbsent =  // nothing to do, unless it is there
    "SELECT nextval('prism_kv_version') WHERE NOT EXISTS (SELECT 1 FROM prism_kv WHERE key = $1 AND " PRISM_ALIVE ")";
constexpr const char* kDeleteIfVersion =
    "WITH gone AS (DELETE FROM prism_kv WHERE key = $1 AND version = $2 AND " PRISM_ALIVE
    " RETURNING 1) "
    "SELECT nextval('prism_kv_version') FROM gone";

// Of the first $3 rows those that together have at most $4 bytes, at least one; then one without a value, if there are
// more. The order of bytea is that of its bytes.
std::string scan_text(bool behind, bool bounded) {
  return std::string(
             "SELECT key, CASE WHEN n = 1 OR (n <= $3 AND total <= $4) THEN value END, version, micros FROM "
             "(SELECT key, value, version, " PRISM_MICROS
             " AS micros, row_number() OVER w AS n, sum(length(key) + length(value)) OVER w AS total, "
             "length(key) + length(value) AS size FROM (SELECT * FROM prism_kv WHERE key ") +
         (behind ? ">" : ">=") + " $1" + (bounded ? " AND key < $2" : " AND $2 IS NOT NULL") +
         " AND " PRISM_ALIVE
         " ORDER BY key LIMIT $3 + 1) first WINDOW w AS (ORDER BY key ROWS UNBOUNDED PRECEDING)) counted "
         "WHERE n <= 2 OR total - size <= $4 ORDER BY key";
}

constexpr const char* kPurge =
    "DELETE FROM prism_kv WHERE key IN (SELECT key FROM prism_kv WHERE expires <= clock_timestamp() "
    "ORDER BY expires LIMIT $1 FOR UPDATE SKIP LOCKED)";

#undef PRISM_ALIVE
#undef PRISM_MICROS

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

Statement statement_of(const Mutation& m) {
  SqlValue key = Bytes::copy(m.key);
  if (!m.value) {
    if (m.expect) return {kDeleteIfVersion, {std::move(key), static_cast<std::int64_t>(m.expect->value)}};
    return {m.expect_absent ? kDeleteIfAbsent : kDelete, {std::move(key)}};
  }
  SqlValue ttl = SqlNull();
  if (m.ttl) ttl = static_cast<std::int64_t>(std::chrono::ceil<std::chrono::microseconds>(*m.ttl).count());
  Statement out{m.expect_absent ? kSetIfAbsent : kSet, {std::move(key), *m.value, std::move(ttl)}};
  if (m.expect) {
    out.text = kSetIfVersion;
    out.bind.emplace_back(static_cast<std::int64_t>(m.expect->value));
  }
  return out;
}

class Store final : public KeyValueStore {
 public:
  explicit Store(std::shared_ptr<Client> client) : client_(std::move(client)) {}

  const KeyValueFeatures& features() const noexcept override { return features_; }

  Task<Batch<Result<std::optional<Entry>>>> get(Context context, Batch<std::string> keys, Position min) override {
    using Out = Batch<Result<std::optional<Entry>>>;
    if (keys.empty()) co_return Out();
    const auto all = [n = keys.size()](const Error& error) { return Out(n, std::unexpected(error)); };
    if (context.stopped()) co_return all(context.over(false));
    auto request = std::make_shared<PointRequest>();
    request->together = true;
    // Asked before the keys: what they have is at least as new.
    if (!min.empty()) request->statements.push_back(position_statement());
    for (const auto& key : keys) request->statements.push_back({kGet, {Bytes::copy(key)}});
    auto answer = co_await run(std::move(context), std::move(request));
    if (!answer) co_return all(answer.error());
    std::size_t at = 0;
    if (!min.empty()) {
      const auto reached = check_reached(min, answer->results.at(at++));
      if (!reached) co_return all(reached.error());
    }
    Out out;
    for (; at < answer->results.size(); ++at) {
      auto& rows = answer->results[at]->rows;
      if (rows.empty()) {
        out.emplace_back(std::nullopt);
      } else {
        out.emplace_back(entry(rows.at(0), 0));
      }
    }
    co_return out;
  }

  Task<Batch<Result<Written>>> apply(Context context, Batch<Mutation> mutations) override {
    using Out = Batch<Result<Written>>;
    if (mutations.empty()) co_return Out();
    if (context.stopped()) co_return Out(mutations.size(), std::unexpected(context.over(false)));
    // In the order of keys, as everybody does it, so that nobody waits in a circle; those of one key stay in theirs.
    std::vector<std::size_t> order(mutations.size());
    std::iota(order.begin(), order.end(), 0U);
    std::ranges::sort(order, {},
                      [&](std::size_t i) { return std::pair<const std::string&, std::size_t>(mutations[i].key, i); });
    Out out(mutations.size());
    auto request = std::make_shared<PointRequest>();
    request->position = true;
    request->quiet = true;
    std::vector<std::size_t> sent;
    for (const std::size_t i : order) {
      if (auto good = check(mutations[i]); !good) {
        out[i] = std::unexpected(std::move(good).error());
        continue;
      }
      if (request->statements.empty()) request->order = mutations[i].key;
      request->statements.push_back(statement_of(mutations[i]));
      sent.push_back(i);
    }
    if (sent.empty()) co_return out;
    if (!purging_.exchange(true)) client_->scope().spawn(purge(client_));
    auto answer = co_await run(std::move(context), std::move(request));
    for (std::size_t n = 0; n < sent.size(); ++n) {
      auto& result = out[sent[n]];
      if (!answer) {
        result = std::unexpected(answer.error());
      } else if (!answer->results[n]) {
        result = std::unexpected(std::move(answer->results[n]).error());
      } else if (answer->results[n]->rows.empty()) {
        result = refused(mutations[sent[n]]);
      } else {
        const auto version = std::get<std::int64_t>(answer->results[n]->rows[0].at(0));
        result = Written{.version = Version{static_cast<std::uint64_t>(version)}, .at = client_->position(answer->lsn)};
      }
    }
    co_return out;
  }

  Task<Result<KeyPage>> scan(Context context, std::string prefix, std::string after, std::size_t max_rows,
                             std::size_t max_bytes) override {
    if (context.stopped()) co_return std::unexpected(context.over(false));
    max_rows = std::clamp<std::size_t>(max_rows, 1, kMaxScanRows);
    max_bytes = std::min<std::size_t>(max_bytes, 1UL << 30);
    // The first key behind all that begin with the prefix; none for a prefix of 0xff only.
    std::string end = prefix;
    while (!end.empty() && static_cast<unsigned char>(end.back()) == 0xff) end.pop_back();
    if (!end.empty()) end.back() = static_cast<char>(static_cast<unsigned char>(end.back()) + 1);
    const bool behind = !after.empty() && after >= prefix;
    auto request = std::make_shared<PointRequest>();
    request->statements.push_back({scan_text(behind, !end.empty()),
                                   {Bytes(behind ? std::move(after) : std::move(prefix)), Bytes(end),
                                    static_cast<std::int64_t>(max_rows), static_cast<std::int64_t>(max_bytes)}});
    PRISM_CO_TRY(auto answer, co_await run(std::move(context), std::move(request)));
    PRISM_CO_TRY(auto rows, std::move(answer.results.at(0)));
    KeyPage page;
    for (auto& row : rows.rows) {
      if (std::holds_alternative<SqlNull>(row.at(1))) {
        page.more = true;
        break;
      }
      page.entries.emplace_back(std::get<Bytes>(row[0]).str(), entry(row, 1));
    }
    co_return page;
  }

  Task<void> close(Context /*context*/) override { co_return; }

 private:
  static Entry entry(std::vector<SqlValue>& row, std::size_t column) {
    Entry out{.value = std::get<Bytes>(std::move(row.at(column))),
              .version = Version{static_cast<std::uint64_t>(std::get<std::int64_t>(row.at(column + 1)))},
              .expires = {}};
    if (const auto* micros = std::get_if<std::int64_t>(&row.at(column + 2)))
      out.expires = WallTime(std::chrono::microseconds(*micros));
    return out;
  }

  static std::unexpected<Error> refused(const Mutation& m) {
    if (m.expect_absent) return fail(Code::already_exists, "ALREADY_EXISTS", "the key exists");
    return fail(Code::aborted, "VERSION_MISMATCH", "the entry has been changed, or does not exist (any more)",
                "read it again and repeat the change");
  }

  Result<void> check_reached(const Position& min, const Result<SqlRows>& rows) const {
    switch (min.compare(client_->position(read_position(rows)))) {
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

  Task<Result<PointAnswer>> run(Context context, std::shared_ptr<const PointRequest> request) {
    co_return co_await repeated(client_, context, [client = client_, request](Context c) {
      return client->on_table(std::move(c), kTable, ddl(), request);
    });
  }

  static Task<void> purge(std::shared_ptr<Client> client) {
    const Context context = Context::background(client->scope().stop_token());
    auto request = std::make_shared<PointRequest>();
    request->quiet = true;
    request->statements.push_back({kPurge, {kPurgeRows}});
    bool more = false;
    if (!co_await sleep_for(client->loop(), context, kFirstPurge)) co_return;
    do {
      const auto answer = co_await client->on_table(context, kTable, ddl(), request);
      more = answer && answer->results.at(0) && std::cmp_equal(answer->results[0]->affected, kPurgeRows);
    } while (!context.stopped() && (more || co_await sleep_for(client->loop(), context, kPurgePause)));
  }

  std::shared_ptr<Client> client_;
  std::atomic<bool> purging_{false};
  KeyValueFeatures features_{.durability = Durability::fsync, .max_key_bytes = kMaxKey, .max_value_bytes = kMaxValue};
};

}  // namespace

std::shared_ptr<KeyValueStore> make_key_value_store(std::shared_ptr<Client> client) {
  return std::make_shared<Store>(std::move(client));
}

}  // namespace prism::postgres
