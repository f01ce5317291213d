#include "backends/sqlite/sql_database.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <utility>

#include "backends/sqlite/ddl.h"
#include "backends/sqlite/functions.h"
#include "backends/sqlite/statements.h"
#include "runtime/scope.h"

namespace prism::sqlite {
namespace {

// How long one statement may keep the writing thread busy where others wait behind it.
constexpr auto kLongestStatement = std::chrono::seconds(10);
constexpr auto kGrace = std::chrono::seconds(30);  // for ending a transaction when its caller has gone
constexpr int kSnapshotCacheKib = 512;

constexpr const char* kColumnsDdl =
    "CREATE TABLE IF NOT EXISTS prism_columns (table_name TEXT NOT NULL, column_name TEXT NOT NULL, type TEXT NOT "
    "NULL, "
    "PRIMARY KEY (table_name, column_name)) STRICT;";

std::string folded(std::string_view name) {
  std::string out(name);
  for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return out;
}

Error at_statement(Error error, std::size_t index) { return std::move(error).with("statement", std::to_string(index)); }

Error too_slow(Error error) {
  if (error.reason != "QUERY_INTERRUPTED") return error;
  return Error{Code::deadline_exceeded,
               "SQL_TOO_SLOW",
               "a statement was ended: writers of the file wait for it",
               "make it touch fewer rows, or add an index",
               Retry::safe,
               {},
               {}};
}

// Interrupts what runs on the connection when the context is over.
class Limit {
 public:
  Limit(Connection& connection, Context context) : connection_(connection) {
    connection_.interrupt_with(std::move(context));
  }
  ~Limit() { connection_.interrupt_with(std::nullopt); }
  Limit(const Limit&) = delete;
  Limit& operator=(const Limit&) = delete;

 private:
  Connection& connection_;
};

// Who waits for changes of which table.
class Changes {
 public:
  explicit Changes(EventLoop& loop) : loop_(loop) {}
  std::shared_ptr<Notifier> of(const std::string& table) {
    const std::lock_guard lock(mutex_);
    auto& notifier = tables_[folded(table)];
    if (!notifier) notifier = std::make_shared<Notifier>(loop_);
    return notifier;
  }
  void notify(const TableNames& tables, CompletionBatch& batch) {
    const std::lock_guard lock(mutex_);
    for (const auto& table : tables) {
      if (const auto it = tables_.find(table); it != tables_.end()) it->second->notify_into(batch);
    }
  }
  void notify_all() {
    CompletionBatch batch;
    const std::lock_guard lock(mutex_);
    for (const auto& [table, notifier] : tables_) notifier->notify_into(batch);
  }

 private:
  EventLoop& loop_;
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<Notifier>, std::less<>> tables_;  // guarded by mutex_
};

// A batch of statements on the writing thread: each for itself, or all as one.
class StatementsOp final : public WriteOp {
 public:
  enum class Mode : std::uint8_t { each, together };
  struct Outcomes {
    Batch<Result<SqlRows>> results;
    std::uint64_t number = 0;               // together: of this write
    Clock::time_point begun{}, executed{};  // together
  };

  StatementsOp(EventLoop* loop, Clock::time_point deadline, Mode mode, Batch<Statement> statements,
               std::shared_ptr<Changes> changes)
      : shot(loop), deadline_(deadline), mode_(mode), statements_(std::move(statements)), changes_(std::move(changes)) {
    for (const auto& s : statements_) bytes_ += memory_of(s);
  }
  std::size_t bytes() const noexcept override { return bytes_; }
  Clock::time_point deadline() const noexcept override { return deadline_; }
  bool may_fail_alone() const noexcept override { return mode_ == Mode::together || statements_.size() == 1; }
  bool begin() noexcept override { return shot.begin(); }

  Result<void> execute(Connection& connection) override {
    if (ended_) return fail(*ended_);  // it was too slow for its group: it is not given that long again
    auto done = execute_all(connection);
    if (!done && done.error().reason == "SQL_TOO_SLOW") ended_ = done.error();
    return done;
  }
  void committed(CompletionBatch& batch) noexcept override {
    if (!changed_.empty()) changes_->notify(changed_, batch);
    batch.add(shot.complete(Result<Outcomes>(std::move(out_))));
  }
  void failed(Error error, CompletionBatch& batch) noexcept override {
    batch.add(shot.complete(Result<Outcomes>(std::unexpected(std::move(error)))));
  }

  OneShot<Result<Outcomes>> shot;

 private:
  Result<void> execute_all(Connection& connection) {
    out_ = {};
    changed_.clear();
    const Limit limit(connection, Context().with_timeout(kLongestStatement));
    if (mode_ == Mode::together) return execute_together(connection);
    if (statements_.size() == 1) {
      auto rows = run_statement(connection, statements_[0], SIZE_MAX, false, &changed_);
      if (!rows) return fail(too_slow(std::move(rows).error()));
      out_.results.push_back(std::move(rows));
      return {};
    }
    for (const auto& statement : statements_) {
      PRISM_CHECK(connection.run("SAVEPOINT one"));
      auto rows = run_statement(connection, statement, SIZE_MAX, false, &changed_);
      if (!rows) {
        if (!connection.in_transaction() || concerns_the_file(rows.error()))
          return fail(too_slow(std::move(rows).error()));
        PRISM_CHECK(connection.run("ROLLBACK TO one"));
      }
      PRISM_CHECK(connection.run("RELEASE one"));
      out_.results.push_back(std::move(rows));
    }
    return {};
  }
  Result<void> execute_together(Connection& connection) {
    out_.begun = Clock::now();
    for (std::size_t i = 0; i < statements_.size(); ++i) {
      auto rows = run_statement(connection, statements_[i], SIZE_MAX, false, &changed_);
      if (!rows) return fail(at_statement(too_slow(std::move(rows).error()), i));
      out_.results.push_back(std::move(rows));
    }
    if (changed_.empty()) {
      PRISM_TRY(out_.number, last_number(connection));
    } else {
      PRISM_TRY(out_.number, take_numbers(connection, 1));
    }
    out_.executed = Clock::now();
    return {};
  }

  Clock::time_point deadline_;
  Mode mode_;
  Batch<Statement> statements_;
  std::shared_ptr<Changes> changes_;
  std::size_t bytes_ = 512;
  Outcomes out_;
  std::optional<Error> ended_;
  TableNames changed_;
};

Position position_of(const Engine& engine, std::uint64_t number) {
  return Position(PositionPart{.source = engine.incarnation(), .partition = 0, .offset = number});
}

// What an interactive transaction answers after its own end or failure.
class TransactionState {
 public:
  Result<void> usable() const {
    if (ended_) return fail(*ended_);
    return {};
  }
  void fail_with(const Error& error) {
    if (error.reason == "TRANSACTION_EXPIRED") {
      ended_ = error;
    } else {
      ended_ = Error{Code::failed_precondition,
                     "TRANSACTION_FAILED",
                     "the transaction was rolled back: " + error.describe(),
                     "begin another one",
                     Retry::never,
                     {},
                     {}};
    }
  }
  void end() {
    ended_ = Error{Code::failed_precondition,
                   "TRANSACTION_ENDED",
                   "the transaction is over",
                   "begin another one",
                   Retry::never,
                   {},
                   {}};
  }
  static Error expired() {
    return Error{Code::aborted,
                 "TRANSACTION_EXPIRED",
                 "the transaction was open for too long and was rolled back",
                 "finish transactions sooner, or ask for a longer time",
                 Retry::safe,
                 {},
                 {}};
  }

 private:
  std::optional<Error> ended_;
};

Error known(Error error) {
  return error.reason == "TRANSACTION_TIMEOUT" ? TransactionState::expired() : std::move(error);
}

class WritingTransaction final : public SqlTransaction {
 public:
  WritingTransaction(std::shared_ptr<Engine> engine, std::unique_ptr<ExclusiveWriter> writer,
                     std::shared_ptr<Changes> changes)
      : engine_(std::move(engine)), writer_(std::move(writer)), changes_(std::move(changes)) {}

  Task<Result<Batch<SqlRows>>> execute(Context context, Batch<Statement> statements) override {
    PRISM_CO_CHECK(state_.usable());
    if (context.stopped()) co_return std::unexpected(context.over(false));
    auto done = co_await writer_->run(context,
                                      [context, statements = std::move(statements),
                                       changed = changed_](Connection& connection) -> Result<Batch<SqlRows>> {
                                        const Limit limit(connection, context);
                                        Batch<SqlRows> out;
                                        for (std::size_t i = 0; i < statements.size(); ++i) {
                                          auto rows =
                                              run_statement(connection, statements[i], SIZE_MAX, false, changed.get());
                                          if (!rows) {
                                            if (rows.error().reason == "QUERY_INTERRUPTED")
                                              return std::unexpected(context.over(false));
                                            return fail(at_statement(std::move(rows).error(), i));
                                          }
                                          out.push_back(std::move(*rows));
                                        }
                                        return out;
                                      });
    if (!done) {
      Error error = known(std::move(done).error());
      state_.fail_with(error);
      // Nobody else can write until it is out of the way.
      co_await writer_->rollback(context.shielded(kGrace));
      error.retry = Retry::safe;  // whatever was carried out is rolled back
      co_return std::unexpected(std::move(error));
    }
    co_return std::move(*done);
  }

  Task<Result<Position>> commit(Context context) override {
    PRISM_CO_CHECK(state_.usable());
    if (context.stopped()) co_return std::unexpected(context.over(false));
    const auto number =
        co_await writer_->run(context, [](Connection& connection) { return take_numbers(connection, 1); });
    if (!number) {
      Error error = known(number.error());
      state_.fail_with(error);
      co_await writer_->rollback(context.shielded(kGrace));
      co_return std::unexpected(std::move(error));
    }
    // Before the answer comes: an abandoned commit may happen too.
    const auto changed = changed_;
    state_.end();
    auto done = co_await writer_->commit(std::move(context));
    CompletionBatch batch;
    if (done || done.error().retry == Retry::unknown_outcome) changes_->notify(*changed, batch);
    if (!done) co_return std::unexpected(known(std::move(done).error()));
    co_return position_of(*engine_, *number);
  }

  Task<void> rollback(Context context) override {
    if (!state_.usable()) co_return;
    state_.end();
    co_await writer_->rollback(std::move(context));
  }

 private:
  std::shared_ptr<Engine> engine_;
  std::unique_ptr<ExclusiveWriter> writer_;
  std::shared_ptr<Changes> changes_;
  std::shared_ptr<TableNames> changed_ =
      std::make_shared<TableNames>();  // written on the writing thread, one call at a time
  TransactionState state_;
};

// A reading connection with an open transaction. It is closed when the time is over, since an old snapshot keeps the
// WAL from beginning anew.
struct Snapshot {
  std::mutex mutex;
  std::unique_ptr<Connection> connection;  // null: closed; guarded by mutex
};

class ReadingTransaction final : public SqlTransaction {
 public:
  ReadingTransaction(std::shared_ptr<Engine> engine, std::shared_ptr<Snapshot> snapshot, std::stop_source watch)
      : engine_(std::move(engine)), snapshot_(std::move(snapshot)), watch_(std::move(watch)) {}
  ~ReadingTransaction() override { close(); }

  Task<Result<Batch<SqlRows>>> execute(Context context, Batch<Statement> statements) override {
    PRISM_CO_CHECK(state_.usable());
    if (context.stopped()) co_return std::unexpected(context.over(false));
    auto done = co_await offload(engine_->runtime().files(), engine_->loop(), [&]() -> Result<Batch<SqlRows>> {
      const std::lock_guard lock(snapshot_->mutex);
      if (!snapshot_->connection) return fail(TransactionState::expired());
      const Limit limit(*snapshot_->connection, context);
      Batch<SqlRows> out;
      for (std::size_t i = 0; i < statements.size(); ++i) {
        auto rows = run_statement(*snapshot_->connection, statements[i], SIZE_MAX, true, nullptr);
        if (!rows) {
          if (rows.error().reason == "QUERY_INTERRUPTED") return std::unexpected(context.over(false));
          return fail(at_statement(std::move(rows).error(), i));
        }
        out.push_back(std::move(*rows));
      }
      return out;
    });
    if (!done) {
      state_.fail_with(done.error());
      close();
    }
    co_return done;
  }

  Task<Result<Position>> commit(Context context) override {
    PRISM_CO_CHECK(state_.usable());
    if (context.stopped()) co_return std::unexpected(context.over(false));
    auto number = co_await offload(engine_->runtime().files(), engine_->loop(), [this]() -> Result<std::uint64_t> {
      const std::lock_guard lock(snapshot_->mutex);
      if (!snapshot_->connection) return fail(TransactionState::expired());
      return last_number(*snapshot_->connection);
    });
    if (number) {
      state_.end();
    } else {
      state_.fail_with(number.error());
    }
    close();
    if (!number) co_return std::unexpected(std::move(number).error());
    co_return position_of(*engine_, *number);
  }

  Task<void> rollback(Context /*context*/) override {
    if (!state_.usable()) co_return;
    state_.end();
    close();
  }

 private:
  // The watch closes the connection, on the file pool.
  void close() { watch_.request_stop(); }

  std::shared_ptr<Engine> engine_;
  std::shared_ptr<Snapshot> snapshot_;
  std::stop_source watch_;
  TransactionState state_;
};

class Database final : public SqlDatabase {
 public:
  explicit Database(std::shared_ptr<Engine> engine)
      : engine_(std::move(engine)), changes_(std::make_shared<Changes>(engine_->loop())) {}

  SqlDialect dialect() const noexcept override { return SqlDialect::sqlite; }
  const SqlFeatures& features() const noexcept override { return features_; }
  Id128 incarnation() const noexcept override { return engine_->incarnation(); }

  Task<Batch<Result<SqlRows>>> point(Context context, Batch<Statement> statements) override {
    const std::size_t n = statements.size();
    const auto all = [n](const Error& error) { return Batch<Result<SqlRows>>(n, std::unexpected(error)); };
    if (n == 0) co_return {};
    if (context.stopped()) co_return all(context.over(false));
    if (std::all_of(statements.begin(), statements.end(), [](const Statement& s) { return surely_reads(s.text); })) {
      auto read = co_await engine_->read(context, [&](Connection& connection) -> Result<Batch<Result<SqlRows>>> {
        Batch<Result<SqlRows>> out;
        for (const auto& statement : statements) {
          out.push_back(run_statement(connection, statement, SIZE_MAX, true, nullptr));
          // Once it is interrupted the rest would be too.
          if (!out.back() && out.back().error().reason == "QUERY_INTERRUPTED") return fail(out.back().error());
        }
        return out;
      });
      if (!read) co_return all(read.error());
      co_return std::move(*read);
    }
    auto done = co_await write(std::move(context), StatementsOp::Mode::each, std::move(statements));
    if (!done) co_return all(done.error());
    co_return std::move(done->results);
  }

  Task<Result<Committed>> atomically(Context context, Batch<Statement> statements) override {
    if (context.stopped()) co_return std::unexpected(context.over(false));
    PRISM_CO_TRY(auto done, co_await write(std::move(context), StatementsOp::Mode::together, std::move(statements)));
    Committed committed{
        .results = {}, .position = position_of(*engine_, done.number), .begun = done.begun, .executed = done.executed};
    committed.results.reserve(done.results.size());
    for (auto& rows : done.results) committed.results.push_back(std::move(*rows));
    co_return committed;
  }

  Task<Result<std::unique_ptr<SqlTransaction>>> begin(Context context, TxOptions options) override {
    if (context.stopped()) co_return std::unexpected(context.over(false));
    if (options.timeout <= Clock::duration(0)) {
      co_return fail(Code::invalid_argument, "INVALID_TIMEOUT",
                     "the time that a transaction may be open must be positive");
    }
    if (options.read_only) co_return co_await begin_reading(options.timeout);
    PRISM_CO_TRY(auto writer, co_await engine_->lock(std::move(context), options.timeout));
    co_return std::unique_ptr<SqlTransaction>(new WritingTransaction(engine_, std::move(writer), changes_));
  }

  Task<Result<SqlRows>> query(Context context, Statement statement, std::size_t max_rows) override {
    co_return co_await engine_->read(std::move(context), [&](Connection& connection) {
      return run_statement(connection, statement, max_rows, true, nullptr);
    });
  }

  Task<Result<void>> create_table(Context context, TableSpec spec) override {
    if (const std::string name = folded(spec.name);
        spec.name.empty() || name.starts_with(kInternalPrefix) || name.starts_with("sqlite_")) {
      co_return fail(
          Code::invalid_argument, "INVALID_TABLE_NAME",
          fmt::format(
              "\"{}\" is no name for a table: names that begin with prism_ or sqlite_ are kept for the database itself",
              spec.name));
    }
    co_return co_await create(std::move(context), describe_table(spec), /*existing_is_fine=*/true);
  }

  Task<Result<void>> create_from_ddl(Context context, std::string ddl) override {
    PRISM_CO_TRY(auto parsed, parse_ddl(ddl));
    co_return co_await create(std::move(context), std::move(parsed), /*existing_is_fine=*/false);
  }

  Task<Result<std::optional<TableInfo>>> describe(Context context, std::string table) override {
    co_return co_await engine_->read(
        std::move(context), [&](Connection& connection) -> Result<std::optional<TableInfo>> {
          PRISM_TRY(
              Query columns,
              connection.prepare("SELECT m.name, c.name, lower(coalesce(p.type, c.type)), c.\"notnull\" OR c.pk > 0, "
                                 "c.dflt_value IS NOT NULL OR (c.pk = 1 AND c.type = 'INTEGER'), c.pk > 0 "
                                 "FROM sqlite_master m JOIN pragma_table_info(m.name) c LEFT JOIN prism_columns p "
                                 "ON p.table_name = lower(m.name) AND p.column_name = lower(c.name) "
                                 "WHERE m.type IN ('table', 'view') AND lower(m.name) = lower(?1) ORDER BY c.cid"));
          columns.bind_text_view(1, table);
          std::optional<TableInfo> info;
          while (true) {
            PRISM_TRY(const bool row, columns.step());
            if (!row) return info;
            if (!info) info.emplace().name = columns.text(0);
            info->columns.push_back({.name = std::string(columns.text(1)),
                                     .type = std::string(columns.text(2)),
                                     .not_null = columns.integer(3) != 0,
                                     .has_default = columns.integer(4) != 0,
                                     .primary_key = columns.integer(5) != 0});
          }
        });
  }

  Task<void> wait_for_change(Context context, std::string table, Clock::duration at_most) override {
    const auto notifier = changes_->of(table);
    const std::uint64_t seen = notifier->version();
    {
      const std::lock_guard lock(mutex_);
      if (closed_) co_return;
      if (!std::exchange(watching_, true)) scope_.spawn(watch_others(engine_, changes_, scope_.stop_token()));
    }
    co_await notifier->wait(std::move(context), seen, at_most);
  }

  Task<void> close(Context /*context*/) override {
    {
      const std::lock_guard lock(mutex_);
      closed_ = true;
    }
    scope_.request_stop();
    co_await scope_.join();
  }

 private:
  using Outcomes = StatementsOp::Outcomes;

  Task<Result<Outcomes>> write(Context context, StatementsOp::Mode mode, Batch<Statement> statements) {
    auto op =
        std::make_shared<StatementsOp>(&engine_->loop(), context.deadline(), mode, std::move(statements), changes_);
    if (auto queued = engine_->submit(op); !queued) co_return std::unexpected(std::move(queued).error());
    const Outcome outcome = co_await op->shot.wait(context.stop());
    if (outcome != Outcome::done) co_return std::unexpected(context.over(outcome == Outcome::abandoned));
    co_return op->shot.take();
  }

  Task<Result<void>> create(Context context, Ddl ddl, bool existing_is_fine) {
    if (context.stopped()) co_return std::unexpected(context.over(false));
    co_return co_await engine_->write(std::move(context),
                                      [ddl = std::move(ddl), existing_is_fine](Connection& connection) {
                                        return create_in(connection, ddl, existing_is_fine);
                                      });
  }

  static Result<bool> exists(Connection& connection, const std::string& table) {
    PRISM_TRY(
        Query query,
        connection.prepare("SELECT 1 FROM sqlite_master WHERE type IN ('table', 'view') AND lower(name) = lower(?1)"));
    query.bind_text_view(1, table);
    return query.step();
  }
  static Result<bool> has_column(Connection& connection, const std::string& table, const std::string& column) {
    PRISM_TRY(Query query, connection.prepare("SELECT 1 FROM pragma_table_info(?1) WHERE lower(name) = lower(?2)"));
    query.bind_text_view(1, table).bind_text_view(2, column);
    return query.step();
  }

  static Result<void> create_in(Connection& connection, const Ddl& ddl, bool existing_is_fine) {
    for (const auto& statement : ddl) {
      if (const auto* table = std::get_if<DdlTable>(&statement)) {
        PRISM_TRY(const bool present, exists(connection, table->name));
        if (present && existing_is_fine) return {};  // Prism's own: one table and its indexes
        if (present && table->if_not_exists) continue;
        if (present)
          return fail(Code::already_exists, "TABLE_EXISTS",
                      fmt::format("the table \"{}\" exists already", table->name));
        PRISM_CHECK(connection.execute(render(*table)));
        PRISM_CHECK(note_types(connection, *table));
      } else {
        const auto& index = std::get<DdlIndex>(statement);
        std::vector<std::string> columns;
        for (const auto& c : index.columns) columns.push_back(c.name);
        if (!index.where.empty()) columns.push_back(index.where);
        for (const auto& column : columns) {
          PRISM_TRY(const bool there, has_column(connection, index.table, column));
          if (there) continue;
          return fail(Code::failed_precondition, "INDEX_WITHOUT_COLUMN",
                      fmt::format("{}:{}: the index \"{}\" needs a column \"{}\" of a table \"{}\", which is not there",
                                  index.place.line, index.place.column, index.name, column, index.table));
        }
        PRISM_CHECK(connection.execute(render(index)));
      }
    }
    return {};
  }

  // What the user called the types; SQLite's own are too few to tell them apart.
  static Result<void> note_types(Connection& connection, const DdlTable& table) {
    {
      PRISM_TRY(Query clear, connection.prepare("DELETE FROM prism_columns WHERE table_name = lower(?1)"));
      clear.bind_text_view(1, table.name);
      PRISM_CHECK(clear.run());
    }
    for (const auto& column : table.columns) {
      PRISM_TRY(Query insert, connection.prepare("INSERT INTO prism_columns VALUES (lower(?1), lower(?2), ?3)"));
      insert.bind_text_view(1, table.name).bind_text_view(2, column.name).bind_text_view(3, postgres_name(column.type));
      PRISM_CHECK(insert.run());
    }
    return {};
  }

  Task<Result<std::unique_ptr<SqlTransaction>>> begin_reading(Clock::duration timeout) {
    auto snapshot = std::make_shared<Snapshot>();
    auto opened = co_await offload(engine_->runtime().files(), engine_->loop(), [&]() -> Result<void> {
      PRISM_TRY(auto connection, Connection::open(engine_->path(), Connection::Kind::reader, kSnapshotCacheKib));
      PRISM_CHECK(connection->begin_read());
      PRISM_CHECK(last_number(*connection));  // the first read takes the snapshot
      snapshot->connection = std::move(connection);
      return {};
    });
    if (!opened) co_return std::unexpected(std::move(opened).error());
    std::stop_source watch;
    {
      const std::lock_guard lock(mutex_);
      if (closed_)
        co_return fail(Code::unavailable, "ENGINE_CLOSED", "the database file is being closed", "", Retry::safe);
      scope_.spawn(watch_snapshot(engine_, snapshot, watch.get_token(), scope_.stop_token(), timeout));
    }
    co_return std::unique_ptr<SqlTransaction>(new ReadingTransaction(engine_, std::move(snapshot), std::move(watch)));
  }

  // Closes the snapshot when its time is over, its transaction has ended, or the database is closed.
  static Task<void> watch_snapshot(std::shared_ptr<Engine> engine, std::shared_ptr<Snapshot> snapshot,
                                   std::stop_token ended, std::stop_token closing, Clock::duration timeout) {
    std::stop_source either;
    const auto stop = [&either] { either.request_stop(); };
    const std::stop_callback on_end(ended, stop);
    const std::stop_callback on_close(closing, stop);
    co_await sleep_for(engine->loop(), Context::background(either.get_token()), timeout);
    co_await offload(engine->runtime().files(), engine->loop(), [&] {
      const std::lock_guard lock(snapshot->mutex);
      snapshot->connection.reset();
    });
  }

  // What another process has changed is not known: everybody who waits has a look.
  static Task<void> watch_others(std::shared_ptr<Engine> engine, std::shared_ptr<Changes> changes,
                                 std::stop_token stop) {
    const Engine::Watch watch(*engine);
    const Context context = Context::background(std::move(stop));
    std::uint64_t seen = engine->foreign_commits().version();
    while (!context.stopped()) {
      const std::uint64_t version = co_await engine->foreign_commits().wait(context, seen, std::chrono::hours(1));
      if (version != seen) changes->notify_all();
      seen = version;
    }
  }

  std::shared_ptr<Engine> engine_;
  std::shared_ptr<Changes> changes_;
  SqlFeatures features_{.durability = Durability::fsync};
  std::mutex mutex_;
  bool closed_ = false;    // guarded by mutex_
  bool watching_ = false;  // guarded by mutex_
  Scope scope_;
};

}  // namespace

Task<Result<std::shared_ptr<SqlDatabase>>> open_sql_database(Context context, std::shared_ptr<Engine> engine) {
  auto made = co_await engine->write(std::move(context), [](Connection& connection) {
    return connection.execute(std::string(kNumbersDdl) + kColumnsDdl);
  });
  if (!made) co_return std::unexpected(std::move(made).error());
  co_return std::make_shared<Database>(std::move(engine));
}

}  // namespace prism::sqlite
