// What needs no server: statements, values, errors.
#include "backends/postgres/values.h"

#include <gmock/gmock.h>

#include <limits>

#include "backends/postgres/errors.h"
#include "backends/postgres/options.h"

namespace prism::postgres {
namespace {

std::string check(std::string text, std::vector<SqlValue> bind = {}) {
  const auto r = check_statement({std::move(text), std::move(bind)});
  return r ? "ok" : r.error().reason;
}

TEST(PostgresStatement, ParametersAreCounted) {
  EXPECT_EQ(check("SELECT $1, $2, $1", {std::int64_t{1}, std::int64_t{2}}), "ok");
  EXPECT_EQ(check("SELECT $2", {std::int64_t{1}, std::int64_t{2}}), "ok");
  EXPECT_EQ(check("SELECT $1"), "SQL_INVALID_PARAMETER");
  EXPECT_EQ(check("SELECT 1", {std::int64_t{1}}), "SQL_INVALID_PARAMETER");
  EXPECT_EQ(check("SELECT $0", {}), "SQL_INVALID_PARAMETER");
  EXPECT_EQ(check("SELECT $99999999999999999999", {}), "SQL_INVALID_PARAMETER");
  // None of these is one.
  for (const char* text :
       {"SELECT '$1'", "SELECT \"$1\" FROM t", "SELECT 1 -- $1", "SELECT 1 /* $1 /* $2 */ $3 */", "SELECT $$ $1 $$",
        "SELECT $a$ $1 $b$ $2 $a$", "SELECT E'\\'$1'", "SELECT 'it''s $1'", "SELECT a$1 FROM t", "SELECT e'$1'"}) {
    EXPECT_EQ(check(text), "ok") << text;
  }
  EXPECT_EQ(check("SELECT '\\', $1", {std::int64_t{1}}), "ok");  // a backslash is a character like others
}

TEST(PostgresStatement, WhatWouldOutliveAStatementIsForbidden) {
  for (const char* text : {"BEGIN", "commit", " ROLLBACK", "/* x */ SET a = 1", "-- x\nLISTEN a", "COPY t FROM STDIN",
                           "CREATE TABLE t ()", "DROP TABLE t", "PREPARE a AS SELECT 1", "DEALLOCATE ALL",
                           "DISCARD ALL", "DO $$ BEGIN END $$", "START TRANSACTION", "savepoint a", "RESET ALL"}) {
    EXPECT_EQ(check(text), "SQL_FORBIDDEN") << text;
  }
  EXPECT_EQ(check(""), "SQL_ERROR");
  EXPECT_EQ(check(" -- nothing\n"), "SQL_ERROR");
  EXPECT_EQ(check(std::string("SELECT 1\0", 9)), "SQL_ERROR");
  EXPECT_EQ(check("WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a"), "ok");
  EXPECT_EQ(check("SELECT $1", {std::string("a\0b", 3)}), "SQL_INVALID_PARAMETER");
}

TEST(PostgresStatement, TablesThatAreChanged) {
  EXPECT_EQ(changed_table("INSERT INTO \"Outbox\" VALUES (1)"), "outbox");
  EXPECT_EQ(changed_table("insert into Outbox (a) values (1)"), "outbox");
  EXPECT_EQ(changed_table("UPDATE ONLY public.\"outbox\" SET a = 1"), "outbox");
  EXPECT_EQ(changed_table("DELETE FROM outbox"), "outbox");
  EXPECT_EQ(changed_table("SELECT * FROM outbox"), "");
  EXPECT_EQ(changed_table("WITH a AS (DELETE FROM t RETURNING 1) SELECT 1"), "*");
  EXPECT_TRUE(surely_reads(" /* a */ Select 1"));
  EXPECT_TRUE(surely_reads("VALUES (1)"));
  EXPECT_FALSE(surely_reads("SELECTED"));
  EXPECT_FALSE(surely_reads("WITH a AS (SELECT 1) SELECT 1"));
}

TEST(PostgresValues, AreExact) {
  const auto p =
      encode({SqlNull(), true, std::numeric_limits<std::int64_t>::min(), 0.1, std::string("t"), Bytes("b"), Bytes()});
  ASSERT_EQ(p.values.size(), 7U);
  EXPECT_EQ(p.values[0], nullptr);
  EXPECT_STREQ(p.values[1], "t");
  EXPECT_STREQ(p.values[2], "-9223372036854775808");
  EXPECT_STREQ(p.values[3], "0.1");
  EXPECT_EQ(p.types[4], 0U);
  EXPECT_EQ(p.formats[5], 1);
  EXPECT_NE(p.values[6], nullptr);  // empty is not null
  EXPECT_EQ(p.lengths[6], 0);

  EXPECT_EQ(decode(20, "-9223372036854775808"), SqlValue(std::numeric_limits<std::int64_t>::min()));
  EXPECT_EQ(decode(16, "f"), SqlValue(false));
  EXPECT_EQ(decode(701, "0.1"), SqlValue(0.1));
  EXPECT_EQ(decode(1700, "12345678901234567890.123456789"), SqlValue(std::string("12345678901234567890.123456789")));
  EXPECT_EQ(std::get<Bytes>(decode(17, "\\x00ff10")), std::string_view("\0\xff\x10", 3));
  for (std::size_t n = 0; n < 100; ++n) {  // around the sizes that strings allocate
    std::string text = "\\x";
    for (std::size_t i = 0; i < n; ++i) text += "7a";
    EXPECT_EQ(std::get<Bytes>(decode(17, text)), std::string(n, 'z'));
  }
}

TEST(PostgresValues, TimesAreInOneForm) {
  const auto text = [](std::uint32_t type, const char* from) { return std::get<std::string>(decode(type, from)); };
  EXPECT_EQ(text(1114, "2026-01-31 12:34:56"), "2026-01-31 12:34:56.000000");
  EXPECT_EQ(text(1114, "2026-01-31 12:34:56.1"), "2026-01-31 12:34:56.100000");
  EXPECT_EQ(text(1114, "2026-01-31 12:34:56.123456"), "2026-01-31 12:34:56.123456");
  EXPECT_EQ(text(1184, "2026-01-31 12:34:56.5+00"), "2026-01-31 12:34:56.500000");
  EXPECT_EQ(text(1184, "infinity"), "infinity");
  EXPECT_EQ(text(1114, "0044-03-15 12:00:00 BC"), "0044-03-15 12:00:00 BC");
  EXPECT_EQ(text(1184, "2026-01-31 12:34:56+05:30"), "2026-01-31 12:34:56+05:30");
}

TEST(PostgresValues, LogPositions) {
  EXPECT_EQ(parse_lsn("0/0"), 0U);
  EXPECT_EQ(parse_lsn("16/B374D848"), 0x16B374D848U);
  EXPECT_EQ(parse_lsn("FFFFFFFF/FFFFFFFF"), std::numeric_limits<std::uint64_t>::max());
  EXPECT_EQ(parse_lsn("nonsense"), 0U);
}

const client::Peer kPeer{.backend = "db", .system = "PostgreSQL", .address = "h:1"};

TEST(PostgresErrors, StatesAreTranslated) {
  const auto error = [](std::string state) { return to_error({.sqlstate = std::move(state), .message = "m"}, kPeer); };
  struct Case {
    const char* state;
    const char* reason;
    Code code;
    Retry retry;
  };
  for (const auto& c : std::vector<Case>{
           {"23505", "CONSTRAINT_VIOLATED", Code::already_exists, Retry::never},
           {"23502", "CONSTRAINT_VIOLATED", Code::failed_precondition, Retry::never},
           {"40001", "TRANSACTION_CONFLICT", Code::aborted, Retry::safe},
           {"40P01", "TRANSACTION_CONFLICT", Code::aborted, Retry::safe},
           {"40003", "OUTCOME_UNKNOWN", Code::unknown, Retry::unknown_outcome},
           {"55P03", "LOCK_TIMEOUT", Code::aborted, Retry::safe},
           {"57014", "SQL_TOO_SLOW", Code::deadline_exceeded, Retry::safe},
           {"57P01", "BACKEND_UNAVAILABLE", Code::unavailable, Retry::safe},
           {"53300", "BACKEND_UNAVAILABLE", Code::unavailable, Retry::safe},
           {"53100", "DISK_FULL", Code::resource_exhausted, Retry::safe},
           {"42601", "SQL_ERROR", Code::invalid_argument, Retry::never},
           {"42P07", "TABLE_EXISTS", Code::already_exists, Retry::never},
           {"42501", "BACKEND_PERMISSION_DENIED", Code::permission_denied, Retry::never},
           {"28P01", "BACKEND_AUTHENTICATION_FAILED", Code::failed_precondition, Retry::never},
           {"22021", "SQL_INVALID_PARAMETER", Code::invalid_argument, Retry::never},
           {"25006", "SQL_READ_ONLY", Code::failed_precondition, Retry::never},
           {"XX001", "DATABASE_CORRUPT", Code::data_loss, Retry::never},
           {"XX000", "DATABASE_ERROR", Code::internal, Retry::never},
           {"P0001", "SQL_ERROR", Code::invalid_argument, Retry::never},
       }) {
    const auto e = error(c.state);
    EXPECT_EQ(e.reason, c.reason) << c.state;
    EXPECT_EQ(e.code, c.code) << c.state;
    EXPECT_EQ(e.retry, c.retry) << c.state;
    EXPECT_EQ(e.metadata.at("sqlstate"), c.state);
  }
  const auto guard = to_error(
      {.sqlstate = "22P02", .message = "invalid input syntax for type integer: \"" + std::string(kLeaseLost) + "\""},
      kPeer);
  EXPECT_EQ(guard.reason, "LEASE_LOST");
}

TEST(PostgresErrors, ConnectingFails) {
  const auto reason = [](std::string_view text) { return connect_error(text, kPeer).reason; };
  EXPECT_EQ(reason("connection to server at \"h\" (10.0.0.1), port 5432 failed: FATAL:  28P01: password authentication "
                   "failed for user \"u\"\nLOCATION:  auth_failed, auth.c:326\n"),
            "BACKEND_AUTHENTICATION_FAILED");
  EXPECT_EQ(reason("connection to server at \"h\", port 5432 failed: fe_sendauth: no password supplied\n"),
            "BACKEND_AUTHENTICATION_FAILED");
  EXPECT_EQ(reason("connection to server at \"h\", port 5432 failed: SSL error: certificate verify failed\n"),
            "BACKEND_TLS_FAILED");
  EXPECT_EQ(reason("failed: server does not support SSL, but SSL was required"), "BACKEND_TLS_FAILED");
  EXPECT_EQ(reason("failed: FATAL:  3D000: database \"x\" does not exist\nLOCATION: x"), "DATABASE_NOT_FOUND");
  EXPECT_EQ(reason("failed: FATAL:  57P03: the database system is starting up\nLOCATION: x"), "BACKEND_UNAVAILABLE");
  EXPECT_EQ(
      reason("failed: Connection refused\n\tIs the server running on that host and accepting TCP/IP connections?\n"),
      "BACKEND_UNAVAILABLE");
  EXPECT_THAT(connect_error("x failed: FATAL:  57P03: starting up\nLOCATION:  f, g.c:1\n", kPeer).message,
              ::testing::EndsWith(": starting up"));
}

}  // namespace
}  // namespace prism::postgres
