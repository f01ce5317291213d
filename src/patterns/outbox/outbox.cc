#include "patterns/outbox/outbox.h"

#include <algorithm>
#include <set>

#include "base/text.h"
#include "patterns/log_ports.h"
#include "patterns/outbox/guarantees.h"
#include "patterns/outbox/table.h"
#include "patterns/traced.h"

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
    .encloses = true,
    .before = {"tiered-storage"},
    .shape = shape,
    .jobs = jobs,
};

namespace {

constexpr std::uint32_t kShards = 2;            // lane ranges that a process may lease
constexpr std::size_t kRoundBytes = 8UL << 20;  // bodies held in memory by one round of a shard
constexpr Clock::duration kMarkGrace = std::chrono::seconds(30);
constexpr Clock::duration kFirstBackoff = std::chrono::milliseconds(100);
constexpr Clock::duration kLongestBackoff = std::chrono::seconds(30);
constexpr std::size_t kMostHeld =
    8000;  // keys, and as many rows without a key, of which a shard knows that they failed
constexpr std::uint32_t kPartForRepeats = 4;  // of a round's rows and bytes, a quarter
constexpr std::uint32_t kCleanupRows = 500;
constexpr std::uint32_t kCountedRows = 10'000;  // of those that are not published; more are not told apart

class OutboxPublisher final : public Publisher {
 public:
  OutboxPublisher(std::shared_ptr<SqlDatabase> database, Options options, std::size_t max_record_bytes, Engine engine,
                  std::shared_ptr<Counted> counted)
      : database_(std::move(database)),
        options_(std::move(options)),
        max_record_bytes_(max_record_bytes),
        engine_(std::move(engine)),
        counted_(std::move(counted)) {}

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
    const auto asked = Clock::now();
    auto committed = co_await database_->atomically(context, std::move(rows));
    // The statement is Prism's: what the database has against it is not the client's to mend.
    if (!committed && committed.error().reason == "SQL_ERROR") committed.error().code = Code::internal;
    if (context.trace().recorded) trace_steps(context, asked, committed, index.size());
    if (committed) counted_->inserted->add(index.size());
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
    // The relay goes on with the trace later. A message may come with one of its own.
    if (message->attribute("traceparent") == nullptr) set_trace(*message, context.trace());
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

  // The transaction is one call: the database says when which step of it began.
  void trace_steps(const Context& context, Clock::time_point asked, const Result<Committed>& committed,
                   std::size_t rows) const {
    const auto step = [&](std::string_view name, Clock::time_point from, Clock::time_point to) {
      trace::Span span = begin_db_span(context, engine_, name);
      span.begin_at(from);
      span.set("db.collection.name", options_.table);
      if (rows != 1) span.set("db.operation.batch.size", rows);
      if (!committed) span.fail(committed.error());
      span.end_at(to);
    };
    const auto now = Clock::now();
    if (!committed) return step("insert_outbox", asked, now);
    step("begin_transaction", asked, committed->begun);
    step("insert_outbox", committed->begun, committed->executed);
    step("commit_transaction", committed->executed, now);
  }

  std::shared_ptr<SqlDatabase> database_;
  Options options_;
  std::size_t max_record_bytes_;
  const Engine engine_;
  std::shared_ptr<Counted> counted_;
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
    const bool none = pending.rows.empty();
    co_return none;
  }

  Task<Result<Unfinished>> unfinished(Context context) override {
    PRISM_CO_TRY(const auto pending, co_await database_->query(std::move(context),
                                                               select_pending(options_.table, database_->dialect(), 0,
                                                                              kLanes - 1, kCountedRows, Skip()),
                                                               kCountedRows));
    const std::size_t n = pending.rows.size();
    if (n == 0) co_return Unfinished();
    co_return Unfinished{n, std::string(n == kCountedRows ? "at least " : "") + counted(n, "row") + " of table " +
                                options_.table + (n == 1 ? " that is not published" : " that are not published")};
  }

  Task<Result<void>> measure(Context context) override {
    counted_->show_median();
    PRISM_CO_TRY(const auto waiting, co_await database_->query(
                                         std::move(context), select_waiting(options_.table, database_->dialect()), 1));
    const auto& row = waiting.rows.front();
    const auto* const age = std::get_if<std::int64_t>(&row[1]);
    counted_->pending->set(static_cast<double>(std::get<std::int64_t>(row[0])));
    counted_->lag->set(age != nullptr ? std::max(0.0, 1e-6 * static_cast<double>(*age)) : 0);
    co_return Result<void>();
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
    counted_ = std::make_shared<Counted>(assembly.pattern_metrics());
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
                                         std::shared_ptr<Publisher>(std::move(below.publish)), options_, counted_));
    if (options_.retention) assembly.add(std::make_shared<Cleanup>(assembly.namespace_name(), database, options_));
    below.publish = make_publisher(std::move(database), options_, assembly.log()->features().max_record_bytes,
                                   assembly.engine(options_.database), counted_);
    co_return below;
  }

 private:
  Options options_;
  std::shared_ptr<SqlDatabase> database_;  // set by wrap
  std::shared_ptr<Counted> counted_;       // likewise
};

}  // namespace

Relay::Relay(std::string namespace_name, std::shared_ptr<SqlDatabase> database, std::shared_ptr<Publisher> destination,
             Options options, std::shared_ptr<Counted> counted)
    : database_(std::move(database)),
      destination_(std::move(destination)),
      counted_(std::move(counted)),
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

bool Relay::Shard::full() const { return keys.size() >= kMostHeld || rows.size() >= kMostHeld; }

void Relay::Shard::hold_back(const std::string& key, std::int64_t id) {
  const bool known = key.empty() ? rows.contains(id) : keys.contains(key);
  if (!known && (key.empty() ? rows.size() : keys.size()) >= kMostHeld) return;
  auto& backoff = key.empty() ? rows[id] : keys[key];
  backoff.delay = std::clamp(2 * backoff.delay, kFirstBackoff, kLongestBackoff);
  backoff.until = Clock::now() + backoff.delay;
}

Relay::Again Relay::due(const Shard& shard) const {
  struct Held {
    Clock::time_point until;
    const std::string* key;
    std::int64_t id;
  };
  const auto now = Clock::now();
  std::vector<Held> held;
  for (const auto& [key, backoff] : shard.keys) {
    if (backoff.until <= now) held.push_back({backoff.until, &key, 0});
  }
  for (const auto& [id, backoff] : shard.rows) {
    if (backoff.until <= now) held.push_back({backoff.until, nullptr, id});
  }
  const std::size_t most = std::max<std::size_t>(options_.batch_size / kPartForRepeats, 1);
  if (held.size() > most) {  // those that have waited longest
    std::ranges::nth_element(held, held.begin() + static_cast<std::ptrdiff_t>(most), {}, &Held::until);
    held.resize(most);
  }
  Again again;
  for (const auto& h : held) {
    if (h.key != nullptr) {
      again.keys.push_back(*h.key);
    } else {
      again.ids.push_back(h.id);
    }
  }
  return again;
}

// NOLINTBEGIN(cppcoreguidelines-avoid-reference-coroutine-parameters): awaited at once by the round, which owns both
Task<Result<std::set<std::int64_t>>> Relay::repeats(Context context, Shard& shard) {
  std::set<std::int64_t> ids;
  const Again again = due(shard);
  if (again.keys.empty() && again.ids.empty()) co_return ids;
  PRISM_CO_TRY(const auto found,
               co_await database_->query(
                   context, select_again(options_.table, database_->dialect(), again.keys, again.ids), SIZE_MAX));
  std::set<std::string> keys;
  std::size_t bytes = 0;
  std::set<std::int64_t> present;
  for (const auto& row : found.rows) {
    const auto id = std::get<std::int64_t>(row[0]);
    present.insert(id);
    keys.insert(std::get<std::string>(row[2]));
    bytes += static_cast<std::size_t>(std::get<std::int64_t>(row[1]));
    if (ids.empty() || bytes <= kRoundBytes / kPartForRepeats) ids.insert(id);
  }
  // What is not there any more was published or removed by somebody else.
  for (const auto& key : again.keys) {
    if (!keys.contains(key)) shard.keys.erase(key);
  }
  for (const auto id : again.ids) {
    if (!present.contains(id)) shard.rows.erase(id);
  }
  co_return ids;
}
// NOLINTEND(cppcoreguidelines-avoid-reference-coroutine-parameters)

Task<Result<Round>> Relay::round(Context context, std::uint32_t shard_number, Grant grant) {
  Shard& shard = shards_[shard_number];
  Round done;
  if (!shard.unmarked.empty()) {
    PRISM_CO_CHECK(co_await mark(context, shard.unmarked));
    shard.unmarked.clear();
  }
  PRISM_CO_TRY(const auto again, co_await repeats(context, shard));
  Skip skip{.keys = {}, .ids = {}, .after = shard.after};
  for (const auto& [key, backoff] : shard.keys) skip.keys.push_back(key);
  for (const auto& [id, backoff] : shard.rows) skip.ids.push_back(id);
  const std::uint32_t lanes = kLanes / kShards;
  PRISM_CO_TRY(const auto pending,
               co_await database_->query(context,
                                         select_pending(options_.table, database_->dialect(), shard_number * lanes,
                                                        (shard_number + 1) * lanes - 1, options_.batch_size, skip),
                                         options_.batch_size));
  if (!skip.keys.empty() || !skip.ids.empty()) done.note = shard.failure;
  std::vector<std::int64_t> ids(again.begin(), again.end());
  std::size_t bytes = 0;
  std::size_t taken = 0;
  for (const auto& row : pending.rows) {
    bytes += static_cast<std::size_t>(std::get<std::int64_t>(row[1]));
    if (taken > 0 && bytes > kRoundBytes) break;
    ids.push_back(std::get<std::int64_t>(row[0]));
    ++taken;
  }
  // Where a round begins that is not to see these rows again; 0: behind them there are none.
  const std::int64_t behind = taken < pending.rows.size() || taken == options_.batch_size ? ids.back() : 0;
  if (ids.empty()) {
    shard.after = 0;
    co_return done;
  }
  PRISM_CO_TRY(auto found,
               co_await database_->query(context, select_rows(options_.table, database_->dialect(), ids), ids.size()));
  const auto read_at = Clock::now();
  std::vector<Row> rows;
  rows.reserve(found.rows.size());
  for (auto& columns : found.rows) rows.push_back(read_row(columns, options_.destination_topic));
  // Asked after the rows were found: whatever was committed before one of them is seen.
  std::set<std::string> earlier;
  if (skip.after > 0) {
    std::set<std::string> keys;
    for (const auto& row : rows) {
      if (!row.key.empty() && !again.contains(row.id)) keys.insert(row.key);
    }
    if (!keys.empty()) {
      PRISM_CO_TRY(const auto below,
                   co_await database_->query(
                       context, select_keys_up_to(options_.table, skip.after, {keys.begin(), keys.end()}), SIZE_MAX));
      for (const auto& columns : below.rows) earlier.insert(std::get<std::string>(columns[0]));
    }
  }

  ids.clear();
  Batch<Message> messages;
  std::vector<std::string> keys;
  std::vector<std::optional<Clock::duration>> ages;
  FailedKeys unreadable;
  for (auto& row : rows) {
    if (!again.contains(row.id) && earlier.contains(row.key)) continue;
    if (!row.message) {
      done.note = shard.failure = "row " + std::to_string(row.id) + ": " + row.message.error().describe();
      unreadable.add(row.key);
      shard.hold_back(row.key, row.id);
      continue;
    }
    if (unreadable.check(row.key)) continue;
    ids.push_back(row.id);
    keys.push_back(std::move(row.key));
    ages.push_back(row.age);
    messages.push_back(std::move(*row.message));
  }
  if (messages.empty()) {
    shard.after = behind;
    co_return done;
  }

  const std::size_t attempted = messages.size();
  // Whoever has lost the lease must not publish any more: the log is asked to begin before the grant ends, or not at
  // all.
  if (context.stopped() || Clock::now() >= grant.safe_until) co_return std::unexpected(context.over(false));
  auto results =
      co_await destination_->publish(context.shielded(kMarkGrace).with_deadline(grant.safe_until), std::move(messages));
  const auto since = Clock::now() - read_at;
  std::vector<Clock::duration> latencies;
  latencies.reserve(results.size());
  std::optional<Error> first_error;
  for (std::size_t i = 0; i < results.size(); ++i) {
    if (results[i] && ages[i]) latencies.push_back(*ages[i] + since);
    if (!results[i]) {
      if (!first_error) first_error = results[i].error();
      continue;
    }
    shard.unmarked.push_back(ids[i]);
    shard.keys.erase(keys[i]);
    shard.rows.erase(ids[i]);
  }
  const std::size_t published = shard.unmarked.size();
  counted_->published->add(published);
  counted_->took(latencies);
  shard.after = published == 0 || shard.full() ? behind : 0;
  // Nothing went through: the destination is down, and the keeper backs off. Otherwise only the keys that failed wait;
  // EARLIER_MESSAGE_FAILED only follows the failure that counted.
  const auto destination_is_down = [](const Error& error) {
    return error.code == Code::unavailable || error.reason == "BACKEND_AUTHENTICATION_FAILED" ||
           error.reason == "BACKEND_TLS_FAILED";
  };
  if (published == 0 && attempted > 0 && destination_is_down(*first_error))
    co_return std::unexpected(std::move(*first_error));
  if (first_error) done.note = shard.failure = first_error->describe();
  for (std::size_t i = 0; i < results.size(); ++i) {
    if (!results[i] && results[i].error().reason != "EARLIER_MESSAGE_FAILED") shard.hold_back(keys[i], ids[i]);
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
                                          std::size_t max_record_bytes, Engine engine,
                                          std::shared_ptr<Counted> counted) {
  return std::make_unique<OutboxPublisher>(std::move(database), std::move(options), max_record_bytes, std::move(engine),
                                           std::move(counted));
}
std::unique_ptr<Pattern> make_pattern(Options options) { return std::make_unique<Outbox>(std::move(options)); }

PatternType pattern_type() {
  return {
      .info = kInfo,
      .validate = [](const config::Node& options,
                     config::Diagnostics& diagnostics) { (void)read_options(options, diagnostics); },
      .options = options_info(),
      .review = review_options,
      .holdings = [](const config::Node& options, std::string_view /*namespace_name*/) { return holdings(options); },
      .make =
          [](const config::Node& options) {
            config::Diagnostics validated_before;
            return make_pattern(read_options(options, validated_before));
          },
      .decode = nullptr,  // on consume the outbox does nothing
  };
}

}  // namespace prism::outbox
