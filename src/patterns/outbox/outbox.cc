#include "patterns/outbox/outbox.h"

#include <algorithm>

#include "patterns/log_ports.h"
#include "patterns/outbox/table.h"

namespace prism::outbox {

const PatternInfo kInfo{
    .name = "outbox",
    .version = "1.0.0",
    .summary = "commits each message as a database row and relays it to the log in the background",
    .apis = {"pubsub", "queue", "transact"},
    .backends = {{.option = "database.backend", .any_of = {"sql-database"}, .standard = "postgres"},
                 {.option = "publisher.destination.backend", .any_of = {"event-log"}, .standard = ""}},
    .gives = {"a publish is a committed row", "what is committed is published, whatever crashes",
              "publishing goes on while the log is down"},
    .role = kFirstRecord,
    .rank = 20,
    .before = {"tiered-storage"},
};

namespace {

constexpr std::uint32_t kShards = 2;            // lane ranges that a process may lease
constexpr std::size_t kRoundBytes = 8UL << 20;  // bodies held in memory by one round of a shard
constexpr Clock::duration kMarkGrace = std::chrono::seconds(30);
constexpr Clock::duration kFirstBackoff = std::chrono::milliseconds(100);
constexpr Clock::duration kLongestBackoff = std::chrono::seconds(30);
constexpr std::size_t kMostSkipped = 8000;  // keys, and rows without a key, that a round leaves out
constexpr std::uint32_t kCleanupRows = 500;
constexpr std::uint32_t kCountedRows = 10'000;  // of those that are not published; more are not told apart

class OutboxPublisher final : public Publisher {
 public:
  OutboxPublisher(std::shared_ptr<SqlDatabase> database, Options options, std::size_t max_record_bytes)
      : database_(std::move(database)), options_(std::move(options)), max_record_bytes_(max_record_bytes) {}

  Task<Batch<Result<Appended>>> publish(Context context, Batch<Message> messages) override {
    Batch<Result<Appended>> results(messages.size());
    Batch<Statement> rows;
    rows.reserve(messages.size());
    std::vector<std::size_t> index;
    FailedKeys failed;
    for (std::size_t i = 0; i < messages.size(); ++i) {
      Message& message = messages[i];
      if (auto error = failed.check(message.key)) {
        results[i] = std::unexpected(std::move(*error));
        continue;
      }
      auto row = co_await to_row(context, &message);
      if (!row) {
        results[i] = std::unexpected(std::move(row).error().with("pattern", std::string(kInfo.name)));
        failed.add(message.key);
        continue;
      }
      rows.push_back(std::move(*row));
      index.push_back(i);
    }
    if (rows.empty()) co_return results;
    auto committed = co_await database_->atomically(context, std::move(rows));
    for (const std::size_t i : index) {
      if (committed) {
        results[i] = Appended{committed->position, database_->features().durability, false};
      } else {
        results[i] = std::unexpected(Error(committed.error()).with("pattern", std::string(kInfo.name)));
      }
    }
    co_return results;
  }

 private:
  Task<Result<Statement>> to_row(Context context, Message* message) {
    if (context.trace().valid()) message->set_attribute("traceparent", context.trace().traceparent());
    const auto too_large = [&](std::size_t bytes) {
      return fail(
          Code::invalid_argument, "RECORD_TOO_LARGE",
          "the message with its metadata takes " + std::to_string(bytes) + " bytes on the log; at most " +
              std::to_string(max_record_bytes_) + " fit",
          "add the claim-check pattern to the namespace, or lower its threshold: it takes payloads of any size");
    };
    const std::size_t around = record_bytes(*message, 0);
    if (around > max_record_bytes_) co_return too_large(around);
    auto body = co_await message->payload.collect(std::move(context), max_record_bytes_ - around);
    if (!body) {
      Error error = std::move(body).error();
      if (error.reason == "PAYLOAD_TOO_LARGE")
        error.hint = "add the claim-check pattern to the namespace: it takes payloads of any size";
      co_return std::unexpected(std::move(error));
    }
    message->payload = Payload(std::move(*body));
    co_return insert(options_.table, database_->dialect(), *message);
  }

  std::shared_ptr<SqlDatabase> database_;
  Options options_;
  std::size_t max_record_bytes_;
};

class Pending final : public PendingReferences::Source {
 public:
  Pending(std::shared_ptr<SqlDatabase> database, std::string table)
      : database_(std::move(database)), table_(std::move(table)) {}
  Task<Result<std::vector<std::string>>> claim_check_ids(Context context) override {
    PRISM_CO_TRY(auto rows, co_await database_->query(std::move(context), select_claim_check_ids(table_), SIZE_MAX));
    std::vector<std::string> ids;
    ids.reserve(rows.rows.size());
    for (auto& row : rows.rows) ids.push_back(std::get<std::string>(std::move(row[0])));
    co_return ids;
  }

 private:
  std::shared_ptr<SqlDatabase> database_;
  std::string table_;
};

std::string fact(const SqlValue& value) {
  if (const auto* number = std::get_if<std::int64_t>(&value)) return std::to_string(*number);
  if (const auto* text = std::get_if<std::string>(&value)) return *text;
  return {};
}

class Outbox final : public Pattern {
 public:
  explicit Outbox(Options options) : options_(std::move(options)) {}
  const PatternInfo& info() const noexcept override { return kInfo; }
  std::string log_backend() const override { return options_.destination_backend; }
  std::string fixed_topic() const override { return options_.destination_topic; }

  Task<Result<bool>> settled(Context context) override {
    PRISM_CO_TRY(
        const auto pending,
        co_await database_->query(std::move(context),
                                  select_pending(options_.table, database_->dialect(), 0, kLanes - 1, 1, Skip()), 1));
    co_return pending.rows.empty();
  }

  std::vector<Place> places(const std::string& /*namespace_name*/) const override {
    return {{"table", options_.database, options_.table}};
  }
  Task<Result<Unfinished>> unfinished(Context context) override {
    PRISM_CO_TRY(const auto pending,
                 co_await database_->query(
                     std::move(context),
                     select_pending(options_.table, database_->dialect(), 0, kLanes - 1, kCountedRows, Skip()),
                     kCountedRows));
    const std::size_t n = pending.rows.size();
    if (n == 0) co_return Unfinished();
    co_return Unfinished{n, std::string(n == kCountedRows ? "at least " : "") + std::to_string(n) +
                                " rows of table " + options_.table + " that are not published"};
  }

  Task<Result<Facts>> inspect(Context context) override {
    PRISM_CO_TRY(const auto totals, co_await database_->query(context, select_totals(options_.table), 1));
    PRISM_CO_TRY(const auto newest, co_await database_->query(context, select_newest(options_.table), 1));
    Facts facts{{"database", options_.database}, {"table", options_.table}};
    const auto add = [&](const SqlRows& rows, const std::vector<std::string>& names) {
      for (std::size_t i = 0; !rows.rows.empty() && i < names.size(); ++i)
        facts.emplace_back(names[i], fact(rows.rows.front()[i]));
    };
    add(totals, {"rows", "pending", "pending_bytes"});
    add(newest, {"newest_row_id", "newest_row_topic", "newest_row_message_id", "newest_row_claim_check_id",
                 "newest_row_payload_bytes", "newest_row_body_bytes", "newest_row_published_at"});
    co_return facts;
  }

  Task<Result<Ports>> wrap(Context context, Ports below, Assembly& assembly) override {
    PRISM_CO_CHECK(assembly.reserve_table(options_.database, options_.table));
    PRISM_CO_TRY(auto database, co_await assembly.sql_database(context, options_.database));
    database_ = database;
    const TableSpec spec = table_spec(options_.table);
    PRISM_CO_TRY(const auto present, co_await database->describe(context, options_.table));
    if (present) {
      for (const auto& column : spec.columns) {
        if (present->find(column.name) != nullptr) continue;
        co_return fail(Code::failed_precondition, "OUTBOX_TABLE_LACKS_COLUMN",
                       "table \"" + options_.table + "\" exists and has no column \"" + column.name + "\"",
                       "name another table, or let Prism create it");
      }
    } else {
      PRISM_CO_CHECK(co_await database->create_table(context, spec));
    }
    assembly.pending_references()->add(std::make_shared<Pending>(database, options_.table));
    assembly.add(std::make_shared<Relay>(assembly.namespace_name(), database,
                                         std::shared_ptr<Publisher>(std::move(below.publish)), options_));
    if (options_.retention) assembly.add(std::make_shared<Cleanup>(assembly.namespace_name(), database, options_));
    below.publish = make_publisher(std::move(database), options_, assembly.log()->features().max_record_bytes);
    co_return below;
  }

 private:
  Options options_;
  std::shared_ptr<SqlDatabase> database_;  // set by wrap
};

}  // namespace

Relay::Relay(std::string namespace_name, std::shared_ptr<SqlDatabase> database, std::shared_ptr<Publisher> destination,
             Options options)
    : database_(std::move(database)),
      destination_(std::move(destination)),
      options_(std::move(options)),
      info_{.name = namespace_name + "/outbox/relay",
            .shards = kShards,
            .interval = options_.interval,
            .harmless = "repeats carry the same id, and the first occurrences of a key stay in order"},
      shards_(kShards) {}

Task<void> Relay::wait(Context context, EventLoop& /*loop*/, Clock::duration at_most) {
  return database_->wait_for_change(std::move(context), options_.table, at_most);
}

Task<Result<void>> Relay::mark(Context context, std::vector<std::int64_t> ids) {
  const bool at_once = options_.strategy == CleanupStrategy::remove && !options_.retention;
  Batch<Statement> statements;
  statements.push_back(at_once ? remove(options_.table, ids)
                               : mark_published(options_.table, database_->dialect(), ids));
  PRISM_CO_CHECK(co_await database_->atomically(context.shielded(kMarkGrace), std::move(statements)));
  co_return {};
}

Task<Result<Round>> Relay::round(Context context, std::uint32_t shard_number, Grant grant) {
  Shard& shard = shards_[shard_number];
  Round done;
  if (!shard.unmarked.empty()) {
    PRISM_CO_CHECK(co_await mark(context, shard.unmarked));
    shard.unmarked.clear();
  }
  const auto now = Clock::now();
  const auto forgotten = [&](const auto& held) {
    return held.second.until + kLongestBackoff < now;
  };  // perhaps published by another
  std::erase_if(shard.keys, forgotten);
  std::erase_if(shard.rows, forgotten);
  Skip skip;
  for (const auto& [key, backoff] : shard.keys) {
    if (backoff.until > now && skip.keys.size() < kMostSkipped) skip.keys.push_back(key);
  }
  for (const auto& [id, backoff] : shard.rows) {
    if (backoff.until > now && skip.ids.size() < kMostSkipped) skip.ids.push_back(id);
  }
  const std::uint32_t lanes = kLanes / kShards;
  PRISM_CO_TRY(const auto pending,
               co_await database_->query(context,
                                         select_pending(options_.table, database_->dialect(), shard_number * lanes,
                                                        (shard_number + 1) * lanes - 1, options_.batch_size, skip),
                                         options_.batch_size));
  if (!skip.keys.empty() || !skip.ids.empty()) done.note = shard.failure;
  if (pending.rows.empty()) co_return done;
  std::vector<std::int64_t> ids;
  std::size_t bytes = 0;
  for (const auto& row : pending.rows) {
    bytes += static_cast<std::size_t>(std::get<std::int64_t>(row[1]));
    if (!ids.empty() && bytes > kRoundBytes) break;
    ids.push_back(std::get<std::int64_t>(row[0]));
  }
  PRISM_CO_TRY(auto rows, co_await database_->query(context, select_rows(options_.table, ids), ids.size()));

  const auto hold_back = [&](const std::string& key, std::int64_t id) {
    auto& backoff = key.empty() ? shard.rows[id] : shard.keys[key];
    backoff.delay = std::clamp(2 * backoff.delay, kFirstBackoff, kLongestBackoff);
    backoff.until = Clock::now() + backoff.delay;
  };
  ids.clear();
  Batch<Message> messages;
  std::vector<std::string> keys;
  FailedKeys unreadable;
  for (auto& columns : rows.rows) {
    Row row = read_row(columns, options_.destination_topic);
    if (!row.message) {
      done.note = shard.failure = "row " + std::to_string(row.id) + ": " + row.message.error().describe();
      unreadable.add(row.key);
      hold_back(row.key, row.id);
      continue;
    }
    if (unreadable.check(row.key)) continue;
    ids.push_back(row.id);
    keys.push_back(std::move(row.key));
    messages.push_back(std::move(*row.message));
  }
  if (messages.empty()) co_return done;

  const std::size_t attempted = messages.size();
  // Whoever has lost the lease must not publish any more: the log is asked to begin before the grant ends, or not at
  // all.
  if (context.stopped() || Clock::now() >= grant.safe_until) co_return std::unexpected(context.over(false));
  auto results =
      co_await destination_->publish(context.shielded(kMarkGrace).with_deadline(grant.safe_until), std::move(messages));
  std::optional<Error> first_error;
  for (std::size_t i = 0; i < results.size(); ++i) {
    if (!results[i]) {
      if (!first_error) first_error = results[i].error();
      continue;
    }
    shard.unmarked.push_back(ids[i]);
    shard.keys.erase(keys[i]);
    shard.rows.erase(ids[i]);
  }
  const std::size_t published = shard.unmarked.size();
  // Nothing went through: the destination is down, and the keeper backs off. Otherwise only the keys that failed wait;
  // EARLIER_MESSAGE_FAILED only follows the failure that counted.
  if (published == 0 && attempted > 0 && first_error->code == Code::unavailable)
    co_return std::unexpected(std::move(*first_error));
  if (first_error) done.note = shard.failure = first_error->describe();
  for (std::size_t i = 0; i < results.size(); ++i) {
    if (!results[i] && results[i].error().reason != "EARLIER_MESSAGE_FAILED") hold_back(keys[i], ids[i]);
  }
  if (!shard.unmarked.empty()) {
    PRISM_CO_CHECK(co_await mark(context, shard.unmarked));
    shard.unmarked.clear();
  }
  done.items = published;
  done.more = published > 0;  // whoever failed waits: what is left is looked at again at once
  co_return done;
}

Cleanup::Cleanup(std::string namespace_name, std::shared_ptr<SqlDatabase> database, Options options)
    : database_(std::move(database)),
      options_(std::move(options)),
      info_{.name = namespace_name + "/outbox/cleanup",
            .shards = 1,
            .interval = std::clamp<Clock::duration>(*options_.retention / 10, std::chrono::milliseconds(200),
                                                    std::chrono::minutes(1)),
            .harmless = "only published rows past their retention are removed, and removing twice changes nothing"} {}

Task<Result<Round>> Cleanup::round(Context context, std::uint32_t /*shard*/, Grant /*grant*/) {
  Batch<Statement> statements;
  statements.push_back(remove_published(options_.table, database_->dialect(), *options_.retention, kCleanupRows));
  PRISM_CO_TRY(const auto committed, co_await database_->atomically(std::move(context), std::move(statements)));
  const std::uint64_t removed = committed.results.front().affected;
  co_return Round{.items = removed, .more = removed == kCleanupRows};
}

std::unique_ptr<Publisher> make_publisher(std::shared_ptr<SqlDatabase> database, Options options,
                                          std::size_t max_record_bytes) {
  return std::make_unique<OutboxPublisher>(std::move(database), std::move(options), max_record_bytes);
}
std::unique_ptr<Pattern> make_pattern(Options options) { return std::make_unique<Outbox>(std::move(options)); }

PatternType pattern_type() {
  return {
      .info = kInfo,
      .validate = [](const config::Node& options,
                     config::Diagnostics& diagnostics) { (void)read_options(options, diagnostics); },
      .options = options_info(),
      .make =
          [](const config::Node& options) {
            config::Diagnostics validated_before;
            return make_pattern(read_options(options, validated_before));
          },
      .decode = nullptr,  // on consume the outbox does nothing
  };
}

}  // namespace prism::outbox
