#include "backends/sqlite/engine.h"

#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <latch>

#include "runtime/scope.h"

namespace prism::sqlite {
namespace {

struct TempDir {
  TempDir() : path(std::filesystem::temp_directory_path() / ("prism-engine-" + to_hex(random_id()))) {
    std::filesystem::create_directories(path);
  }
  ~TempDir() { std::filesystem::remove_all(path); }
  std::string file(const char* name = "test.db") const { return path / name; }
  std::filesystem::path path;
};

struct EngineTest : testing::Test {
  std::shared_ptr<Engine> open(EngineOptions options = {}) {
    auto engine = run_blocking(Engine::open(runtime, dir.file(), options));
    EXPECT_TRUE(engine) << engine.error().describe();
    return *engine;
  }
  static Result<void> execute(Engine& engine, std::string sql, Context context = {}) {
    return run_blocking(engine.write(context, [sql](Connection& c) { return c.execute(sql); }));
  }
  static std::int64_t integer(Engine& engine, std::string sql) {
    auto r = run_blocking(engine.read({}, [sql](Connection& c) { return c.integer(sql); }));
    EXPECT_TRUE(r) << r.error().describe();
    return r.value_or(-1);
  }
  TempDir dir;
  Runtime runtime;
};

TEST_F(EngineTest, WritesAndReads) {
  auto engine = open();
  ASSERT_TRUE(execute(*engine, "CREATE TABLE t(a INTEGER) STRICT"));
  ASSERT_TRUE(execute(*engine, "INSERT INTO t VALUES(7)"));
  EXPECT_EQ(integer(*engine, "SELECT a FROM t"), 7);
  run_blocking(engine->close());
  EXPECT_EQ(execute(*engine, "INSERT INTO t VALUES(7)").error().reason, "ENGINE_CLOSED");
  auto again = open();
  EXPECT_EQ(integer(*again, "SELECT a FROM t"), 7);
  EXPECT_EQ(engine->incarnation(), again->incarnation());
}

TEST_F(EngineTest, ReadersRefuseWrites) {
  auto engine = open();
  auto r = run_blocking(engine->read({}, [](Connection& c) { return c.execute("CREATE TABLE t(a)"); }));
  EXPECT_EQ(r.error().reason, "DATABASE_READ_ONLY");
}

// An operation that waits inside execute() until the test has queued what is to share the next group.
Task<void> insert_into(Engine* engine, int value, Result<void>* out) {
  *out = co_await engine->write(
      {}, [value](Connection& c) { return c.execute("INSERT INTO t VALUES(" + std::to_string(value) + ")"); });
}

TEST_F(EngineTest, AFailingOperationFailsAlone) {
  auto engine = open();
  ASSERT_TRUE(execute(*engine, "CREATE TABLE t(a INTEGER PRIMARY KEY) STRICT"));
  std::latch entered(1);
  std::latch go(1);
  Scope scope;
  struct Block {
    static Task<void> run(Engine* engine, std::latch* entered, std::latch* go) {
      EXPECT_TRUE(co_await engine->write({}, [entered, go](Connection&) -> Result<void> {
        entered->count_down();
        go->wait();
        return {};
      }));
    }
  };
  scope.spawn(Block::run(engine.get(), &entered, &go));
  entered.wait();
  std::vector<Result<void>> results(5);
  const int values[] = {1, 2, 1, 3, 2};
  for (int i = 0; i < 5; ++i) scope.spawn(insert_into(engine.get(), values[i], &results[i]));
  go.count_down();
  scope.join_blocking();
  EXPECT_TRUE(results[0] && results[1] && results[3]);
  EXPECT_EQ(results[2].error().reason, "CONSTRAINT_VIOLATED");
  EXPECT_EQ(results[4].error().metadata.at("constraint"), "primary_key");
  EXPECT_EQ(integer(*engine, "SELECT count(*) FROM t"), 3);
}

// Not in a savepoint: the group is rolled back and replayed one by one.
TEST_F(EngineTest, AGroupIsReplayedAfterAFailure) {
  auto engine = open();
  ASSERT_TRUE(execute(*engine, "CREATE TABLE t(a INTEGER PRIMARY KEY) STRICT"));
  std::latch entered(1);
  std::latch go(1);
  Scope scope;
  struct Insert {
    static Task<void> run(Engine* engine, int value, std::atomic<int>* executed, std::latch* entered, std::latch* go,
                          Result<void>* out) {
      *out = co_await engine->write(
          {},
          [=](Connection& c) {
            ++*executed;
            if (entered != nullptr) {
              entered->count_down();
              go->wait();
            }
            return c.execute("INSERT INTO t VALUES(" + std::to_string(value) + ")");
          },
          false);
    }
  };
  std::atomic<int> executed = 0;
  std::vector<Result<void>> results(5);
  scope.spawn(Insert::run(engine.get(), 0, &executed, &entered, &go, &results[0]));
  entered.wait();
  const int values[] = {0, 1, 2, 1, 3};
  for (int i = 1; i < 5; ++i)
    scope.spawn(Insert::run(engine.get(), values[i], &executed, nullptr, nullptr, &results[i]));
  go.count_down();
  scope.join_blocking();
  EXPECT_TRUE(results[0] && results[1] && results[2] && results[4]);
  EXPECT_EQ(results[3].error().reason, "CONSTRAINT_VIOLATED");
  EXPECT_EQ(executed, 1 + 3 + 4);
  EXPECT_EQ(integer(*engine, "SELECT count(*) FROM t"), 4);
}

TEST_F(EngineTest, FullDiskIsSaidAndHarmless) {
  auto engine = open();
  ASSERT_TRUE(execute(*engine, "CREATE TABLE t(a BLOB) STRICT"));
  // A limit of the connection, not of the file: it must be set on the writer.
  ASSERT_TRUE(run_blocking(engine->write({}, [](Connection& c) -> Result<void> {
    PRISM_TRY(const auto pages, c.integer("PRAGMA page_count"));
    PRISM_TRY(const auto now, c.integer("PRAGMA max_page_count=" + std::to_string(pages + 10)));
    (void)now;
    return {};
  })));
  auto full = execute(*engine, "INSERT INTO t VALUES(randomblob(1000000))");
  ASSERT_FALSE(full);
  EXPECT_EQ(full.error().reason, "DISK_FULL");
  EXPECT_EQ(full.error().retry, Retry::safe);
  EXPECT_EQ(full.error().code, Code::resource_exhausted);
  EXPECT_TRUE(execute(*engine, "INSERT INTO t VALUES(randomblob(1000))"));
  EXPECT_EQ(integer(*engine, "SELECT count(*) FROM t"), 1);
}

TEST_F(EngineTest, ADamagedFileIsNamedWithAWayOut) {
  const auto overwrite = [&](std::streamoff from, std::size_t bytes) {
    std::fstream file(dir.file(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(from);
    file << std::string(bytes, 'x');
  };
  const auto check = [&](const Error& error) {
    EXPECT_EQ(error.reason, "DATABASE_CORRUPT");
    EXPECT_NE(error.message.find(dir.file()), std::string::npos) << error.message;
    EXPECT_NE(error.hint.find("restore " + dir.file() + " from a backup"), std::string::npos) << error.hint;
    EXPECT_EQ(error.metadata.at("file"), dir.file());
  };
  {
    auto engine = open();
    ASSERT_TRUE(execute(*engine, "CREATE TABLE t(a TEXT) STRICT"));
    ASSERT_TRUE(execute(*engine, "INSERT INTO t VALUES(hex(randomblob(50000)))"));
    run_blocking(engine->close());
  }
  {
    const auto size = std::filesystem::file_size(dir.file());
    auto engine = open();
    overwrite(static_cast<std::streamoff>(size / 4), size / 2);  // while it is open, in the middle
    auto damaged = run_blocking(engine->read({}, [](Connection& c) { return c.integer("SELECT length(a) FROM t"); }));
    auto checked = run_blocking(engine->write({}, [](Connection& c) { return c.execute("VACUUM; REINDEX"); }));
    EXPECT_FALSE(damaged && checked);
    run_blocking(engine->close());
  }
  overwrite(0, 100);  // the header: this is no database any more
  auto reopened = run_blocking(Engine::open(runtime, dir.file(), {}));
  ASSERT_FALSE(reopened);
  check(reopened.error());
}

TEST_F(EngineTest, AnotherProcessIsNoticed) {
  auto one = open();
  auto two = open();
  ASSERT_TRUE(execute(*one, "CREATE TABLE t(a INTEGER) STRICT"));
  const Engine::Watch watch(*two);
  const auto seen = two->foreign_commits().version();
  const auto generation = two->foreign_generation();
  ASSERT_TRUE(execute(*one, "INSERT INTO t VALUES(1)"));
  EXPECT_NE(run_blocking(two->foreign_commits().wait({}, seen, std::chrono::seconds(30))), seen);
  EXPECT_GT(two->foreign_generation(), generation);
  const auto own = one->foreign_generation();
  ASSERT_TRUE(execute(*one, "INSERT INTO t VALUES(2)"));
  EXPECT_EQ(one->foreign_generation(), own);
  EXPECT_EQ(integer(*two, "SELECT count(*) FROM t"), 2);
}

TEST_F(EngineTest, TheQueueIsBoundedByBytes) {
  auto engine = open({.max_queued_bytes = 4096});
  std::latch entered(1);
  std::latch go(1);
  Scope scope;
  struct Block {
    static Task<void> run(Engine* engine, std::latch* entered, std::latch* go) {
      EXPECT_TRUE(co_await engine->write({}, [entered, go](Connection&) -> Result<void> {
        entered->count_down();
        go->wait();
        return {};
      }));
    }
  };
  scope.spawn(Block::run(engine.get(), &entered, &go));
  entered.wait();
  auto refused = run_blocking(engine->write({}, [](Connection&) -> Result<void> { return {}; }, true, 4000));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().reason, "ENGINE_OVERLOADED");
  EXPECT_EQ(refused.error().code, Code::resource_exhausted);
  EXPECT_GT(refused.error().retry_after.count(), 0);
  go.count_down();
  scope.join_blocking();
  // An operation larger than the bound is taken when nothing waits.
  while (engine->queued_bytes() != 0) std::this_thread::yield();
  EXPECT_TRUE(run_blocking(engine->write({}, [](Connection&) -> Result<void> { return {}; }, true, 8000)));
}

TEST_F(EngineTest, StoppedWaitersAreReleased) {
  auto engine = open();
  ASSERT_TRUE(execute(*engine, "CREATE TABLE t(a INTEGER) STRICT"));
  std::latch entered(1);
  std::latch go(1);
  std::stop_source stop;
  Scope scope;
  struct Run {
    static Task<void> block(Engine* engine, Context context, std::latch* entered, std::latch* go, Result<void>* out) {
      *out = co_await engine->write(context, [entered, go](Connection&) -> Result<void> {
        entered->count_down();
        go->wait();
        return {};
      });
    }
    static Task<void> insert(Engine* engine, Context context, Result<void>* out) {
      *out = co_await engine->write(context, [](Connection& c) { return c.execute("INSERT INTO t VALUES(1)"); });
    }
  };
  const auto context = Context::background(stop.get_token());
  Result<void> begun;
  Result<void> queued;
  scope.spawn(Run::block(engine.get(), context, &entered, &go, &begun));
  entered.wait();
  scope.spawn(Run::insert(engine.get(), context, &queued));
  stop.request_stop();
  scope.join_blocking();  // before the writer goes on
  go.count_down();
  EXPECT_EQ(begun.error().retry, Retry::unknown_outcome);
  EXPECT_EQ(queued.error().code, Code::cancelled);
  EXPECT_EQ(queued.error().retry, Retry::safe);
  ASSERT_TRUE(execute(*engine, "INSERT INTO t VALUES(2)"));
  EXPECT_EQ(integer(*engine, "SELECT count(*) FROM t"), 1);
}

TEST_F(EngineTest, ReadsAreInterruptedAtTheDeadline) {
  auto engine = open();
  auto r = run_blocking(engine->read(Context().with_timeout(std::chrono::milliseconds(20)), [](Connection& c) {
    return c.integer("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n");
  }));
  ASSERT_FALSE(r);
  EXPECT_EQ(r.error().code, Code::deadline_exceeded);
  EXPECT_EQ(integer(*engine, "SELECT 5"), 5);
}

TEST_F(EngineTest, AnExclusiveWriterCommitsOrRollsBack) {
  auto engine = open();
  ASSERT_TRUE(execute(*engine, "CREATE TABLE t(a INTEGER) STRICT"));
  const auto insert = [](Connection& c) { return c.execute("INSERT INTO t VALUES(1)"); };
  {
    auto w = run_blocking(engine->lock({}));
    ASSERT_TRUE(w);
    ASSERT_TRUE(run_blocking((*w)->run({}, insert)));
    EXPECT_EQ(*run_blocking((*w)->run({}, [](Connection& c) { return c.integer("SELECT count(*) FROM t"); })), 1);
    EXPECT_EQ(integer(*engine, "SELECT count(*) FROM t"), 0);
    ASSERT_TRUE(run_blocking((*w)->commit({})));
    EXPECT_EQ(run_blocking((*w)->run({}, insert)).error().reason, "TRANSACTION_ENDED");
  }
  EXPECT_EQ(integer(*engine, "SELECT count(*) FROM t"), 1);
  {
    auto w = run_blocking(engine->lock({}));
    ASSERT_TRUE(run_blocking((*w)->run({}, insert)));
    run_blocking((*w)->rollback({}));
  }
  {
    auto w = run_blocking(engine->lock({}));
    ASSERT_TRUE(run_blocking((*w)->run({}, insert)));
  }  // given up
  ASSERT_TRUE(execute(*engine, "INSERT INTO t VALUES(2)"));
  EXPECT_EQ(integer(*engine, "SELECT count(*) FROM t"), 2);
}

TEST_F(EngineTest, AnExclusiveWriterHoldsOthersUpUntilItsTimeIsOver) {
  auto engine = open();
  ASSERT_TRUE(execute(*engine, "CREATE TABLE t(a INTEGER) STRICT"));
  auto w = run_blocking(engine->lock({}, std::chrono::milliseconds(150)));
  ASSERT_TRUE(w);
  ASSERT_TRUE(run_blocking((*w)->run({}, [](Connection& c) { return c.execute("INSERT INTO t VALUES(1)"); })));
  auto late = execute(*engine, "INSERT INTO t VALUES(2)", Context().with_timeout(std::chrono::milliseconds(30)));
  EXPECT_EQ(late.error().code, Code::deadline_exceeded);
  EXPECT_EQ(late.error().retry, Retry::safe);
  ASSERT_TRUE(execute(*engine, "INSERT INTO t VALUES(3)"));
  EXPECT_EQ(run_blocking((*w)->commit({})).error().reason, "TRANSACTION_TIMEOUT");
  EXPECT_EQ(integer(*engine, "SELECT sum(a) FROM t"), 3);
}

TEST_F(EngineTest, TheWalDoesNotGrowWithoutBound) {
  auto engine = open({.checkpoint_bytes = 1 << 20});
  ASSERT_TRUE(execute(*engine, "CREATE TABLE t(a BLOB) STRICT"));
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(execute(*engine, "INSERT INTO t VALUES(randomblob(200000))"));
  EXPECT_LT(std::filesystem::file_size(dir.file() + "-wal"), 4U << 20);
}

}  // namespace
}  // namespace prism::sqlite
