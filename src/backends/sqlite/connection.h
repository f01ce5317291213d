// One connection to an SQLite file and its statement cache. Not thread-safe: one thread at a time.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "backends/sqlite/errors.h"
#include "base/types.h"
#include "runtime/context.h"

namespace prism::sqlite {

class Connection;

// A prepared statement on loan from its connection's cache: reset and unbound when it goes. It must not outlive the
// connection.
class Query {
 public:
  Query(Query&& other) noexcept;
  Query& operator=(Query&&) = delete;
  ~Query();

  // Parameters from 1. Views passed to bind_view must stay as they are until the query goes or is reset; they are not
  // copied.
  Query& bind(int index, std::int64_t value);
  Query& bind(int index, double value);
  Query& bind_null(int index);
  Query& bind_text(int index, std::string_view value);  // copied
  Query& bind_blob(int index, std::string_view value);  // copied
  Query& bind_text_view(int index, std::string_view value);
  Query& bind_blob_view(int index, std::string_view value);

  // True: a row is there. False: done. An error of an earlier bind is given here.
  Result<bool> step();
  Result<void> run();  // steps to the end, dropping rows
  void reset();        // to be bound and stepped again; bindings are kept

  // Of the present row, columns from 0. Views are valid until the next step, reset or end of the query.
  std::int64_t integer(int column) const { return sqlite3_column_int64(statement_, column); }
  double real(int column) const { return sqlite3_column_double(statement_, column); }
  std::string_view text(int column) const;
  std::string_view blob(int column) const;
  bool is_null(int column) const { return sqlite3_column_type(statement_, column) == SQLITE_NULL; }
  sqlite3_stmt* handle() const noexcept { return statement_; }

 private:
  friend class Connection;
  Query(Connection* connection, sqlite3_stmt* statement, bool cached) noexcept
      : connection_(connection), statement_(statement), cached_(cached) {}
  void note(int rc) noexcept {
    if (rc != SQLITE_OK && failed_ == SQLITE_OK) failed_ = rc;
  }

  Connection* connection_;
  sqlite3_stmt* statement_;
  bool cached_;
  int failed_ = SQLITE_OK;
};

class Connection {
 public:
  enum class Kind : std::uint8_t { writer, reader };
  // Opens (and, for a writer, creates) the file and puts it into WAL mode with synchronous=FULL. A reader refuses every
  // write.
  static Result<std::unique_ptr<Connection>> open(const std::string& path, Kind kind, int cache_kib);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // From the cache if the same text was prepared before and is not on loan. One statement only: text after its end that
  // is more than blanks is an error (SQL_ERROR).
  Result<Query> prepare(std::string_view sql);
  // For texts that are not worth keeping (a user's own statements, DDL).
  Result<Query> prepare_once(std::string_view sql);
  Result<void> run(std::string_view sql);  // prepare(sql) and run it to its end
  // Any number of statements without parameters or results.
  Result<void> execute(std::string_view sql);
  Result<std::int64_t> integer(std::string_view sql);  // the first column of the first row; 0 if there is no row

  sqlite3* handle() const noexcept { return db_; }
  std::int64_t last_insert_rowid() const noexcept { return sqlite3_last_insert_rowid(db_); }
  std::int64_t changes() const noexcept { return sqlite3_changes64(db_); }
  bool in_transaction() const noexcept { return sqlite3_get_autocommit(db_) == 0; }

  Result<void> begin_read();  // a snapshot, kept until end_read
  void end_read();

  // While set, statements end with QUERY_INTERRUPTED soon after the context is over.
  void interrupt_with(std::optional<Context> context);
  // How long a statement waits for another process's lock before DATABASE_BUSY. Default: 10 seconds.
  void busy_timeout(Clock::duration d) noexcept { busy_timeout_ = d; }
  // Called now and then while a statement waits for another process's lock.
  void while_busy(std::move_only_function<void()> f) { while_busy_ = std::move(f); }

 private:
  friend class Query;
  Connection() = default;
  Result<sqlite3_stmt*> compile(std::string_view sql, unsigned flags);
  static int on_busy(void* self, int count);
  static int on_progress(void* self);

  struct Cached {
    sqlite3_stmt* statement = nullptr;
    bool on_loan = false;
  };
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view s) const noexcept { return std::hash<std::string_view>()(s); }
  };

  sqlite3* db_ = nullptr;
  std::unordered_map<std::string, Cached, Hash, std::equal_to<>> cache_;
  std::unordered_map<sqlite3_stmt*, Cached*> loans_;
  std::optional<Context> context_;
  Clock::duration busy_timeout_ = std::chrono::seconds(10);
  Clock::time_point busy_since_{};
  std::move_only_function<void()> while_busy_;
};

}  // namespace prism::sqlite
