// What is particular to PostgreSQL, on a real server: types, log-in, encryption, limits of time, lost connections.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <map>
#include <set>
#include <thread>

#include "backends/postgres/world_for_test.h"

namespace prism::postgres {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using namespace std::chrono_literals;

class PostgresServer : public ::testing::Test {
 protected:
  SqlDatabase& db() { return *world_.first().database; }
  Result<SqlRows> run(std::string text, std::vector<SqlValue> bind = {}) {
    Batch<Statement> batch(1);
    batch[0] = {std::move(text), std::move(bind)};
    return std::move(run_blocking(db().point(soon(), std::move(batch))).at(0));
  }
  Result<SqlRows> query(std::string text, std::vector<SqlValue> bind = {}, std::size_t rows = 1000) {
    return run_blocking(db().query(soon(), {std::move(text), std::move(bind)}, rows));
  }
  template <class T>
  static std::string reason(const Result<T>& r) {
    return r ? "ok" : r.error().reason;
  }
  void ddl(const std::string& text) { must(run_blocking(db().create_from_ddl(soon(), text))); }
  static Context soon() { return Context().with_timeout(60s); }
  // The server's own processes for this world's clients.
  std::int64_t backends(const std::string& condition) {
    return world_.admin_number("SELECT count(*) FROM pg_stat_activity WHERE application_name = '" + name_ +
                               "' AND pid <> pg_backend_pid() AND " + condition);
  }
  static Options options() {
    Options out = options_of("PRISM_TEST_POSTGRES");
    out.application_name = "t-" + to_hex(random_id()).substr(0, 12);
    return out;
  }

  Options options_ = options();
  std::string name_ = options_.application_name;
  World world_{options_};
};

TEST_F(PostgresServer, EveryTypeIsExact) {
  ddl("CREATE TABLE t (id BIGSERIAL PRIMARY KEY, i8 BIGINT, i4 INTEGER, i2 SMALLINT, n NUMERIC, m NUMERIC(20,5), f8 "
      "DOUBLE PRECISION, f4 REAL, s TEXT, v VARCHAR(10), b BYTEA, j JSON, jb JSONB, at TIMESTAMP, atz TIMESTAMPTZ, d "
      "DATE, u "
      "UUID, t BOOLEAN, iv INTERVAL, a INTEGER[], e INET)");
  const auto put =
      run("INSERT INTO t (i8, i4, i2, n, m, f8, f4, s, v, b, j, jb, at, atz, d, u, t, iv, a, e) VALUES "
          "($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15,$16,$17,$18,$19,$20) RETURNING *",
          {std::numeric_limits<std::int64_t>::max(),
           std::int64_t{-2147483648},
           std::int64_t{32767},
           std::string("123456789012345678901234567890.123456789012345678901234567890"),
           std::string("-1.50000"),
           0.1,
           1e-5,
           std::string("ü\n'"),
           std::string("vv"),
           Bytes(std::string("\0\xff", 2)),
           std::string("{\"b\":1, \"a\":1.10}"),
           std::string("{\"n\": 12345678901234567890.10}"),
           std::string("2026-01-31 12:34:56.100000"),
           std::string("2026-01-31 12:34:56.123456+02"),
           std::string("2026-02-28"),
           std::string("018f3f5e-0000-7000-8000-000000000001"),
           true,
           std::string("1 day 02:03:04"),
           std::string("{1,2}"),
           std::string("10.0.0.1/8")});
  ASSERT_TRUE(put) << put.error().describe();
  const auto got = query("SELECT * FROM t WHERE n = $1 AND u = $2 AND jb @> $3",
                         {std::string("123456789012345678901234567890.12345678901234567890123456789"),
                          std::string("018f3f5e-0000-7000-8000-000000000001"), std::string("{}")});
  ASSERT_TRUE(got) << got.error().describe();
  EXPECT_EQ(got->rows, put->rows);
  const std::vector<SqlValue> expected{std::int64_t{1},
                                       std::numeric_limits<std::int64_t>::max(),
                                       std::int64_t{-2147483648},
                                       std::int64_t{32767},
                                       std::string("123456789012345678901234567890.123456789012345678901234567890"),
                                       std::string("-1.50000"),
                                       0.1,
                                       static_cast<double>(1e-5),
                                       std::string("ü\n'"),
                                       std::string("vv"),
                                       Bytes(std::string("\0\xff", 2)),
                                       std::string("{\"b\":1, \"a\":1.10}"),
                                       std::string("{\"n\": 12345678901234567890.10}"),
                                       std::string("2026-01-31 12:34:56.100000"),
                                       std::string("2026-01-31 10:34:56.123456"),
                                       std::string("2026-02-28"),
                                       std::string("018f3f5e-0000-7000-8000-000000000001"),
                                       true,
                                       std::string("1 day 02:03:04"),
                                       std::string("{1,2}"),
                                       std::string("10.0.0.1/8")};
  ASSERT_EQ(got->rows.at(0).size(), expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_EQ(got->rows[0][i], expected[i]) << got->columns[i];
  EXPECT_EQ(std::get<std::int64_t>(query("SELECT $1 + 1", {std::int64_t{9007199254740993}})->rows[0][0]),
            9007199254740994);
  EXPECT_EQ(reason(run("INSERT INTO t (i4) VALUES ($1)", {std::int64_t{1} << 40})), "SQL_INVALID_PARAMETER");
}

// proves: S-12
TEST_F(PostgresServer, AWrongPasswordIsSaidOnceAndNotTriedForEver) {
  Options wrong = options_of("PRISM_TEST_POSTGRES_SECURE");
  wrong.login_password = config::Secret("no-such-horse");
  wrong.tls = client::TlsOptions{.ca_file = std::getenv("PRISM_TEST_CA")};
  TestClient client(world_.runtime, wrong);
  for (int i = 0; i < 3; ++i) {
    const auto r = run_blocking(client.client->check(soon()));
    ASSERT_EQ(reason(r), "BACKEND_AUTHENTICATION_FAILED");
    EXPECT_THAT(r.error().describe(), Not(HasSubstr("no-such-horse")));
    EXPECT_THAT(r.error().message, HasSubstr("password authentication failed"));
    if (i > 0) EXPECT_GT(r.error().retry_after, 0ms);  // the server was not asked
  }
  Options none = wrong;
  none.login_password.reset();
  TestClient without(world_.runtime, none);
  EXPECT_EQ(reason(run_blocking(without.client->check(soon()))), "BACKEND_AUTHENTICATION_FAILED");
}

TEST_F(PostgresServer, EncryptionIsTrustedOrRefused) {
  Options good = options_of("PRISM_TEST_POSTGRES_SECURE");
  good.login_password = config::Secret(std::getenv("PRISM_TEST_POSTGRES_SECURE_PASSWORD"));
  const auto check = [&](const Options& o) {
    TestClient client(world_.runtime, o);
    const auto r = run_blocking(client.client->check(soon()));
    return r ? "ok" : r.error().reason + ": " + r.error().message;
  };
  good.tls = client::TlsOptions{.ca_file = std::getenv("PRISM_TEST_CA")};
  EXPECT_EQ(check(good), "ok");
  {
    TestClient client(world_.runtime, good);
    const auto rows = run_blocking(
        client.database->query(soon(), {"SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", {}}, 1));
    ASSERT_TRUE(rows);
    EXPECT_EQ(std::get<bool>(rows->rows.at(0).at(0)), true);
  }
  good.tls = client::TlsOptions{.ca_file = std::getenv("PRISM_TEST_UNTRUSTED_CA")};
  EXPECT_THAT(check(good), HasSubstr("BACKEND_TLS_FAILED"));
  good.tls = client::TlsOptions{.verify = false};
  EXPECT_EQ(check(good), "ok");
  good.tls = client::TlsOptions{.ca_file = "/no/such/file"};
  EXPECT_THAT(check(good), HasSubstr("BACKEND_TLS_FAILED"));
  good.tls = client::TlsOptions{.ca_file = std::getenv("PRISM_TEST_CA"), .server_name = "another.example.com"};
  EXPECT_THAT(check(good), HasSubstr("BACKEND_TLS_FAILED"));
  good.tls = client::TlsOptions{.ca_file = std::getenv("PRISM_TEST_CA"), .server_name = "localhost"};
  EXPECT_EQ(check(good), "ok");
  good.tls.reset();
  EXPECT_THAT(check(good), HasSubstr("BACKEND_TLS_FAILED"));  // the server wants it of this user

  Options certified = options_of("PRISM_TEST_POSTGRES_CERTIFIED");
  certified.tls = client::TlsOptions{.ca_file = std::getenv("PRISM_TEST_CA"),
                                     .cert_file = std::getenv("PRISM_TEST_CLIENT_CERT"),
                                     .key_file = std::getenv("PRISM_TEST_CLIENT_KEY")};
  EXPECT_EQ(check(certified), "ok");
}

TEST_F(PostgresServer, WhatIsNotAllowedIsSaid) {
  Options limited = options_of("PRISM_TEST_POSTGRES_LIMITED");
  limited.login_password = config::Secret(std::getenv("PRISM_TEST_POSTGRES_LIMITED_PASSWORD"));
  limited.tls = client::TlsOptions{.verify = false};
  TestClient client(world_.runtime, limited);
  EXPECT_EQ(
      reason(run_blocking(client.database->create_table(soon(), {.name = "t", .columns = {{"id", ColumnType::id}}}))),
      "BACKEND_PERMISSION_DENIED");
  ddl("CREATE TABLE t (a INT)");
  EXPECT_EQ(reason(run_blocking(client.database->query(soon(), {"SELECT * FROM " + world_.schema + ".t", {}}, 1))),
            "BACKEND_PERMISSION_DENIED");
  Options nowhere = options_of("PRISM_TEST_POSTGRES");
  nowhere.database = "no_such_database";
  TestClient lost(world_.runtime, nowhere);
  EXPECT_EQ(reason(run_blocking(lost.client->check(soon()))), "DATABASE_NOT_FOUND");
}

TEST_F(PostgresServer, AServerThatIsNotThereIsUnavailable) {
  Options away = options_of("PRISM_TEST_POSTGRES");
  away.port = 1;  // nobody listens there
  away.retry.attempts = 1;
  TestClient client(world_.runtime, away);
  for (int i = 0; i < 8; ++i) {
    const auto r = run_blocking(client.database->query(soon(), {"SELECT 1", {}}, 1));
    ASSERT_EQ(reason(r), "BACKEND_UNAVAILABLE");
    EXPECT_EQ(r.error().retry, Retry::safe);
    const auto w = run_blocking(client.database->atomically(soon(), {{"UPDATE t SET a = 1", {}}}));
    ASSERT_EQ(reason(w), "BACKEND_UNAVAILABLE");
    EXPECT_EQ(w.error().retry, Retry::safe);
  }
  EXPECT_EQ(reason(run_blocking(client.lease->acquire(soon(), "a", "b", 1s))), "BACKEND_UNAVAILABLE");
}

// proves: L-04
TEST_F(PostgresServer, APoolThatIsUsedUpRefuses) {
  Options small = options_;
  small.schema = world_.schema;
  small.pool = {.connections = 1, .queue = 1'000, .wait = 50ms};
  TestClient client(world_.runtime, small);
  auto first = run_blocking(client.database->begin(soon(), {}));
  ASSERT_TRUE(first);
  const auto second = run_blocking(client.database->begin(soon(), {}));
  ASSERT_EQ(reason(second), "BACKEND_OVERLOADED");
  EXPECT_EQ(second.error().retry, Retry::safe);
  EXPECT_EQ(client.client->use().in_use, 1U);
  first->reset();
  std::string last;
  for (const auto end = Clock::now() + 30s; Clock::now() < end && last != "ok";)
    last = reason(run_blocking(client.database->begin(soon(), {})));
  EXPECT_EQ(last, "ok");
}

TEST_F(PostgresServer, StatementsEndInTime) {
  Options quick = options_;
  quick.schema = world_.schema;
  quick.timeouts.operation = 300ms;
  quick.lock_timeout = 100ms;
  TestClient client(world_.runtime, quick);
  EXPECT_EQ(reason(run_blocking(client.database->query(soon(), {"SELECT pg_sleep(60)", {}}, 1))), "SQL_TOO_SLOW");
  Batch<Statement> sleep(1);
  sleep[0] = {"SELECT pg_sleep(60)", {}};
  EXPECT_EQ(reason(run_blocking(client.database->point(soon(), sleep)).at(0)), "SQL_TOO_SLOW");
  // By the deadline of the request, at the server too.
  const auto began = Clock::now();
  EXPECT_EQ(reason(run_blocking(db().query(Context().with_timeout(200ms), {"SELECT pg_sleep(60)", {}}, 1))),
            "DEADLINE_EXCEEDED");
  EXPECT_LT(Clock::now() - began, 20s);
  for (const auto end = Clock::now() + 30s;
       Clock::now() < end && backends("state = 'active' AND query LIKE '%pg_sleep%'") > 0;) {
  }
  EXPECT_EQ(backends("state = 'active' AND query LIKE '%pg_sleep%'"), 0);
  EXPECT_EQ(reason(query("SELECT 1")), "ok");

  ddl("CREATE TABLE t (a INT PRIMARY KEY); INSERT INTO t VALUES (1)");
  auto tx = must(run_blocking(db().begin(soon(), {})));
  ASSERT_TRUE(run_blocking(tx->execute(soon(), {{"UPDATE t SET a = 2", {}}})));
  Batch<Statement> update(1);
  update[0] = {"UPDATE t SET a = 3", {}};
  const auto locked = run_blocking(client.database->point(soon(), update)).at(0);
  EXPECT_EQ(reason(locked), "LOCK_TIMEOUT");
  EXPECT_EQ(locked.error().retry, Retry::safe);
  run_blocking(tx->rollback(soon()));
}

Task<Result<SqlRows>> run_query(SqlDatabase* database, Context context, Statement statement) {
  co_return co_await database->query(std::move(context), std::move(statement), 10);
}
Task<Result<SqlRows>> stop_when_it_runs(World* world, std::string name, std::stop_source stop) {
  const auto active = "SELECT count(*) FROM pg_stat_activity WHERE application_name = '" + name +
                      "' AND state = 'active' AND query LIKE '%pg_sleep%'";
  std::int64_t n = 0;
  for (const auto end = Clock::now() + 30s; Clock::now() < end && n == 0;) {
    auto rows = co_await world->second().database->query(Context(), {active + " AND pid <> pg_backend_pid()", {}}, 1);
    if (!rows) co_return rows;
    n = std::get<std::int64_t>(rows->rows.at(0).at(0));
  }
  stop.request_stop();
  co_return SqlRows();
}

TEST_F(PostgresServer, AStatementWhoseCallerHasGoneIsEnded) {
  std::stop_source stop;
  std::vector<Task<Result<SqlRows>>> tasks;
  tasks.push_back(run_query(&db(), Context().with_stop(stop.get_token()), {"SELECT pg_sleep(60)", {}}));
  tasks.push_back(stop_when_it_runs(&world_, name_, stop));
  const auto began = Clock::now();
  const auto out = run_blocking(when_all(std::move(tasks)));
  EXPECT_EQ(reason(out[0]), "CANCELLED");
  EXPECT_EQ(reason(out[1]), "ok");
  EXPECT_LT(Clock::now() - began, 30s);
  std::int64_t n = 1;
  for (const auto end = Clock::now() + 30s; Clock::now() < end && n > 0;)
    n = backends("state = 'active' AND query LIKE '%pg_sleep(60)%'");
  EXPECT_EQ(n, 0);
  EXPECT_EQ(reason(query("SELECT 1")), "ok");
}

TEST_F(PostgresServer, PlansThatAreOutOfDateAreMadeAnew) {
  ddl("CREATE TABLE t (a INT); INSERT INTO t VALUES (1)");
  auto tx = must(run_blocking(db().begin(soon(), {})));
  ASSERT_TRUE(run_blocking(tx->execute(soon(), {{"SELECT * FROM t", {}}})));
  ASSERT_TRUE(run_blocking(tx->commit(soon())));
  ASSERT_TRUE(query("SELECT * FROM t"));
  ASSERT_TRUE(run("SELECT * FROM t"));
  world_.admin("ALTER TABLE " + world_.schema + ".t ADD COLUMN b TEXT DEFAULT 'x'");
  const auto point = run("SELECT * FROM t");
  ASSERT_TRUE(point) << point.error().describe();
  EXPECT_EQ(point->rows.at(0).size(), 2U);
  for (int i = 0; i < 8; ++i) {
    const auto rows = query("SELECT * FROM t");
    ASSERT_TRUE(rows) << rows.error().describe();
    EXPECT_EQ(rows->rows.at(0).size(), 2U);
  }
  world_.admin("ALTER TABLE " + world_.schema + ".t DROP COLUMN b");
  auto again = must(run_blocking(db().begin(soon(), {})));
  const auto stale = run_blocking(again->execute(soon(), {{"SELECT * FROM t", {}}}));
  if (!stale) EXPECT_EQ(stale.error().retry, Retry::safe);
}

TEST_F(PostgresServer, ManyDifferentTextsAreNoBurden) {
  for (int i = 0; i < 700; ++i) {
    const auto r = run("SELECT " + std::to_string(i));
    ASSERT_TRUE(r) << r.error().describe();
    ASSERT_EQ(std::get<std::int64_t>(r->rows.at(0).at(0)), i);
  }
  EXPECT_LE(std::get<std::int64_t>(run("SELECT count(*) FROM pg_prepared_statements")->rows.at(0).at(0)), 300);
}

TEST_F(PostgresServer, AConstraintThatIsCheckedAtTheCommit) {
  ddl("CREATE TABLE p (id INT PRIMARY KEY); CREATE TABLE c (p INT REFERENCES p DEFERRABLE INITIALLY DEFERRED)");
  const auto r = run_blocking(db().atomically(soon(), {{"INSERT INTO c VALUES (1)", {}}}));
  ASSERT_EQ(reason(r), "CONSTRAINT_VIOLATED");
  EXPECT_EQ(r.error().metadata.at("constraint"), "foreign_key");
  EXPECT_EQ(reason(run("INSERT INTO c VALUES (1)")), "CONSTRAINT_VIOLATED");
  auto tx = must(run_blocking(db().begin(soon(), {})));
  ASSERT_TRUE(run_blocking(tx->execute(soon(), {{"INSERT INTO c VALUES (1)", {}}})));
  EXPECT_EQ(reason(run_blocking(tx->commit(soon()))), "CONSTRAINT_VIOLATED");
  EXPECT_TRUE(
      run_blocking(db().atomically(soon(), {{"INSERT INTO c VALUES (1)", {}}, {"INSERT INTO p VALUES (1)", {}}})));
  // One among many that go out together fails alone.
  std::vector<Task<Result<Committed>>> tasks;
  for (int i = 0; i < 30; ++i) {
    Batch<Statement> batch;
    batch.push_back({"INSERT INTO c VALUES ($1)", {std::int64_t{i == 7 ? 99 : 1}}});
    tasks.push_back(db().atomically(soon(), std::move(batch)));
  }
  const auto out = run_blocking(when_all(std::move(tasks)));
  for (std::size_t i = 0; i < out.size(); ++i) EXPECT_EQ(reason(out[i]), i == 7 ? "CONSTRAINT_VIOLATED" : "ok");
}

TEST_F(PostgresServer, ConflictsMayBeRepeated) {
  ddl("CREATE TABLE t (id INT PRIMARY KEY, a INT); INSERT INTO t VALUES (1, 0), (2, 0)");
  Options strict = options_;
  strict.schema = world_.schema;
  strict.isolation = Isolation::serializable;
  TestClient client(world_.runtime, strict);
  auto a = must(run_blocking(client.database->begin(soon(), {})));
  auto b = must(run_blocking(client.database->begin(soon(), {})));
  ASSERT_TRUE(
      run_blocking(a->execute(soon(), {{"SELECT sum(a) FROM t", {}}, {"UPDATE t SET a = 1 WHERE id = 1", {}}})));
  ASSERT_TRUE(
      run_blocking(b->execute(soon(), {{"SELECT sum(a) FROM t", {}}, {"UPDATE t SET a = 1 WHERE id = 2", {}}})));
  ASSERT_TRUE(run_blocking(a->commit(soon())));
  const auto second = run_blocking(b->commit(soon()));
  ASSERT_EQ(reason(second), "TRANSACTION_CONFLICT");
  EXPECT_EQ(second.error().retry, Retry::safe);
}

TEST_F(PostgresServer, ATransactionsConnectionIsCleanForTheNext) {
  ddl("CREATE TABLE t (a INT)");
  for (int i = 0; i < 20; ++i) {
    auto tx = must(run_blocking(db().begin(soon(), {.read_only = i % 2 == 0})));
    (void)run_blocking(tx->execute(soon(), {{i % 3 == 0 ? "SELECT nonsense" : "SELECT 1", {}}}));
  }
  EXPECT_EQ(reason(query("SELECT 1")), "ok");
  for (const auto end = Clock::now() + 30s; Clock::now() < end && backends("state LIKE 'idle in transaction%'") > 0;) {
  }
  EXPECT_EQ(backends("state LIKE 'idle in transaction%'"), 0);
}

struct Told {
  std::set<std::int64_t> acknowledged, unknown, refused;
};
Task<Told> write(SqlDatabase* database, std::int64_t first, const std::atomic<bool>* stop) {
  Told told;
  for (std::int64_t n = first; !*stop; ++n) {
    std::optional<Error> error;
    Statement insert{"INSERT INTO t (n) VALUES ($1)", {n}};
    if (n % 3 == 0) {
      auto done = co_await database->atomically(Context(), {insert});
      if (!done) error = done.error();
    } else if (n % 3 == 1) {
      auto done = co_await database->point(Context(), {insert});
      if (!done.at(0)) error = done[0].error();
    } else {
      auto tx = co_await database->begin(Context(), {});
      if (!tx) {
        error = tx.error();
      } else {
        auto executed = co_await (*tx)->execute(Context(), {insert});
        if (!executed) {
          error = executed.error();
        } else {
          auto committed = co_await (*tx)->commit(Context());
          if (!committed) error = committed.error();
        }
      }
    }
    if (!error) {
      told.acknowledged.insert(n);
    } else if (error->retry == Retry::unknown_outcome) {
      told.unknown.insert(n);
    } else {
      told.refused.insert(n);
    }
  }
  co_return told;
}

// proves: O-01, O-14
TEST_F(PostgresServer, NothingThatWasAcknowledgedIsLostWithItsConnection) {
  ddl("CREATE TABLE t (n BIGINT PRIMARY KEY)");
  std::atomic<bool> stop = false;
  std::thread killer([&] {
    for (int i = 0; i < 25; ++i) {
      std::this_thread::sleep_for(40ms);
      (void)world_.admin_number(
          "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = '" + name_ +
          "' AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND query NOT LIKE '%pg_terminate%'");
    }
    stop = true;
  });
  std::vector<Task<Told>> tasks;
  for (std::int64_t i = 0; i < 12; ++i) tasks.push_back(write(&db(), i * 1'000'000, &stop));
  const auto all = run_blocking(when_all(std::move(tasks)));
  killer.join();
  std::set<std::int64_t> present;
  for (const auto& row : must(query("SELECT n FROM t", {}, 10'000'000)).rows)
    present.insert(std::get<std::int64_t>(row.at(0)));
  std::size_t acknowledged = 0;
  std::size_t unknown = 0;
  for (const auto& told : all) {
    for (const auto n : told.acknowledged) EXPECT_TRUE(present.contains(n)) << n;
    for (const auto n : told.refused) EXPECT_FALSE(present.contains(n)) << n;
    acknowledged += told.acknowledged.size();
    unknown += told.unknown.size();
  }
  EXPECT_GT(acknowledged, 100U);
  std::cout << acknowledged << " acknowledged, " << unknown << " unknown\n";
}

// Passes on what clients and the server say; when it is deaf, nothing of what the server says, and no connection ends.
class Between {
 public:
  explicit Between(std::uint16_t upstream) : upstream_(upstream) {
    listener_ = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address = local(0);
    socklen_t size = sizeof(address);
    if (::bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 || ::listen(listener_, 16) != 0)
      throw std::runtime_error("no port");
    ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port = ntohs(address.sin_port);
    thread_ = std::thread([this] { run(); });
  }
  ~Between() {
    ended_ = true;
    thread_.join();
    for (const auto& [from, to] : pairs_) ::close(from);
    ::close(listener_);
  }
  std::uint16_t port = 0;
  std::atomic<bool> deaf = false;

 private:
  static sockaddr_in local(std::uint16_t port) {
    sockaddr_in out{};
    out.sin_family = AF_INET;
    out.sin_port = htons(port);
    out.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return out;
  }
  void run() {
    while (!ended_) {
      std::vector<pollfd> fds{{.fd = listener_, .events = POLLIN, .revents = 0}};
      for (const auto& [from, to] : pairs_) fds.push_back({.fd = from, .events = POLLIN, .revents = 0});
      ::poll(fds.data(), fds.size(), 10);
      for (std::size_t i = 1; i < fds.size(); ++i) {
        if (fds[i].revents != 0) pass(fds[i].fd);
      }
      if (fds[0].revents == 0) continue;
      const int client = ::accept(listener_, nullptr, nullptr);
      const int server = ::socket(AF_INET, SOCK_STREAM, 0);
      const sockaddr_in address = local(upstream_);
      if (::connect(server, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0)
        throw std::runtime_error("upstream");
      pairs_[client] = server;
      pairs_[server] = client;
      servers_.insert(server);
    }
  }
  void pass(int from) {
    const auto it = pairs_.find(from);
    if (it == pairs_.end()) return;
    const int to = it->second;
    std::array<char, 65536> buffer{};
    const auto n = ::read(from, buffer.data(), buffer.size());
    if (n > 0) {
      if (!deaf || !servers_.contains(from)) (void)::send(to, buffer.data(), static_cast<std::size_t>(n), MSG_NOSIGNAL);
      return;
    }
    for (const int fd : {from, to}) {
      pairs_.erase(fd);
      servers_.erase(fd);
      ::close(fd);
    }
  }

  const std::uint16_t upstream_;
  int listener_ = -1;
  std::map<int, int> pairs_;
  std::set<int> servers_;
  std::atomic<bool> ended_ = false;
  std::thread thread_;
};

// proves: O-01
TEST_F(PostgresServer, AWriteWhoseAnswerIsLostIsOfUnknownOutcome) {
  ddl("CREATE TABLE t (n BIGINT PRIMARY KEY)");
  Between between(*options_.port);
  Options through = options_;
  through.schema = world_.schema;
  through.port = between.port;
  through.timeouts.operation = 200ms;
  through.timeouts.connect = 2s;
  through.breaker.failures = 1000;
  TestClient client(world_.runtime, through);
  auto tx = must(run_blocking(client.database->begin(soon(), {})));
  ASSERT_TRUE(run_blocking(tx->execute(soon(), {{"INSERT INTO t VALUES (1)", {}}})));
  ASSERT_TRUE(run_blocking(client.database->atomically(soon(), {{"INSERT INTO t VALUES (2)", {}}})));
  auto open = must(run_blocking(client.database->begin(soon(), {})));
  ASSERT_TRUE(run_blocking(open->execute(soon(), {{"INSERT INTO t VALUES (3)", {}}})));

  between.deaf = true;
  const auto committed = run_blocking(tx->commit(soon()));
  ASSERT_FALSE(committed);
  EXPECT_EQ(committed.error().retry, Retry::unknown_outcome) << committed.error().describe();
  const auto written = run_blocking(client.database->atomically(soon(), {{"INSERT INTO t VALUES (4)", {}}}));
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().retry, Retry::unknown_outcome) << written.error().describe();
  // Before the COMMIT nothing can have happened.
  const auto executed = run_blocking(open->execute(soon(), {{"INSERT INTO t VALUES (5)", {}}}));
  ASSERT_FALSE(executed);
  EXPECT_EQ(executed.error().retry, Retry::safe) << executed.error().describe();
  const auto read = run_blocking(client.database->query(Context().with_timeout(1s), {"SELECT 1", {}}, 1));
  EXPECT_FALSE(read);

  between.deaf = false;
  std::string last;
  for (const auto end = Clock::now() + 30s; Clock::now() < end && last != "ok";)
    last = reason(run_blocking(client.client->check(soon())));
  EXPECT_EQ(last, "ok");
  std::set<std::int64_t> present;
  for (const auto& row : must(query("SELECT n FROM t")).rows) present.insert(std::get<std::int64_t>(row.at(0)));
  EXPECT_EQ(present, (std::set<std::int64_t>{1, 2, 4}));
}

TEST_F(PostgresServer, WhatHasExpiredLeavesTheTable) {
  auto& store = *world_.first().store;
  Batch<Mutation> batch;
  for (int i = 0; i < 20; ++i) batch.push_back({.key = std::to_string(i), .value = Bytes("v"), .ttl = 1ms});
  for (const auto& r : run_blocking(store.apply(soon(), std::move(batch)))) ASSERT_TRUE(r) << r.error().describe();
  std::int64_t rows = 20;
  for (const auto end = Clock::now() + 1min; Clock::now() < end && rows > 0;)
    rows = world_.admin_number("SELECT count(*) FROM " + world_.schema + ".prism_kv");
  EXPECT_EQ(rows, 0);
}

TEST_F(PostgresServer, ManyWhoFindTheTableMissingMakeItOnce) {
  std::vector<Task<Batch<Result<Written>>>> tasks;
  for (int i = 0; i < 100; ++i) {
    Batch<Mutation> batch(1);
    batch[0] = {.key = std::to_string(i), .value = Bytes("v")};
    tasks.push_back((i % 2 == 0 ? world_.first() : world_.second()).store->apply(soon(), std::move(batch)));
  }
  const auto began = Clock::now();
  for (const auto& r : run_blocking(when_all(std::move(tasks)))) EXPECT_TRUE(r.at(0)) << r.at(0).error().describe();
  EXPECT_LT(Clock::now() - began, options_.pool.wait);
}

TEST_F(PostgresServer, WhoWaitsForALeaseWritesNothing) {
  ASSERT_TRUE(*run_blocking(world_.first().lease->acquire(soon(), "job", "a", 1h)));
  const auto version = [&] {
    return world_.admin_number("SELECT xmin::text::bigint FROM " + world_.schema + ".prism_lease");
  };
  const auto before = version();
  EXPECT_FALSE(*run_blocking(world_.second().lease->acquire(soon(), "job", "b", 1h)));
  EXPECT_EQ(version(), before);
  EXPECT_EQ(world_.admin_number("SELECT xmax::text::bigint FROM " + world_.schema + ".prism_lease"), 0);
}

}  // namespace
}  // namespace prism::postgres
