// SqlDatabase: statements, transactions and introspection of a relational database.
//
// Prism's own tables are described by TableSpec and rendered by each dialect; no SQL text is shared between dialects.
// What a user writes (an outbox `schema`) goes to PostgreSQL as it is and through the DDL parser to SQLite.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/types.h"
#include "capabilities/position.h"
#include "runtime/context.h"
#include "runtime/task.h"

namespace prism {

enum class SqlDialect : std::uint8_t { postgresql, sqlite };

struct SqlNull {
  friend bool operator==(const SqlNull&, const SqlNull&) = default;
};
// Text is UTF-8; decimals, timestamps and JSON travel as text, so that nothing is rounded.
using SqlValue = std::variant<SqlNull, bool, std::int64_t, double, std::string, Bytes>;

// $1..$n refer to `bind`. The text never holds a value.
struct Statement {
  std::string text;
  std::vector<SqlValue> bind;
};

struct SqlRows {
  std::vector<std::string> columns;
  std::vector<std::vector<SqlValue>> rows;
  std::uint64_t affected = 0;
};

struct Committed {
  Batch<SqlRows> results;  // one a statement
  Position position;       // of the transaction
  // When the database began with the transaction, and when it had carried out the last statement and began to commit.
  Clock::time_point begun{}, executed{};
};

// What Prism asks of a table of its own; each dialect renders it.
enum class ColumnType : std::uint8_t {
  id,  // 64-bit, generated, growing, primary key
  text,
  integer,  // 64-bit
  bytes,
  json,       // JSON text, kept exactly as written on SQLite, JSONB on PostgreSQL
  timestamp,  // microseconds; SQLite: text "2026-01-31 12:34:56.123456" (UTC), which sorts
};
struct ColumnSpec {
  std::string name;
  ColumnType type = ColumnType::text;
  bool not_null = false;
  bool default_now = false;  // timestamp only
};
struct IndexSpec {
  std::string name;
  std::vector<std::string> columns;
  std::string where_null;  // only rows in which this column is null; empty: all rows
  bool unique = false;
};
struct TableSpec {
  std::string name;
  std::vector<ColumnSpec> columns;
  std::vector<IndexSpec> indexes;
};

struct TableInfo {
  struct Column {
    std::string name;
    std::string type;  // as the database calls it, lower case
    bool not_null = false;
    bool has_default = false;
    bool primary_key = false;
  };
  std::string name;
  std::vector<Column> columns;
  const Column* find(std::string_view column) const {
    for (const auto& c : columns) {
      if (c.name == column) return &c;
    }
    return nullptr;
  }
};

struct TxOptions {
  bool read_only = false;
  Clock::duration timeout = std::chrono::seconds(30);  // a transaction open for longer is rolled back
};

// An exclusive connection; one call at a time. Destroying it without commit or rollback rolls back.
class SqlTransaction {
 public:
  virtual ~SqlTransaction() = default;
  // The first error fails the rest and the transaction.
  virtual Task<Result<Batch<SqlRows>>> execute(Context context, Batch<Statement> statements) = 0;
  virtual Task<Result<Position>> commit(Context context) = 0;  // call with a shielded context; may be unknown_outcome
  virtual Task<void> rollback(Context context) = 0;
};

struct SqlFeatures {
  Durability durability = Durability::memory;
};

// Any thread; any number of calls at once; resumes on a loop thread.
class SqlDatabase {
 public:
  virtual ~SqlDatabase() = default;
  virtual SqlDialect dialect() const noexcept = 0;
  virtual const SqlFeatures& features() const noexcept = 0;
  virtual Id128 incarnation() const noexcept = 0;  // names this database in positions
  // Short, independent statements; a write is answered when it is committed durably. A failing statement fails alone.
  virtual Task<Batch<Result<SqlRows>>> point(Context context, Batch<Statement> statements) = 0;
  // All statements or none, in one transaction, without an interactive one's round trips. The answer comes after the
  // commit.
  virtual Task<Result<Committed>> atomically(Context context, Batch<Statement> statements) = 0;
  virtual Task<Result<std::unique_ptr<SqlTransaction>>> begin(Context context, TxOptions options) = 0;
  // Runs in a snapshot on a reading connection: no write is accepted.
  virtual Task<Result<SqlRows>> query(Context context, Statement statement, std::size_t max_rows) = 0;
  virtual Task<Result<void>> create_table(Context context, TableSpec spec) = 0;  // does nothing where it exists
  // The user's own DDL (CREATE TABLE, CREATE INDEX); SQL_NOT_PORTABLE where the twin cannot do it.
  virtual Task<Result<void>> create_from_ddl(Context context, std::string ddl) = 0;
  virtual Task<Result<std::optional<TableInfo>>> describe(Context context, std::string table) = 0;
  // Something in the table may have changed since the call: a hint to poll, never the truth. Returns at the timeout
  // anyhow.
  virtual Task<void> wait_for_change(Context context, std::string table, Clock::duration at_most) = 0;
  virtual Task<void> close(Context context) = 0;
};

// Text of one dialect that Prism's own statements need.
struct SqlText {
  SqlDialect dialect;
  static std::string quote(std::string_view identifier);  // "a" -> "\"a\"" (both dialects)
  std::string now() const;                                // the present time, in the form of ColumnType::timestamp
  std::string ago(
      std::string_view microseconds_expression) const;           // now() minus that many microseconds, in the same form
  std::string age(std::string_view timestamp_expression) const;  // microseconds since then, 64-bit; NULL of NULL
  std::string lane(std::string_view key_expression,
                   std::uint32_t lanes) const;  // 0..lanes-1 by a stable hash of the text
};

}  // namespace prism
