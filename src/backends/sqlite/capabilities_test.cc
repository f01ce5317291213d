// SqlDatabase, KeyValueStore and Lease on the embedded engine: the conformance suites, and what is particular to
// SQLite.
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "backends/sqlite/functions.h"
#include "backends/sqlite/key_value_store.h"
#include "backends/sqlite/lease.h"
#include "backends/sqlite/sql_database.h"
#include "base/ids.h"
#include "capabilities/testing/key_value_suite.h"
#include "capabilities/testing/lease_suite.h"
#include "capabilities/testing/sql_database_suite.h"

namespace prism::sqlite {
namespace {

using ::testing::HasSubstr;

class TempDirectory {
 public:
  TempDirectory() : path_(std::filesystem::temp_directory_path() / ("prism-sqlite-" + to_hex(random_id()))) {
    std::filesystem::create_directories(path_);
  }
  ~TempDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string file() const { return (path_ / "test.db").string(); }

 private:
  std::filesystem::path path_;
};

template <class T>
T must(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().describe());
  return std::move(*result);
}

// Everything that one process has on a file. Two of them on one file are to SQLite what two processes are.
class Client {
 public:
  Client(Runtime& runtime, const std::string& file)
      : engine(must(run_blocking(Engine::open(runtime, file)))),
        database(must(run_blocking(open_sql_database(Context(), engine)))),
        store(must(run_blocking(open_key_value_store(Context(), engine)))),
        lease(must(run_blocking(open_lease(Context(), engine)))) {}
  ~Client() {
    run_blocking(store->close(Context()));
    run_blocking(database->close(Context()));
    run_blocking(engine->close());
  }
  std::shared_ptr<Engine> engine;
  std::shared_ptr<SqlDatabase> database;
  std::shared_ptr<KeyValueStore> store;
  std::shared_ptr<Lease> lease;
};

// Two clients on one file.
class World {
 public:
  World() { restart(); }
  void restart() {
    second_.reset();
    first_.reset();
    first_ = std::make_unique<Client>(runtime, directory.file());
    second_ = std::make_unique<Client>(runtime, directory.file());
  }
  Client& first() { return *first_; }
  Client& second() { return *second_; }

  TempDirectory directory;
  Runtime runtime;

 private:
  std::unique_ptr<Client> first_;
  std::unique_ptr<Client> second_;
};

class KeyValueWorld final : public KeyValueBed {
 public:
  KeyValueStore& store() override { return *world_.first().store; }
  KeyValueStore& other() override { return *world_.second().store; }
  void restart() override { world_.restart(); }

 private:
  World world_;
};
class LeaseWorld final : public LeaseBed {
 public:
  Lease& lease() override { return *world_.first().lease; }
  Lease& other() override { return *world_.second().lease; }
  SqlDatabase* database() override { return world_.first().database.get(); }
  void restart() override { world_.restart(); }

 private:
  World world_;
};
class SqlWorld final : public SqlDatabaseBed {
 public:
  SqlDatabase& database() override { return *world_.first().database; }
  SqlDatabase& other() override { return *world_.second().database; }
  void restart() override { world_.restart(); }

 private:
  World world_;
};

}  // namespace
}  // namespace prism::sqlite

namespace prism {
INSTANTIATE_TEST_SUITE_P(Sqlite, KeyValueSuite,
                         ::testing::Values(KeyValueParam{"sqlite",
                                                         [] { return std::make_unique<sqlite::KeyValueWorld>(); }}));
INSTANTIATE_TEST_SUITE_P(Sqlite, LeaseSuite,
                         ::testing::Values(LeaseParam{"sqlite",
                                                      [] { return std::make_unique<sqlite::LeaseWorld>(); }}));
INSTANTIATE_TEST_SUITE_P(Sqlite, SqlDatabaseSuite,
                         ::testing::Values(SqlDatabaseParam{"sqlite",
                                                            [] { return std::make_unique<sqlite::SqlWorld>(); }}));
}  // namespace prism

namespace prism::sqlite {
namespace {

class SqliteSql : public ::testing::Test {
 protected:
  SqlDatabase& db() { return *world_.first().database; }
  Engine& engine() { return *world_.first().engine; }
  Result<SqlRows> run(std::string text, std::vector<SqlValue> bind = {}) {
    Batch<Statement> batch(1);
    batch[0] = {std::move(text), std::move(bind)};
    return std::move(run_blocking(db().point(Context(), std::move(batch))).at(0));
  }
  std::string reason(std::string text, std::vector<SqlValue> bind = {}) {
    const auto r = run(std::move(text), std::move(bind));
    return r ? "ok" : r.error().reason;
  }
  std::string ddl(std::string text) {
    const auto r = run_blocking(db().create_from_ddl(Context(), std::move(text)));
    return r ? "ok" : r.error().reason;
  }
  std::string text(std::string sql) {
    const auto r = run(std::move(sql));
    if (!r) return r.error().describe();
    return std::get<std::string>(r->rows.at(0).at(0));
  }
  std::int64_t integer(std::string sql) {
    const auto r = run(std::move(sql));
    return r ? std::get<std::int64_t>(r->rows.at(0).at(0)) : -1;
  }
  World world_;
};

TEST_F(SqliteSql, StatementsReadAndWriteRowsAndNothingElse) {
  ASSERT_EQ(ddl("CREATE TABLE t (id BIGSERIAL PRIMARY KEY, a INT, b TEXT)"), "ok");
  ASSERT_TRUE(run_blocking(world_.first().lease->acquire(Context(), "job", "a", std::chrono::hours(1))));
  for (const char* sql : {"ATTACH 'other.db' AS other",
                          "DETACH main",
                          "PRAGMA journal_mode=DELETE",
                          "PRAGMA user_version",
                          "CREATE TABLE u (a)",
                          "CREATE TEMP TABLE u (a)",
                          "CREATE INDEX i ON t (a)",
                          "CREATE VIEW v AS SELECT 1",
                          "CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; END",
                          "DROP TABLE t",
                          "ALTER TABLE t ADD COLUMN c INT",
                          "BEGIN",
                          "COMMIT",
                          "ROLLBACK",
                          "SAVEPOINT s",
                          "RELEASE s",
                          "REINDEX",
                          "ANALYZE",
                          "CREATE VIRTUAL TABLE f USING fts5(x)",
                          "INSERT INTO sqlite_sequence VALUES ('t', 1)",
                          "DELETE FROM prism_kv",
                          "UPDATE prism_numbers SET value = 1",
                          "INSERT INTO PRISM_LEASE VALUES ('x', 'y', 1, 1, 1)",
                          "SELECT * FROM prism_kv",
                          "SELECT value FROM prism_numbers",  // as the store itself writes it
                          "SELECT (SELECT value FROM prism_meta)",
                          "INSERT INTO t (b) SELECT value FROM prism_meta",
                          "WITH x AS (SELECT * FROM prism_numbers) SELECT * FROM x",
                          "SELECT load_extension('x')",
                          "SELECT * FROM pragma_table_info('t')",
                          "UPDATE prism_numbers SET value = value + 1 RETURNING value"}) {
    EXPECT_EQ(reason(sql), "SQL_FORBIDDEN") << sql;
  }
  EXPECT_EQ(reason("VACUUM"), "SQL_ERROR");  // it cannot run where statements do
  EXPECT_EQ(reason("INSERT INTO t (a) VALUES (1)"), "ok");
  EXPECT_EQ(integer("SELECT count(*) FROM t"), 1);
  EXPECT_EQ(integer("SELECT count(*) FROM prism_lease"), 1);  // what guards read
  // The rules are for statements, not for the store itself.
  Batch<Mutation> batch(1);
  batch[0] = {.key = "k", .value = Bytes("v")};
  EXPECT_TRUE(run_blocking(world_.first().store->apply(Context(), std::move(batch))).at(0));
}

TEST_F(SqliteSql, TypesAreKept) {
  ASSERT_EQ(ddl("CREATE TABLE t (i BIGINT, s SMALLINT, b BOOLEAN, r DOUBLE PRECISION, x TEXT, y BYTEA, v VARCHAR(3))"),
            "ok");
  EXPECT_EQ(reason("INSERT INTO t (i) VALUES ($1)", {std::string("twelve")}), "CONSTRAINT_VIOLATED");
  EXPECT_EQ(reason("INSERT INTO t (i) VALUES ($1)", {1.5}), "CONSTRAINT_VIOLATED");
  EXPECT_EQ(reason("INSERT INTO t (s) VALUES ($1)", {std::int64_t{40000}}), "CONSTRAINT_VIOLATED");
  EXPECT_EQ(reason("INSERT INTO t (x) VALUES ($1)", {Bytes("blob")}), "CONSTRAINT_VIOLATED");
  EXPECT_EQ(reason("INSERT INTO t (b) VALUES ($1)", {std::int64_t{2}}), "CONSTRAINT_VIOLATED");
  EXPECT_EQ(reason("INSERT INTO t (v) VALUES ($1)", {std::string("abcd")}), "CONSTRAINT_VIOLATED");
  EXPECT_EQ(reason("INSERT INTO t (v) VALUES ($1)", {std::string("äöü")}), "ok");  // characters, not bytes
  EXPECT_EQ(reason("INSERT INTO t (r) VALUES ($1)", {std::nan("")}), "SQL_INVALID_PARAMETER");
  ASSERT_EQ(reason("DELETE FROM t"), "ok");
  ASSERT_EQ(reason("INSERT INTO t (b, r) VALUES ($1, $2)", {true, 0.1}), "ok");
  const auto rows = run("SELECT b, r FROM t");
  ASSERT_TRUE(rows);
  EXPECT_EQ(rows->rows.at(0).at(0), SqlValue(std::int64_t{1}));
  EXPECT_EQ(rows->rows.at(0).at(1), SqlValue(0.1));
  for (const char* sql : {"SELECT ?", "SELECT ?1", "SELECT :a", "SELECT @a", "SELECT $a", "SELECT $0"}) {
    EXPECT_EQ(reason(sql, {std::int64_t{1}}), "SQL_INVALID_PARAMETER") << sql;
  }
  for (const char* sql : {"SELECT $1::text", "SELECT b::text, $1 FROM t"})
    EXPECT_EQ(reason(sql, {std::int64_t{1}}), "SQL_NOT_PORTABLE");
  EXPECT_EQ(reason("SELECT $99999999999999999999", {std::int64_t{1}}), "SQL_INVALID_PARAMETER");
  // Only parameters are parameters.
  const auto words =
      run("SELECT '$2 ''?' AS a$3, $1 AS \"$4\", 1 /* $5 :a */ AS [$6] -- @x $7\n, `b` FROM t", {std::string("v")});
  ASSERT_TRUE(words) << words.error().describe();
  EXPECT_EQ(words->columns, (std::vector<std::string>{"a$3", "$4", "$6", "b"}));
  EXPECT_EQ(words->rows.at(0).at(0), SqlValue(std::string("$2 '?")));
  EXPECT_EQ(words->rows.at(0).at(1), SqlValue(std::string("v")));
  EXPECT_EQ(reason("SELECT 'open $1", {std::int64_t{1}}), "SQL_INVALID_PARAMETER");
  EXPECT_EQ(reason("SELECT 'open"), "SQL_ERROR");
}

// proves: R-31
TEST_F(SqliteSql, DecimalsAreExactAndSortByValue) {
  ASSERT_EQ(ddl("CREATE TABLE t (n NUMERIC PRIMARY KEY, m NUMERIC(5, 2) DEFAULT 0.00)"), "ok");
  for (const char* n :
       {"10", "9", "-1.5", "-10", "12345678901234567890.123456789", "0.1", "-0.2", "12345678901234567890.12345678"}) {
    ASSERT_EQ(reason("INSERT INTO t (n) VALUES ($1)", {std::string(n)}), "ok") << n;
  }
  EXPECT_EQ(reason("INSERT INTO t (n) VALUES ('9.0')"), "CONSTRAINT_VIOLATED");  // it is 9
  EXPECT_EQ(reason("INSERT INTO t (n) VALUES ('1e5')"), "CONSTRAINT_VIOLATED");
  EXPECT_EQ(reason("INSERT INTO t (n) VALUES ('nine')"), "CONSTRAINT_VIOLATED");
  const auto rows = run("SELECT n FROM t ORDER BY n");
  ASSERT_TRUE(rows);
  std::vector<std::string> order;
  for (const auto& row : rows->rows) order.push_back(std::get<std::string>(row[0]));
  EXPECT_EQ(order, (std::vector<std::string>{"-10", "-1.5", "-0.2", "0.1", "9", "10", "12345678901234567890.12345678",
                                             "12345678901234567890.123456789"}));
  EXPECT_EQ(integer("SELECT count(*) FROM t WHERE n > 9.5"), 3);
  EXPECT_EQ(reason("UPDATE t SET m = '999.99'"), "ok");
  EXPECT_EQ(reason("UPDATE t SET m = '1000'"), "CONSTRAINT_VIOLATED");
  EXPECT_EQ(reason("UPDATE t SET m = '0.125'"), "CONSTRAINT_VIOLATED");  // refused, not rounded
  EXPECT_EQ(reason("UPDATE t SET m = '0.500'"), "ok");
  EXPECT_EQ(compare_decimals("0", "-0.0"), 0);
  EXPECT_EQ(compare_decimals("+07.10", "7.1"), 0);
  EXPECT_LT(compare_decimals("7.09", "7.1"), 0);
  EXPECT_GT(compare_decimals("x", "7"), 0);
}

// proves: R-31
TEST_F(SqliteSql, WhatPostgresqlFillsInIsFilledIn) {
  ASSERT_EQ(ddl("CREATE TABLE t (id BIGSERIAL PRIMARY KEY, u UUID DEFAULT gen_random_uuid(), at TIMESTAMP DEFAULT "
                "NOW(), d DATE DEFAULT "
                "CURRENT_DATE, b BYTEA DEFAULT '\\xDEAD', n INT DEFAULT -7, s TEXT DEFAULT 'it''s', j JSONB DEFAULT "
                "'{}', t BOOLEAN DEFAULT TRUE)"),
            "ok");
  ASSERT_EQ(reason("INSERT INTO t (n) VALUES (1)"), "ok");
  ASSERT_EQ(reason("INSERT INTO t DEFAULT VALUES"), "ok");
  EXPECT_THAT(text("SELECT u FROM t WHERE id = 2"),
              ::testing::MatchesRegex("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"));
  EXPECT_EQ(integer("SELECT count(DISTINCT u) FROM t"), 2);
  EXPECT_THAT(text("SELECT at FROM t WHERE id = 2"),
              ::testing::MatchesRegex("[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}[.][0-9]{3}000"));
  EXPECT_EQ(text("SELECT hex(b) FROM t WHERE id = 2"), "DEAD");
  EXPECT_EQ(integer("SELECT n FROM t WHERE id = 2"), -7);
  EXPECT_EQ(text("SELECT s FROM t WHERE id = 2"), "it's");
  EXPECT_EQ(integer("SELECT t FROM t WHERE id = 2"), 1);
  // Statements of handlers, as the RFCs write them.
  EXPECT_EQ(reason("UPDATE t SET at = NOW(), u = gen_random_uuid()"), "ok");
  EXPECT_EQ(reason("UPDATE t SET at = CURRENT_TIMESTAMP"), "ok");
  EXPECT_EQ(reason("UPDATE t SET u = upper(u)"), "ok");
  EXPECT_EQ(reason("UPDATE t SET u = 'no uuid'"), "CONSTRAINT_VIOLATED");
  EXPECT_EQ(reason("UPDATE t SET at = '2026-01-31T10:00:00Z'"), "CONSTRAINT_VIOLATED");
  EXPECT_EQ(reason("UPDATE t SET at = '2026-13-31 10:00:00'"), "CONSTRAINT_VIOLATED");
  EXPECT_EQ(reason("UPDATE t SET d = '2026-1-1'"), "CONSTRAINT_VIOLATED");
}

TEST_F(SqliteSql, JsonIsWhatTheStandardSays) {
  for (const char* good : {"{}", "[]", " [ ] ", "0", "-0.5e+10", "1e999", "12345678901234567890.123456789", "\"\"",
                           "\"\\u00e4\\n\\\"\"", "true", "null", "[[],{},[{\"a\":[1,2,{\"b\":null}]}]]",
                           "{\"a\":1,\"a\":2}", "\"\xc3\xbc\"", "\t{ \"a\" : [ 1 , 2 ] }\n"}) {
    EXPECT_TRUE(is_json(good)) << good;
  }
  for (const char* bad :
       {"",    " ",       "{",           "}",      "[1,]", "[,1]",  "{\"a\"}", "{\"a\":}", "{a:1}", "{\"a\":1,}",
        "01",  "1.",      ".5",          "-",      "+1",   "1e",    "tru",     "True",     "NaN",   "'a'",
        "\"a", "\"\\x\"", "\"\\u12g4\"", "\"\n\"", "1 2",  "[1 2]", "[1}",     "{]",       "[]]",   "nullx"}) {
    EXPECT_FALSE(is_json(bad)) << bad;
  }
  EXPECT_FALSE(is_json(std::string("\"\0\"", 3)));
  EXPECT_TRUE(is_json(std::string(1000, '[') + std::string(1000, ']')));
  EXPECT_FALSE(is_json(std::string(1001, '[') + std::string(1001, ']')));
  EXPECT_FALSE(is_json(std::string(1000000, '[')));
}

TEST_F(SqliteSql, TimesAreInOneForm) {
  EXPECT_EQ(timestamp_text(WallTime(std::chrono::microseconds(0))), "1970-01-01 00:00:00.000000");
  EXPECT_EQ(timestamp_text(WallTime(std::chrono::microseconds(1769862896123456))), "2026-01-31 12:34:56.123456");
  EXPECT_EQ(timestamp_text(WallTime(std::chrono::microseconds(-1))), "1969-12-31 23:59:59.999999");
  const SqlText sql{SqlDialect::sqlite};
  EXPECT_EQ(integer("SELECT " + sql.ago("3600000000") + " < " + sql.now()), 1);
  EXPECT_EQ(integer("SELECT datetime(" + sql.ago("3600000000") + ", '+1 hour') <= datetime(" + sql.now() + ")"), 1);
  EXPECT_EQ(text("SELECT substr(" + sql.ago("9000000000000000000") + ", 5, 1)"), "-");
  for (const std::int64_t at : {0L, 1769862896123456L, -1L, 4102444799999999L}) {
    const WallTime time{std::chrono::microseconds(at)};
    EXPECT_EQ(parse_timestamp(timestamp_text(time)), time);
  }
  EXPECT_EQ(parse_timestamp("1970-01-01 00:00:01"), WallTime(std::chrono::seconds(1)));
  EXPECT_EQ(parse_timestamp("1970-01-01 00:00:00.25"), WallTime(std::chrono::milliseconds(250)));
  for (const char* bad :
       {"", "1970-01-01", "1970-01-01T00:00:00", "1970-02-30 00:00:00", "1970-01-01 00:00:00.",
        "1970-01-01 00:00:00.1234567", "1970-01-01 00:00:00,5", "1970-01-01 00:00:00.x", "yesterday, at four"})
    EXPECT_FALSE(parse_timestamp(bad)) << bad;
  EXPECT_EQ(integer("SELECT " + sql.age(sql.ago("3600000000")) + " BETWEEN 3600000000 AND 3660000000"), 1);
  EXPECT_EQ(integer("SELECT " + sql.age("NULL") + " IS NULL"), 1);
}

// The lanes of rows that stand in files must not change with the program.
TEST_F(SqliteSql, LanesAreTheSameInEveryVersion) {
  EXPECT_EQ(lane_hash(""), 17280346270528514342ULL);
  EXPECT_EQ(lane_hash("order-1"), lane_hash(std::string("order-") + "1"));
  EXPECT_EQ(integer("SELECT prism_lane('order-1', 1000003)"),
            static_cast<std::int64_t>(lane_hash("order-1") % 1000003));
  EXPECT_EQ(integer("SELECT prism_lane(NULL, 16) = prism_lane('', 16)"), 1);
  EXPECT_EQ(integer("SELECT prism_lane(12, 16) = prism_lane('12', 16)"), 1);
  EXPECT_EQ(reason("SELECT prism_lane('a', 0)"), "SQL_ERROR");
}

TEST_F(SqliteSql, TablesThatCannotBeMadeLeaveNothing) {
  EXPECT_EQ(ddl("CREATE TABLE t (a INT); CREATE INDEX i ON missing (a)"), "INDEX_WITHOUT_COLUMN");
  EXPECT_EQ(reason("SELECT 1 FROM t"), "SQL_ERROR");
  ASSERT_EQ(ddl("CREATE TABLE t (a INT)"), "ok");
  EXPECT_EQ(ddl("CREATE TABLE u (a INT); CREATE TABLE T (a INT)"), "TABLE_EXISTS");
  EXPECT_EQ(reason("SELECT 1 FROM u"), "SQL_ERROR");
  EXPECT_EQ(ddl("CREATE TABLE IF NOT EXISTS t (b INT)"), "ok");
  EXPECT_EQ(ddl("CREATE INDEX i ON t (b)"), "INDEX_WITHOUT_COLUMN");
  EXPECT_EQ(ddl("CREATE INDEX i ON t (a)"), "ok");
  EXPECT_EQ(ddl("CREATE INDEX IF NOT EXISTS i ON t (a)"), "ok");
  EXPECT_EQ(ddl("CREATE INDEX i ON t (a)"), "SQL_ERROR");
  EXPECT_EQ(ddl("CREATE TABLE x (a INET)"), "SQL_NOT_PORTABLE");
  const auto own =
      run_blocking(db().create_table(Context(), {.name = "Prism_kv", .columns = {{"id", ColumnType::id}}}));
  ASSERT_FALSE(own);
  EXPECT_EQ(own.error().reason, "INVALID_TABLE_NAME");
}

TEST_F(SqliteSql, UsersTypesAreDescribed) {
  ASSERT_EQ(ddl("CREATE TABLE \"Mixed\" (id SERIAL PRIMARY KEY, n NUMERIC(5, 2), v VARCHAR(5) NOT NULL DEFAULT '', at "
                "TIMESTAMPTZ, f REAL)"),
            "ok");
  const auto info = run_blocking(db().describe(Context(), "mixed"));
  ASSERT_TRUE(info && *info);
  EXPECT_EQ((*info)->name, "Mixed");
  EXPECT_EQ((*info)->find("id")->type, "integer");
  EXPECT_TRUE((*info)->find("id")->has_default);
  EXPECT_EQ((*info)->find("n")->type, "numeric");
  EXPECT_EQ((*info)->find("v")->type, "character varying");
  EXPECT_TRUE((*info)->find("v")->has_default);
  EXPECT_EQ((*info)->find("at")->type, "timestamp with time zone");
}

constexpr const char* kEndless =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";

TEST_F(SqliteSql, AnEndlessQueryEndsWithItsDeadline) {
  const auto r = run_blocking(db().query(Context().with_timeout(std::chrono::milliseconds(50)), {kEndless, {}}, 1));
  ASSERT_FALSE(r);
  EXPECT_EQ(r.error().reason, "DEADLINE_EXCEEDED");
}

TEST_F(SqliteSql, AnEndlessStatementInATransactionEndsWithItsCaller) {
  ASSERT_EQ(ddl("CREATE TABLE t (a INT)"), "ok");
  auto tx = run_blocking(db().begin(Context(), {}));
  ASSERT_TRUE(tx);
  Batch<Statement> batch;
  batch.push_back({"INSERT INTO t VALUES (1)", {}});
  batch.push_back({kEndless, {}});
  const auto out =
      run_blocking((*tx)->execute(Context().with_timeout(std::chrono::milliseconds(50)), std::move(batch)));
  ASSERT_FALSE(out);
  EXPECT_EQ(out.error().reason, "DEADLINE_EXCEEDED");
  EXPECT_EQ(reason("INSERT INTO t VALUES (2)"), "ok");  // the writer is free again
  EXPECT_EQ(integer("SELECT a FROM t"), 2);
}

TEST_F(SqliteSql, AReadOnlyTransactionEndsWithItsTime) {
  auto tx = run_blocking(db().begin(Context(), {.read_only = true, .timeout = std::chrono::milliseconds(20)}));
  ASSERT_TRUE(tx);
  std::string last;
  const auto end = Clock::now() + std::chrono::minutes(1);
  while (Clock::now() < end && last != "TRANSACTION_EXPIRED") {
    Batch<Statement> batch(1);
    batch[0].text = "SELECT 1";
    const auto out = run_blocking((*tx)->execute(Context(), std::move(batch)));
    last = out ? "ok" : out.error().reason;
  }
  EXPECT_EQ(last, "TRANSACTION_EXPIRED");
}

TEST_F(SqliteSql, ManyDifferentTextsAreNoBurden) {
  for (int i = 0; i < 1500; ++i) ASSERT_EQ(integer("SELECT " + std::to_string(i)), i);
}

TEST_F(SqliteSql, AFullDiskRefusesWritesAndKeepsWhatWasAcknowledged) {
  ASSERT_EQ(ddl("CREATE TABLE t (id BIGSERIAL PRIMARY KEY, body BYTEA)"), "ok");
  const auto limit = [&](const std::string& pages) {
    ASSERT_TRUE(run_blocking(
        engine().write(Context(), [pages](Connection& c) { return c.execute("PRAGMA max_page_count=" + pages); })));
  };
  limit("200");
  const Bytes body(std::string(10000, 'x'));
  int acknowledged = 0;
  std::optional<Error> full;
  for (int i = 0; i < 1000 && !full; ++i) {
    const auto r = run("INSERT INTO t (body) VALUES ($1)", {body});
    if (r) {
      ++acknowledged;
    } else {
      full = r.error();
    }
  }
  ASSERT_TRUE(full);
  EXPECT_EQ(full->reason, "DISK_FULL");
  EXPECT_EQ(full->code, Code::resource_exhausted);
  EXPECT_EQ(full->retry, Retry::safe);
  EXPECT_EQ(integer("SELECT count(*) FROM t"), acknowledged);
  // Several at once: each is refused, none is half there.
  Batch<Mutation> mutations;
  for (int i = 0; i < 10; ++i)
    mutations.push_back({.key = std::to_string(i), .value = Bytes(std::string(100000, 'y'))});
  for (const auto& r : run_blocking(world_.first().store->apply(Context(), mutations))) {
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().reason, "DISK_FULL");
  }
  EXPECT_TRUE(run_blocking(world_.first().store->scan(Context(), "", "", 100, 1000))->entries.empty());
  Batch<Statement> both;
  both.push_back({"INSERT INTO t (body) VALUES ($1)", {body}});
  both.push_back({"INSERT INTO t (body) VALUES ($1)", {Bytes(std::string(100000, 'z'))}});
  EXPECT_FALSE(run_blocking(db().atomically(Context(), both)));
  EXPECT_FALSE(run_blocking(db().point(Context(), both)).at(1));
  auto tx = run_blocking(db().begin(Context(), {}));
  ASSERT_TRUE(tx);
  const auto in_tx = run_blocking((*tx)->execute(Context(), {both[1], both[1], both[1]}));
  ASSERT_FALSE(in_tx);
  EXPECT_EQ(in_tx.error().reason, "DISK_FULL");
  tx->reset();

  limit("100000");
  EXPECT_EQ(reason("INSERT INTO t (body) VALUES ($1)", {body}), "ok");
  for (const auto& r : run_blocking(world_.first().store->apply(Context(), mutations))) EXPECT_TRUE(r);
}

class SqliteKeyValue : public ::testing::Test {
 protected:
  World world_;
};

TEST_F(SqliteKeyValue, WhatHasExpiredLeavesTheFileInTheEnd) {
  auto& store = *world_.first().store;
  Batch<Mutation> batch;
  for (int i = 0; i < 200; ++i)
    batch.push_back({.key = std::to_string(i), .value = Bytes("v"), .ttl = std::chrono::milliseconds(1)});
  for (const auto& r : run_blocking(store.apply(Context(), std::move(batch)))) ASSERT_TRUE(r);
  const auto rows = [&] {
    return *run_blocking(world_.first().engine->read(
        Context(), [](Connection& c) { return c.integer("SELECT count(*) FROM prism_kv"); }));
  };
  const auto end = Clock::now() + std::chrono::minutes(1);
  while (rows() > 1 && Clock::now() < end) {
    Batch<Mutation> one(1);
    one[0] = {.key = "live", .value = Bytes("v")};
    ASSERT_TRUE(run_blocking(store.apply(Context(), std::move(one))).at(0));
  }
  EXPECT_EQ(rows(), 1);
}

TEST(SqliteLease, AClockThatWasSetBackDoesNotKeepALeaseForLong) {
  World world;
  auto& lease = *world.first().lease;
  ASSERT_TRUE(*run_blocking(lease.acquire(Context(), "job", "a", std::chrono::seconds(10))));
  ASSERT_TRUE(run_blocking(world.first().engine->write(Context(), [](Connection& c) {
    return c.execute("UPDATE prism_lease SET granted = granted + 3600000000, expires = expires + 3600000000");
  })));
  const auto b = run_blocking(world.second().lease->acquire(Context(), "job", "b", std::chrono::seconds(10)));
  ASSERT_TRUE(b && *b);
  EXPECT_EQ((*b)->fence, 2U);
}

TEST(SqliteLease, TheSamePromiseIsNotShortenedByAcquiringAgain) {
  World world;
  const auto first = run_blocking(world.first().lease->acquire(Context(), "job", "a", std::chrono::hours(1)));
  ASSERT_TRUE(first && *first);
  ASSERT_TRUE(*run_blocking(world.second().lease->acquire(Context(), "job", "a", std::chrono::microseconds(1))));
  EXPECT_FALSE(*run_blocking(world.second().lease->acquire(Context(), "job", "b", std::chrono::hours(1))));
}

// --- a process that is killed ---

// Writes what it has been told is durable, one number a line, until it is killed.
[[noreturn]] void write_until_killed(const std::string& file, int out, int first) {
  Runtime runtime;
  Client client(runtime, file);
  const auto report = [out](int n) {
    const std::string line = std::to_string(n) + "\n";
    if (::write(out, line.data(), line.size()) < 0) ::_exit(1);
  };
  const auto worker = [](Client* c, int begin, int step, const decltype(report)* tell) -> Task<bool> {
    for (int n = begin;; n += step) {
      Batch<Statement> pair;
      pair.push_back({"INSERT INTO acknowledged (n, half) VALUES ($1, 1)", {std::int64_t{n}}});
      pair.push_back({"INSERT INTO acknowledged (n, half) VALUES ($1, 2)", {std::int64_t{n}}});
      bool ok = false;
      if (n % 7 == 0) {
        auto tx = co_await c->database->begin(Context(), TxOptions());
        if (tx) {
          const auto done = co_await (*tx)->execute(Context(), std::move(pair));
          if (done) {
            const auto at = co_await (*tx)->commit(Context());
            ok = at.has_value();
          }
        }
      } else {
        const auto done = co_await c->database->atomically(Context(), std::move(pair));
        ok = done.has_value();
      }
      Batch<Mutation> mark(1);
      mark[0] = {.key = std::to_string(n), .value = Bytes("v"), .expect_absent = true};
      const auto written = co_await c->store->apply(Context(), std::move(mark));
      if (ok && written.at(0)) (*tell)(n);
    }
  };
  std::vector<Task<bool>> workers;
  for (int i = 0; i < 16; ++i) workers.push_back(worker(&client, first + i, 16, &report));
  run_blocking(when_all(std::move(workers)));
  ::_exit(0);
}

// proves: O-01, O-14
TEST(SqliteCrash, WhatWasAcknowledgedSurvivesAKill) {
  TempDirectory directory;
  {
    Runtime runtime;
    Client client(runtime, directory.file());
    ASSERT_TRUE(run_blocking(client.database->create_from_ddl(
        Context(), "CREATE TABLE acknowledged (n BIGINT, half INT, PRIMARY KEY (n, half))")));
  }
  std::vector<int> acknowledged;
  constexpr int kRounds = 6;
  for (int round = 0; round < kRounds; ++round) {
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    // Nothing else runs in this process now: the child begins its own threads.
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      ::close(ends[0]);
      write_until_killed(directory.file(), ends[1], round * 1000000);
    }
    ::close(ends[1]);
    const int enough = 50 + 170 * round;
    FILE* in = ::fdopen(ends[0], "r");
    int n = 0;
    for (int i = 0; std::fscanf(in, "%d", &n) == 1; ++i) {
      acknowledged.push_back(n);
      if (i == enough) ::kill(child, SIGKILL);  // what is in the pipe still counts
    }
    std::fclose(in);
    int status = 0;
    ::waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status));
  }
  Runtime runtime;
  Client client(runtime, directory.file());
  EXPECT_GE(acknowledged.size(), 50U * kRounds);
  const auto rows = run_blocking(
      client.database->query(Context(), {"SELECT n, count(*) FROM acknowledged GROUP BY n", {}}, SIZE_MAX));
  ASSERT_TRUE(rows);
  std::set<std::int64_t> present;
  for (const auto& row : rows->rows) {
    EXPECT_EQ(std::get<std::int64_t>(row[1]), 2) << "half of a transaction";
    present.insert(std::get<std::int64_t>(row[0]));
  }
  for (const int n : acknowledged) {
    EXPECT_TRUE(present.contains(n)) << n;
    EXPECT_TRUE(*run_blocking(client.store->get(Context(), Batch<std::string>(1, std::to_string(n)), {})).at(0)) << n;
  }
  const auto intact = run_blocking(client.engine->read(Context(), [](Connection& c) -> Result<std::string> {
    PRISM_TRY(Query check, c.prepare_once("PRAGMA integrity_check"));
    PRISM_CHECK(check.step());
    return std::string(check.text(0));
  }));
  EXPECT_EQ(*intact, "ok");
}

}  // namespace
}  // namespace prism::sqlite
