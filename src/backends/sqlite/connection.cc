#include "backends/sqlite/connection.h"

#include <algorithm>
#include <cctype>
#include <thread>

#include "backends/sqlite/functions.h"

namespace prism::sqlite {

Query::Query(Query&& other) noexcept
    : connection_(other.connection_),
      statement_(std::exchange(other.statement_, nullptr)),
      cached_(other.cached_),
      failed_(other.failed_) {}

Query::~Query() {
  if (statement_ == nullptr) return;
  if (!cached_) {
    sqlite3_finalize(statement_);
    return;
  }
  sqlite3_reset(statement_);
  sqlite3_clear_bindings(statement_);
  if (const auto it = connection_->loans_.find(statement_); it != connection_->loans_.end())
    it->second->on_loan = false;
}

Query& Query::bind(int index, std::int64_t value) {
  note(sqlite3_bind_int64(statement_, index, value));
  return *this;
}
Query& Query::bind(int index, double value) {
  note(sqlite3_bind_double(statement_, index, value));
  return *this;
}
Query& Query::bind_null(int index) {
  note(sqlite3_bind_null(statement_, index));
  return *this;
}
// A null pointer would bind NULL: an empty view is an empty value.
Query& Query::bind_text(int index, std::string_view value) {
  note(sqlite3_bind_text64(statement_, index, value.empty() ? "" : value.data(), value.size(), SQLITE_TRANSIENT,
                           SQLITE_UTF8));
  return *this;
}
Query& Query::bind_blob(int index, std::string_view value) {
  note(sqlite3_bind_blob64(statement_, index, value.empty() ? "" : value.data(), value.size(), SQLITE_TRANSIENT));
  return *this;
}
Query& Query::bind_text_view(int index, std::string_view value) {
  note(sqlite3_bind_text64(statement_, index, value.empty() ? "" : value.data(), value.size(), SQLITE_STATIC,
                           SQLITE_UTF8));
  return *this;
}
Query& Query::bind_blob_view(int index, std::string_view value) {
  note(sqlite3_bind_blob64(statement_, index, value.empty() ? "" : value.data(), value.size(), SQLITE_STATIC));
  return *this;
}

Result<bool> Query::step() {
  if (failed_ != SQLITE_OK) return fail(translate(connection_->db_, failed_, "bind a parameter"));
  const int rc = sqlite3_step(statement_);
  if (rc == SQLITE_ROW) return true;
  if (rc == SQLITE_DONE) return false;
  return fail(translate(connection_->db_, rc, "run a statement"));
}

Result<void> Query::run() {
  while (true) {
    PRISM_TRY(const bool row, step());
    if (!row) return {};
  }
}

void Query::reset() { sqlite3_reset(statement_); }

std::string_view Query::text(int column) const {
  const auto* data = reinterpret_cast<const char*>(sqlite3_column_text(statement_, column));
  return data == nullptr ? std::string_view() : std::string_view(data, sqlite3_column_bytes(statement_, column));
}
std::string_view Query::blob(int column) const {
  const auto* data = static_cast<const char*>(sqlite3_column_blob(statement_, column));
  return data == nullptr ? std::string_view() : std::string_view(data, sqlite3_column_bytes(statement_, column));
}

Result<std::unique_ptr<Connection>> Connection::open(const std::string& path, Kind kind, int cache_kib) {
  std::unique_ptr<Connection> c(new Connection());
  const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | (kind == Kind::writer ? SQLITE_OPEN_CREATE : 0);
  if (const int rc = sqlite3_open_v2(path.c_str(), &c->db_, flags, nullptr); rc != SQLITE_OK) {
    return fail(translate(c->db_, rc, "open " + path));
  }
  sqlite3_extended_result_codes(c->db_, 1);
  if (const int rc = install_functions(c->db_); rc != SQLITE_OK) return fail(translate(c->db_, rc, "open " + path));
  sqlite3_busy_handler(c->db_, &Connection::on_busy, c.get());
  // Of a new file only. Records are larger than rows usually are: of 1 KiB each, pages of 8 KiB cost a fifth less than
  // of 4.
  PRISM_CHECK(c->execute("PRAGMA page_size=8192"));
  // Several processes may turn the same new file into WAL mode at once; SQLite answers BUSY at once then, without the
  // handler.
  const auto give_up = Clock::now() + c->busy_timeout_;
  while (true) {
    auto done = c->execute("PRAGMA journal_mode=WAL");
    if (done) break;
    if (done.error().reason != "DATABASE_BUSY" || Clock::now() > give_up)
      return std::unexpected(std::move(done).error());
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  PRISM_CHECK(c->execute(
      "PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON; PRAGMA wal_autocheckpoint=0; PRAGMA trusted_schema=OFF; "
      "PRAGMA journal_size_limit=67108864; PRAGMA cache_size=-" +
      std::to_string(cache_kib)));
  if (kind == Kind::reader) PRISM_CHECK(c->execute("PRAGMA query_only=ON"));
  return c;
}

Connection::~Connection() {
  for (auto& [text, cached] : cache_) sqlite3_finalize(cached.statement);
  sqlite3_close_v2(db_);
}

Result<sqlite3_stmt*> Connection::compile(std::string_view sql, unsigned flags) {
  sqlite3_stmt* statement = nullptr;
  const char* tail = nullptr;
  const int rc = sqlite3_prepare_v3(db_, sql.data(), static_cast<int>(sql.size()), flags, &statement, &tail);
  if (rc != SQLITE_OK) return fail(translate(db_, rc, "prepare a statement"));
  const std::string_view rest = sql.substr(static_cast<std::size_t>(tail - sql.data()));
  const bool more =
      std::any_of(rest.begin(), rest.end(), [](unsigned char ch) { return std::isspace(ch) == 0 && ch != ';'; });
  if (statement == nullptr || more) {
    sqlite3_finalize(statement);
    return fail(Code::invalid_argument, "SQL_ERROR",
                more ? "more than one SQL statement in one text" : "the SQL text holds no statement");
  }
  return statement;
}

Result<Query> Connection::prepare(std::string_view sql) {
  auto it = cache_.find(sql);
  if (it == cache_.end()) {
    constexpr std::size_t kMostCached = 512;  // texts may come from users, in any number
    if (cache_.size() >= kMostCached) return prepare_once(sql);
    PRISM_TRY(sqlite3_stmt* const statement, compile(sql, SQLITE_PREPARE_PERSISTENT));
    it = cache_.emplace(std::string(sql), Cached{statement, false}).first;
    loans_.emplace(statement, &it->second);
  } else if (it->second.on_loan) {
    return prepare_once(sql);
  }
  it->second.on_loan = true;
  return Query(this, it->second.statement, true);
}

Result<Query> Connection::prepare_once(std::string_view sql) {
  PRISM_TRY(sqlite3_stmt* const statement, compile(sql, 0));
  return Query(this, statement, false);
}

Result<void> Connection::run(std::string_view sql) {
  PRISM_TRY(Query query, prepare(sql));
  return query.run();
}

Result<void> Connection::execute(std::string_view sql) {
  const std::string text(sql);
  if (const int rc = sqlite3_exec(db_, text.c_str(), nullptr, nullptr, nullptr); rc != SQLITE_OK) {
    return fail(translate(db_, rc, "run a statement"));
  }
  return {};
}

Result<std::int64_t> Connection::integer(std::string_view sql) {
  PRISM_TRY(Query query, prepare(sql));
  PRISM_TRY(const bool row, query.step());
  return row ? query.integer(0) : 0;
}

Result<void> Connection::begin_read() { return run("BEGIN"); }

void Connection::end_read() {
  if (!in_transaction()) return;
  (void)run("ROLLBACK");
}

void Connection::interrupt_with(std::optional<Context> context) {
  context_ = std::move(context);
  constexpr int kInstructions = 2000;
  sqlite3_progress_handler(db_, context_ ? kInstructions : 0, context_ ? &Connection::on_progress : nullptr, this);
}

int Connection::on_progress(void* self) {
  const auto* c = static_cast<Connection*>(self);
  return c->context_ && c->context_->stopped() ? 1 : 0;
}

int Connection::on_busy(void* self, int count) {
  auto* c = static_cast<Connection*>(self);
  const auto now = Clock::now();
  if (count == 0) c->busy_since_ = now;
  if (now - c->busy_since_ >= c->busy_timeout_ || (c->context_ && c->context_->stopped())) return 0;
  if (c->while_busy_ && count % 16 == 15) c->while_busy_();
  std::this_thread::sleep_for(std::chrono::microseconds(std::min(100 + 100 * count, 2000)));
  return 1;
}

}  // namespace prism::sqlite
