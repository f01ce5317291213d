// Conformance of SqlDatabase. Include it in one test file of a backend and instantiate SqlDatabaseSuite there. The
// statements are those that both dialects read. proves: L-02, L-05, L-24
#pragma once

#include <gmock/gmock.h>

#include <functional>
#include <limits>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "capabilities/sql_database.h"
#include "runtime/scope.h"

namespace prism {

// An empty database; destroyed at the end of a test.
class SqlDatabaseBed {
 public:
  virtual ~SqlDatabaseBed() = default;
  virtual SqlDatabase& database() = 0;
  virtual SqlDatabase& other() = 0;  // the same data through another client, as another process would have it
  virtual void restart() = 0;        // closes every client and opens them again on the same data
};

struct SqlDatabaseParam {
  std::string name;
  std::function<std::unique_ptr<SqlDatabaseBed>()> make;
  friend void PrintTo(const SqlDatabaseParam& p, std::ostream* out) { *out << p.name; }
};

class SqlDatabaseSuite : public ::testing::TestWithParam<SqlDatabaseParam> {
 protected:
  void SetUp() override { bed_ = GetParam().make(); }
  SqlDatabase& db() { return bed_->database(); }
  SqlDatabase& other() { return bed_->other(); }
  static Context soon() { return Context().with_timeout(std::chrono::seconds(60)); }

  static Result<SqlRows> point(SqlDatabase& d, std::string text, std::vector<SqlValue> bind = {}) {
    Batch<Statement> batch(1);
    batch[0] = {std::move(text), std::move(bind)};
    auto out = run_blocking(d.point(soon(), std::move(batch)));
    EXPECT_EQ(out.size(), 1U);
    return std::move(out.at(0));
  }
  static Result<SqlRows> query(SqlDatabase& d, std::string text, std::vector<SqlValue> bind = {},
                               std::size_t max_rows = 1000) {
    return run_blocking(d.query(soon(), {std::move(text), std::move(bind)}, max_rows));
  }
  static std::int64_t count(SqlDatabase& d, std::string table) {
    const auto rows = query(d, "SELECT count(*) FROM " + SqlText::quote(table));
    if (!rows) return -1;
    return std::get<std::int64_t>(rows->rows.at(0).at(0));
  }
  template <class T>
  static std::string reason(const Result<T>& r) {
    return r ? "ok" : r.error().reason;
  }
  // items: id, name text unique not null, n integer, body bytes, doc json, made timestamp default now, done timestamp
  void make_items() {
    const auto made = run_blocking(db().create_table(soon(), items()));
    ASSERT_TRUE(made) << made.error().describe();
  }
  static TableSpec items() {
    return {.name = "items",
            .columns = {{.name = "id", .type = ColumnType::id},
                        {.name = "name", .type = ColumnType::text, .not_null = true},
                        {.name = "n", .type = ColumnType::integer},
                        {.name = "body", .type = ColumnType::bytes},
                        {.name = "doc", .type = ColumnType::json},
                        {.name = "made", .type = ColumnType::timestamp, .not_null = true, .default_now = true},
                        {.name = "done", .type = ColumnType::timestamp}},
            .indexes = {{.name = "items_name", .columns = {"name"}, .unique = true},
                        {.name = "items_open", .columns = {"id"}, .where_null = "done"}}};
  }
  Result<SqlRows> insert(SqlDatabase& d, std::string name) {
    return point(d, "INSERT INTO items (name) VALUES ($1)", {std::move(name)});
  }
  static Statement insert_of(std::string name) { return {"INSERT INTO items (name) VALUES ($1)", {std::move(name)}}; }
  std::unique_ptr<SqlTransaction> begin(SqlDatabase& d, TxOptions options = {}) {
    auto tx = run_blocking(d.begin(soon(), options));
    EXPECT_TRUE(tx) << tx.error().describe();
    return tx ? std::move(*tx) : nullptr;
  }
  static Result<Batch<SqlRows>> execute(SqlTransaction& tx, std::string text, std::vector<SqlValue> bind = {}) {
    Batch<Statement> batch(1);
    batch[0] = {std::move(text), std::move(bind)};
    return run_blocking(tx.execute(soon(), std::move(batch)));
  }

  std::unique_ptr<SqlDatabaseBed> bed_;
};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(SqlDatabaseSuite);

TEST_P(SqlDatabaseSuite, FeaturesAreDeclared) {
  RecordProperty("feature.durability", std::string(to_string(db().features().durability)));
  RecordProperty("feature.dialect", db().dialect() == SqlDialect::postgresql ? "postgres" : "sqlite");
  EXPECT_NE(db().incarnation(), Id128{});
}

TEST_P(SqlDatabaseSuite, TablesAreMadeOnceAndDescribed) {
  EXPECT_FALSE(*run_blocking(db().describe(soon(), "items")));
  make_items();
  ASSERT_TRUE(run_blocking(other().create_table(soon(), items())));  // it is there: nothing happens
  const auto info = run_blocking(other().describe(soon(), "items"));
  ASSERT_TRUE(info && *info);
  EXPECT_EQ((*info)->name, "items");
  ASSERT_EQ((*info)->columns.size(), 7U);
  const auto* id = (*info)->find("id");
  ASSERT_NE(id, nullptr);
  EXPECT_TRUE(id->primary_key);
  EXPECT_TRUE(id->not_null);
  EXPECT_EQ(id->type, "bigint");
  EXPECT_EQ((*info)->find("name")->type, "text");
  EXPECT_TRUE((*info)->find("name")->not_null);
  EXPECT_FALSE((*info)->find("name")->has_default);
  EXPECT_FALSE((*info)->find("n")->not_null);
  EXPECT_EQ((*info)->find("doc")->type, "jsonb");
  EXPECT_EQ((*info)->find("body")->type, "bytea");
  EXPECT_TRUE((*info)->find("made")->has_default);
  EXPECT_EQ((*info)->find("made")->type, "timestamp without time zone");
  EXPECT_EQ((*info)->find("nothing"), nullptr);
}

TEST_P(SqlDatabaseSuite, IdsAreGeneratedGrowAndAreNotUsedAgain) {
  make_items();
  std::int64_t last = 0;
  for (const char* name : {"a", "b", "c"}) {
    const auto rows = point(db(), "INSERT INTO items (name) VALUES ($1) RETURNING id", {std::string(name)});
    ASSERT_TRUE(rows) << rows.error().describe();
    ASSERT_EQ(rows->columns, std::vector<std::string>{"id"});
    const auto id = std::get<std::int64_t>(rows->rows.at(0).at(0));
    EXPECT_GT(id, last);
    last = id;
  }
  ASSERT_TRUE(point(db(), "DELETE FROM items WHERE id = $1", {last}));
  bed_->restart();
  const auto rows = point(db(), "INSERT INTO items (name) VALUES ('d') RETURNING id");
  ASSERT_TRUE(rows);
  EXPECT_GT(std::get<std::int64_t>(rows->rows.at(0).at(0)), last);
}

TEST_P(SqlDatabaseSuite, ValuesComeBackAsTheyWent) {
  make_items();
  std::string every;
  for (int i = 0; i < 256; ++i) every += static_cast<char>(i);
  const std::string text = "ü'\"\\ \xf0\x9f\x8e\x89 %s $1";
  for (const std::int64_t n : {std::int64_t{0}, std::int64_t{-1}, std::int64_t{9007199254740993},
                               std::numeric_limits<std::int64_t>::max(), std::numeric_limits<std::int64_t>::min()}) {
    const auto put = point(db(), "INSERT INTO items (name, n, body) VALUES ($1, $2, $3)",
                           {text + std::to_string(n), n, Bytes(every)});
    ASSERT_TRUE(put) << put.error().describe();
    EXPECT_EQ(put->affected, 1U);
    const auto got = query(other(), "SELECT name, n, body, done FROM items WHERE n = $1", {n});
    ASSERT_TRUE(got) << got.error().describe();
    ASSERT_EQ(got->rows.size(), 1U);
    EXPECT_EQ(std::get<std::string>(got->rows[0][0]), text + std::to_string(n));
    EXPECT_EQ(std::get<std::int64_t>(got->rows[0][1]), n);
    EXPECT_EQ(std::get<Bytes>(got->rows[0][2]), every);
    EXPECT_EQ(std::get<SqlNull>(got->rows[0][3]), SqlNull());
  }
  ASSERT_TRUE(
      point(db(), "INSERT INTO items (name, n, body) VALUES ($1, $2, $3)", {std::string(), SqlNull(), Bytes("")}));
  const auto got = query(db(), "SELECT n, body FROM items WHERE name = ''");
  ASSERT_TRUE(got);
  EXPECT_EQ(got->rows.at(0).at(0), SqlValue(SqlNull()));
  EXPECT_EQ(std::get<Bytes>(got->rows[0][1]).size(), 0U);  // empty is not null
}

TEST_P(SqlDatabaseSuite, JsonNumbersAreExact) {
  make_items();
  const std::string exact = "12345678901234567890.123456789";
  ASSERT_TRUE(point(db(), "INSERT INTO items (name, doc) VALUES ('j', $1)", {"{\"n\":" + exact + "}"}));
  const auto got = query(db(), "SELECT doc FROM items WHERE name = 'j'");
  ASSERT_TRUE(got);
  EXPECT_THAT(std::get<std::string>(got->rows.at(0).at(0)), ::testing::HasSubstr(exact));
  EXPECT_FALSE(point(db(), "INSERT INTO items (name, doc) VALUES ('bad', $1)", {std::string("{")}));
}

TEST_P(SqlDatabaseSuite, TimestampsAreUtcWithMicrosecondsAndSort) {
  make_items();
  const SqlText sql{db().dialect()};
  ASSERT_TRUE(insert(db(), "a"));
  ASSERT_TRUE(point(db(), "UPDATE items SET done = " + sql.now() + " WHERE name = 'a'"));
  const auto got = query(db(), "SELECT made, done FROM items WHERE name = 'a' AND done > '2020-01-01 00:00:00.000000'");
  ASSERT_TRUE(got);
  ASSERT_EQ(got->rows.size(), 1U);
  const auto& made = std::get<std::string>(got->rows[0][0]);
  const auto& done = std::get<std::string>(got->rows[0][1]);
  EXPECT_LE(made.substr(0, 22), done.substr(0, 22));  // the default's clock may be coarser
  EXPECT_EQ(made.substr(0, 2), "20");
  ASSERT_TRUE(point(db(), "UPDATE items SET done = $1 WHERE name = 'a'", {std::string("2026-01-31 12:34:56.123456")}));
  EXPECT_EQ(std::get<std::string>(query(db(), "SELECT done FROM items")->rows.at(0).at(0)),
            "2026-01-31 12:34:56.123456");
  EXPECT_FALSE(point(db(), "UPDATE items SET done = 'yesterday-ish'"));
}

TEST_P(SqlDatabaseSuite, AFailingPointStatementFailsAlone) {
  make_items();
  ASSERT_TRUE(insert(db(), "taken"));
  Batch<Statement> batch;
  batch.push_back(insert_of("a"));
  batch.push_back(insert_of("taken"));
  batch.push_back({"INSERT INTO items (name) VALUES (NULL)", {}});
  batch.push_back({"THIS IS NO SQL", {}});
  batch.push_back(insert_of("b"));
  const auto out = run_blocking(db().point(soon(), std::move(batch)));
  ASSERT_EQ(out.size(), 5U);
  EXPECT_EQ(reason(out[0]), "ok");
  ASSERT_EQ(reason(out[1]), "CONSTRAINT_VIOLATED");
  EXPECT_EQ(out[1].error().metadata.at("constraint"), "unique");
  EXPECT_EQ(out[1].error().code, Code::already_exists);
  ASSERT_EQ(reason(out[2]), "CONSTRAINT_VIOLATED");
  EXPECT_EQ(out[2].error().metadata.at("constraint"), "not_null");
  EXPECT_EQ(reason(out[3]), "SQL_ERROR");
  EXPECT_EQ(reason(out[4]), "ok");
  EXPECT_EQ(count(other(), "items"), 3);
  EXPECT_TRUE(run_blocking(db().point(soon(), {})).empty());
}

TEST_P(SqlDatabaseSuite, AStatementOfManyRowsIsAllOrNothing) {
  make_items();
  ASSERT_TRUE(insert(db(), "b"));
  EXPECT_EQ(reason(point(db(), "INSERT INTO items (name) VALUES ('a'), ('b'), ('c')")), "CONSTRAINT_VIOLATED");
  EXPECT_EQ(count(db(), "items"), 1);
}

TEST_P(SqlDatabaseSuite, PointReadsAndWritesMix) {
  make_items();
  Batch<Statement> batch;
  batch.push_back(insert_of("a"));
  batch.push_back({"SELECT count(*) FROM items", {}});
  batch.push_back({"UPDATE items SET n = 1", {}});
  const auto out = run_blocking(db().point(soon(), std::move(batch)));
  ASSERT_EQ(out.size(), 3U);
  for (const auto& r : out) ASSERT_TRUE(r) << r.error().describe();
  EXPECT_EQ(std::get<std::int64_t>(out[1]->rows.at(0).at(0)), 1);
  EXPECT_EQ(out[2]->affected, 1U);
  Batch<Statement> reads;
  reads.push_back({"SELECT n FROM items", {}});
  reads.push_back({"SELECT no_such_column FROM items", {}});
  reads.push_back({"SELECT name FROM items", {}});
  const auto read = run_blocking(db().point(soon(), std::move(reads)));
  EXPECT_EQ(reason(read.at(0)), "ok");
  EXPECT_EQ(reason(read.at(1)), "SQL_ERROR");
  EXPECT_EQ(std::get<std::string>(read.at(2)->rows.at(0).at(0)), "a");
}

TEST_P(SqlDatabaseSuite, AtomicallyAllOrNothing) {
  make_items();
  Batch<Statement> good;
  good.push_back(insert_of("a"));
  good.push_back(
      {"INSERT INTO items (name) SELECT name || '2' FROM items WHERE name = $1 RETURNING name", {std::string("a")}});
  const auto done = run_blocking(db().atomically(soon(), std::move(good)));
  ASSERT_TRUE(done) << done.error().describe();
  ASSERT_EQ(done->results.size(), 2U);
  EXPECT_FALSE(done->position.empty());
  EXPECT_EQ(std::get<std::string>(done->results.at(1).rows.at(0).at(0)), "a2");
  EXPECT_EQ(count(other(), "items"), 2);

  Batch<Statement> bad;
  bad.push_back(insert_of("c"));
  bad.push_back(insert_of("a"));
  bad.push_back(insert_of("d"));
  const auto failed = run_blocking(db().atomically(soon(), std::move(bad)));
  ASSERT_EQ(reason(failed), "CONSTRAINT_VIOLATED");
  EXPECT_EQ(failed.error().metadata.at("statement"), "1");  // from 0
  EXPECT_EQ(count(other(), "items"), 2);
  EXPECT_TRUE(run_blocking(db().atomically(soon(), {})));
}

// proves: O-19
TEST_P(SqlDatabaseSuite, ATransactionIsSeenWhenItIsCommitted) {
  make_items();
  auto tx = begin(db());
  ASSERT_NE(tx, nullptr);
  ASSERT_TRUE(execute(*tx, "INSERT INTO items (name) VALUES ($1)", {std::string("a")}));
  EXPECT_EQ(count(db(), "items"), 0);
  EXPECT_EQ(count(other(), "items"), 0);
  const auto own = execute(*tx, "SELECT count(*) FROM items");
  ASSERT_TRUE(own);
  EXPECT_EQ(std::get<std::int64_t>(own->at(0).rows.at(0).at(0)), 1);
  const auto at = run_blocking(tx->commit(soon().shielded(std::chrono::seconds(60))));
  ASSERT_TRUE(at) << at.error().describe();
  EXPECT_FALSE(at->empty());
  EXPECT_EQ(count(other(), "items"), 1);
  EXPECT_FALSE(execute(*tx, "SELECT 1"));  // it is over
  EXPECT_FALSE(run_blocking(tx->commit(soon())));
}

// proves: O-19
TEST_P(SqlDatabaseSuite, ATransactionThatIsRolledBackOrDroppedLeavesNothing) {
  make_items();
  auto tx = begin(db());
  ASSERT_TRUE(execute(*tx, "INSERT INTO items (name) VALUES ('a')"));
  run_blocking(tx->rollback(soon()));
  EXPECT_FALSE(run_blocking(tx->commit(soon())));
  auto dropped = begin(db());
  ASSERT_TRUE(execute(*dropped, "INSERT INTO items (name) VALUES ('b')"));
  dropped.reset();
  ASSERT_TRUE(insert(db(), "c"));
  EXPECT_EQ(count(db(), "items"), 1);
}

TEST_P(SqlDatabaseSuite, AFailedStatementFailsTheTransaction) {
  make_items();
  ASSERT_TRUE(insert(db(), "taken"));
  auto tx = begin(db());
  Batch<Statement> batch;
  batch.push_back(insert_of("a"));
  batch.push_back(insert_of("taken"));
  const auto out = run_blocking(tx->execute(soon(), std::move(batch)));
  ASSERT_EQ(reason(out), "CONSTRAINT_VIOLATED");
  EXPECT_EQ(out.error().metadata.at("statement"), "1");
  EXPECT_EQ(reason(execute(*tx, "SELECT 1")), "TRANSACTION_FAILED");
  EXPECT_EQ(reason(run_blocking(tx->commit(soon()))), "TRANSACTION_FAILED");
  EXPECT_EQ(count(db(), "items"), 1);
}

TEST_P(SqlDatabaseSuite, ATransactionThatStaysOpenTooLongIsRolledBack) {
  make_items();
  auto tx = begin(db(), {.timeout = std::chrono::milliseconds(50)});
  ASSERT_NE(tx, nullptr);
  (void)execute(*tx, "INSERT INTO items (name) VALUES ('late')");  // its time may be over already
  // It holds nothing up for ever; this returns once it has been rolled back, at the latest.
  ASSERT_TRUE(point(db(), "INSERT INTO items (name) VALUES ('late')")) << "still locked";
  std::string last;
  const auto end = Clock::now() + std::chrono::minutes(1);
  while (Clock::now() < end && last != "TRANSACTION_EXPIRED") last = reason(execute(*tx, "SELECT 1"));
  EXPECT_EQ(last, "TRANSACTION_EXPIRED");
  EXPECT_EQ(reason(run_blocking(tx->commit(soon()))), "TRANSACTION_EXPIRED");
  EXPECT_EQ(count(db(), "items"), 1);
}

TEST_P(SqlDatabaseSuite, AReadOnlyTransactionSeesOneSnapshotAndWritesNothing) {
  make_items();
  ASSERT_TRUE(insert(db(), "a"));
  auto tx = begin(db(), {.read_only = true});
  ASSERT_NE(tx, nullptr);
  const auto first = execute(*tx, "SELECT count(*) FROM items");
  ASSERT_TRUE(first);
  ASSERT_TRUE(insert(db(), "b"));  // writers go on
  ASSERT_TRUE(insert(other(), "c"));
  const auto second = execute(*tx, "SELECT count(*) FROM items");
  ASSERT_TRUE(second);
  EXPECT_EQ(first->at(0).rows, second->at(0).rows);
  EXPECT_EQ(reason(execute(*tx, "INSERT INTO items (name) VALUES ('x')")), "SQL_READ_ONLY");
  EXPECT_EQ(reason(run_blocking(tx->commit(soon()))), "TRANSACTION_FAILED");
  auto again = begin(db(), {.read_only = true});
  ASSERT_TRUE(execute(*again, "SELECT 1"));
  EXPECT_TRUE(run_blocking(again->commit(soon())));
  EXPECT_EQ(count(db(), "items"), 3);
}

TEST_P(SqlDatabaseSuite, TransactionsDoNotOverwriteEachOther) {
  make_items();
  ASSERT_TRUE(point(db(), "INSERT INTO items (name, n) VALUES ('sum', 0)"));
  constexpr int kWorkers = 6;
  constexpr int kEach = 10;
  const auto add = [](SqlDatabase* d) -> Task<int> {
    int done = 0;
    for (int tries = 0; done < kEach && tries < 1000; ++tries) {
      auto tx = co_await d->begin(Context(), TxOptions());
      if (!tx) co_return -1;
      Batch<Statement> update(1);
      update[0].text = "UPDATE items SET n = n + 1 WHERE name = 'sum'";
      const auto updated = co_await (*tx)->execute(Context(), std::move(update));
      if (!updated) continue;
      const auto committed = co_await (*tx)->commit(Context());
      if (committed) ++done;
    }
    co_return done;
  };
  std::vector<Task<int>> tasks;
  for (int i = 0; i < kWorkers; ++i) tasks.push_back(add(i % 2 == 0 ? &db() : &other()));
  EXPECT_THAT(run_blocking(when_all(std::move(tasks))), ::testing::Each(kEach));
  EXPECT_EQ(std::get<std::int64_t>(query(db(), "SELECT n FROM items")->rows.at(0).at(0)), kWorkers * kEach);
}

TEST_P(SqlDatabaseSuite, PositionsGrowWithCommits) {
  make_items();
  std::optional<Position> last;
  for (SqlDatabase* d : {&db(), &other(), &db()}) {
    auto tx = begin(*d);
    ASSERT_TRUE(execute(*tx, "INSERT INTO items (name) VALUES ($1)",
                        {std::to_string(reinterpret_cast<std::uintptr_t>(&last) + count(db(), "items"))}));
    const auto at = run_blocking(tx->commit(soon()));
    ASSERT_TRUE(at);
    ASSERT_EQ(at->parts().size(), 1U);
    EXPECT_EQ(at->parts()[0].source, db().incarnation());
    if (last) {
      EXPECT_EQ(last->compare(*at), Position::Order::reached);
      EXPECT_EQ(at->compare(*last), Position::Order::behind);
    }
    last = *at;
  }
  const Id128 before = db().incarnation();
  bed_->restart();
  EXPECT_EQ(db().incarnation(), before);
}

TEST_P(SqlDatabaseSuite, QueriesWriteNothing) {
  make_items();
  EXPECT_EQ(reason(query(db(), "INSERT INTO items (name) VALUES ('a')")), "SQL_READ_ONLY");
  EXPECT_EQ(reason(query(db(), "DELETE FROM items")), "SQL_READ_ONLY");
  EXPECT_EQ(count(db(), "items"), 0);
}

TEST_P(SqlDatabaseSuite, QueriesGiveAtMostTheRowsAskedFor) {
  make_items();
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(insert(db(), std::to_string(i)));
  const auto rows = query(db(), "SELECT name, id FROM items ORDER BY name", {}, 3);
  ASSERT_TRUE(rows);
  EXPECT_EQ(rows->columns, (std::vector<std::string>{"name", "id"}));
  ASSERT_EQ(rows->rows.size(), 3U);
  EXPECT_EQ(std::get<std::string>(rows->rows[2][0]), "2");
}

TEST_P(SqlDatabaseSuite, OneStatementATextAndAllItsParameters) {
  make_items();
  EXPECT_EQ(reason(point(db(), "INSERT INTO items (name) VALUES ('a'); DELETE FROM items")), "SQL_ERROR");
  EXPECT_EQ(reason(query(db(), "SELECT 1; SELECT 2")), "SQL_ERROR");
  EXPECT_EQ(reason(query(db(), "")), "SQL_ERROR");
  EXPECT_EQ(reason(query(db(), "SELECT CAST($1 AS TEXT)")), "SQL_INVALID_PARAMETER");
  EXPECT_EQ(reason(query(db(), "SELECT CAST($1 AS TEXT)", {std::string("a"), std::string("b")})),
            "SQL_INVALID_PARAMETER");
  EXPECT_EQ(reason(point(db(), "INSERT INTO items (name) VALUES ($1)", {std::string("bad\xff utf-8")})),
            "SQL_INVALID_PARAMETER");
  EXPECT_EQ(reason(point(db(), "INSERT INTO items (name) VALUES ($1)", {std::string("a\0b", 3)})),
            "SQL_INVALID_PARAMETER");
  const auto twice =
      query(db(), "SELECT CAST($2 AS TEXT), CAST($1 AS TEXT), CAST($2 AS TEXT)", {std::string("a"), std::string("b")});
  ASSERT_TRUE(twice) << twice.error().describe();
  EXPECT_EQ(twice->rows.at(0), (std::vector<SqlValue>{std::string("b"), std::string("a"), std::string("b")}));
  // A value is never read as SQL.
  ASSERT_TRUE(insert(db(), "'); DELETE FROM items; --"));
  EXPECT_EQ(count(db(), "items"), 1);
}

TEST_P(SqlDatabaseSuite, LanesAreStableAndSpread) {
  make_items();
  const SqlText sql{db().dialect()};
  for (int i = 0; i < 200; ++i) ASSERT_TRUE(insert(db(), "key-" + std::to_string(i)));
  const auto text = "SELECT name, " + sql.lane("name", 4) + ", n FROM items ORDER BY id";
  const auto rows = query(db(), text);
  const auto again = query(other(), text);
  ASSERT_TRUE(rows && again);
  EXPECT_EQ(rows->rows, again->rows);
  std::map<std::int64_t, int> lanes;
  for (const auto& row : rows->rows) ++lanes[std::get<std::int64_t>(row[1])];
  ASSERT_EQ(lanes.size(), 4U);
  EXPECT_EQ(lanes.begin()->first, 0);
  EXPECT_EQ(lanes.rbegin()->first, 3);
  for (const auto& [lane, n] : lanes) EXPECT_GT(n, 20);
  const auto none = query(
      db(), "SELECT " + sql.lane("done", 4) + ", " + sql.lane("''", 4) + ", " + sql.lane("name", 1) + " FROM items", {},
      1);
  ASSERT_TRUE(none) << none.error().describe();
  if (db().dialect() == SqlDialect::sqlite) EXPECT_EQ(none->rows.at(0)[0], none->rows.at(0)[1]);
  EXPECT_EQ(std::get<std::int64_t>(none->rows.at(0)[2]), 0);
}

TEST_P(SqlDatabaseSuite, AWaiterHearsOfAChange) {
  make_items();
  for (SqlDatabase* writer : {&db(), &other()}) {
    const auto wait = [](SqlDatabase* d) -> Task<bool> {
      co_await d->wait_for_change(Context(), "items", std::chrono::minutes(2));
      co_return true;
    };
    const auto write = [](SqlDatabase* d, std::string name) -> Task<bool> {
      Batch<Statement> batch(1);
      batch[0] = {"INSERT INTO items (name) VALUES ($1)", {std::move(name)}};
      const auto out = co_await d->point(Context(), std::move(batch));
      co_return out.at(0).has_value();
    };
    const auto began = Clock::now();
    std::vector<Task<bool>> tasks;
    tasks.push_back(wait(&db()));  // it listens before the write begins
    tasks.push_back(write(writer, writer == &db() ? "own" : "foreign"));
    EXPECT_THAT(run_blocking(when_all(std::move(tasks))), ::testing::Each(true));
    EXPECT_LT(Clock::now() - began, std::chrono::minutes(1));
  }
  run_blocking(db().wait_for_change(Context(), "items", std::chrono::milliseconds(1)));  // and does not wait for ever
  std::stop_source stop;
  stop.request_stop();
  run_blocking(db().wait_for_change(Context().with_stop(stop.get_token()), "items", std::chrono::hours(1)));
}

TEST_P(SqlDatabaseSuite, ManyWritersAtOnce) {
  make_items();
  std::vector<Task<Batch<Result<SqlRows>>>> tasks;
  for (int i = 0; i < 64; ++i) {
    Batch<Statement> batch;
    for (int j = 0; j < 4; ++j) batch.push_back(insert_of(std::to_string(i) + "/" + std::to_string(j)));
    tasks.push_back((i % 4 == 0 ? other() : db()).point(soon(), std::move(batch)));
  }
  for (const auto& out : run_blocking(when_all(std::move(tasks)))) {
    for (const auto& r : out) EXPECT_TRUE(r) << r.error().describe();
  }
  EXPECT_EQ(count(db(), "items"), 256);
}

// proves: R-31, O-04
TEST_P(SqlDatabaseSuite, TheOutboxSchemaOfTheRfcWorks) {
  const std::string schema = R"(
        CREATE TABLE outbox (
          id BIGSERIAL PRIMARY KEY,
          event_type TEXT NOT NULL,
          aggregate_id TEXT NOT NULL,
          payload JSONB NOT NULL,
          created_at TIMESTAMP DEFAULT NOW(),
          published_at TIMESTAMP
        );
        CREATE INDEX idx_outbox_unpublished ON outbox (created_at) WHERE published_at IS NULL;
)";
  const auto made = run_blocking(db().create_from_ddl(soon(), schema));
  ASSERT_TRUE(made) << made.error().describe();
  EXPECT_EQ(reason(run_blocking(other().create_from_ddl(soon(), schema))), "TABLE_EXISTS");
  const std::string exact = "12345678901234567890.123456789";
  for (int i = 1; i <= 2; ++i) {
    const auto put =
        point(db(), "INSERT INTO outbox (event_type, aggregate_id, payload) VALUES ($1, $2, $3) RETURNING id",
              {std::string("OrderCreated"), std::string("order-1"), "{\"total\":" + exact + "}"});
    ASSERT_TRUE(put) << put.error().describe();
    EXPECT_EQ(std::get<std::int64_t>(put->rows.at(0).at(0)), i);
  }
  const auto rows =
      query(db(), "SELECT id, payload, created_at, published_at FROM outbox WHERE published_at IS NULL ORDER BY id");
  ASSERT_TRUE(rows);
  ASSERT_EQ(rows->rows.size(), 2U);
  EXPECT_THAT(std::get<std::string>(rows->rows[0][1]), ::testing::HasSubstr(exact));
  EXPECT_GT(std::get<std::string>(rows->rows[0][2]), "2020-01-01 00:00:00.000000");
  EXPECT_EQ(rows->rows[0][3], SqlValue(SqlNull()));
  const auto info = run_blocking(db().describe(soon(), "outbox"));
  ASSERT_TRUE(info && *info);
  EXPECT_EQ((*info)->find("id")->type, "bigint");
  EXPECT_EQ((*info)->find("payload")->type, "jsonb");
  EXPECT_TRUE((*info)->find("payload")->not_null);
}

TEST_P(SqlDatabaseSuite, AStoppedCallChangesNothing) {
  make_items();
  std::stop_source stop;
  stop.request_stop();
  const Context stopped = Context().with_stop(stop.get_token());
  Batch<Statement> one;
  one.push_back(insert_of("a"));
  EXPECT_EQ(reason(run_blocking(db().point(stopped, one)).at(0)), "CANCELLED");
  EXPECT_EQ(reason(run_blocking(db().atomically(stopped, one))), "CANCELLED");
  EXPECT_EQ(reason(run_blocking(db().query(stopped, {"SELECT 1", {}}, 1))), "CANCELLED");
  EXPECT_EQ(reason(run_blocking(db().begin(stopped, {}))), "CANCELLED");
  const Context late = Context().with_deadline(Clock::now() - std::chrono::seconds(1));
  EXPECT_EQ(reason(run_blocking(db().point(late, one)).at(0)), "DEADLINE_EXCEEDED");
  EXPECT_EQ(count(db(), "items"), 0);
}

TEST_P(SqlDatabaseSuite, WhatWasAcknowledgedSurvivesARestart) {
  if (db().features().durability == Durability::memory) GTEST_SKIP() << "this database declares that it keeps nothing";
  make_items();
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(insert(db(), std::to_string(i)));
  bed_->restart();
  EXPECT_EQ(count(db(), "items"), 50);
}

}  // namespace prism
