#include "backends/sqlite/ddl.h"

#include <gmock/gmock.h>
#include <sqlite3.h>

#include <random>

namespace prism::sqlite {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

// RFC-009, section 7, word for word.
constexpr std::string_view kOutbox = R"(
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
// RFC-009, section 4.
constexpr std::string_view kProjection = R"(
          CREATE TABLE account_balances (
            account_id TEXT PRIMARY KEY,
            balance BIGINT NOT NULL,
            version BIGINT NOT NULL
          );
)";

const DdlTable& table_of(const Ddl& ddl, std::size_t i = 0) { return std::get<DdlTable>(ddl.at(i)); }
const DdlIndex& index_of(const Ddl& ddl, std::size_t i) { return std::get<DdlIndex>(ddl.at(i)); }

// A plain connection that knows what the rendered tables ask for, in the simplest form that will do here.
class Plain {
 public:
  Plain() {
    sqlite3_open(":memory:", &db_);
    sqlite3_create_collation(db_, "prism_decimal", SQLITE_UTF8, nullptr,
                             [](void*, int n, const void* a, int m, const void* b) {
                               return std::string_view(static_cast<const char*>(a), n)
                                   .compare(std::string_view(static_cast<const char*>(b), m));
                             });
    sqlite3_create_function(
        db_, "prism_is_decimal", -1, SQLITE_UTF8 | SQLITE_DETERMINISTIC, nullptr,
        [](sqlite3_context* c, int, sqlite3_value**) { sqlite3_result_int(c, 1); }, nullptr, nullptr);
  }
  ~Plain() { sqlite3_close(db_); }
  std::string run(const std::string& sql) {
    char* message = nullptr;
    sqlite3_exec(db_, sql.c_str(), nullptr, nullptr, &message);
    std::string out = message == nullptr ? "" : message;
    sqlite3_free(message);
    return out;
  }
  std::string apply(const Ddl& ddl) {
    for (const auto& statement : ddl) {
      const auto sql = std::visit([](const auto& s) { return render(s); }, statement);
      if (auto error = run(sql); !error.empty()) return error + " in " + sql;
    }
    return "";
  }

 private:
  sqlite3* db_ = nullptr;
};

// proves: R-31, O-04
TEST(Ddl, ReadsTheOutboxSchemaOfTheRfc) {
  const auto ddl = parse_ddl(kOutbox);
  ASSERT_TRUE(ddl) << ddl.error().describe();
  ASSERT_EQ(ddl->size(), 2U);
  const auto& table = table_of(*ddl);
  EXPECT_EQ(table.name, "outbox");
  EXPECT_FALSE(table.if_not_exists);
  ASSERT_EQ(table.columns.size(), 6U);
  EXPECT_EQ(table.columns[0].type, DdlType::bigserial);
  EXPECT_TRUE(table.columns[0].primary_key);
  EXPECT_EQ(table.columns[3].type, DdlType::jsonb);
  EXPECT_TRUE(table.columns[3].not_null);
  EXPECT_EQ(table.columns[4].fallback->kind, DdlDefault::Kind::now);
  EXPECT_FALSE(table.columns[5].fallback);
  const auto& index = index_of(*ddl, 1);
  EXPECT_EQ(index.name, "idx_outbox_unpublished");
  EXPECT_EQ(index.table, "outbox");
  EXPECT_EQ(index.where, "published_at");
  EXPECT_TRUE(index.where_null);
  EXPECT_THAT(render(table), HasSubstr("\"id\" INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL"));
  EXPECT_THAT(render(table), ::testing::EndsWith(") STRICT"));
  Plain plain;
  EXPECT_EQ(plain.apply(*ddl), "");
}

TEST(Ddl, ReadsTheProjectionOfTheRfc) {
  const auto ddl = parse_ddl(kProjection);
  ASSERT_TRUE(ddl) << ddl.error().describe();
  EXPECT_EQ(table_of(*ddl).columns[0].name, "account_id");
  EXPECT_TRUE(table_of(*ddl).columns[0].not_null);  // a primary key is
  Plain plain;
  EXPECT_EQ(plain.apply(*ddl), "");
}

TEST(Ddl, ReadsEveryTypeDefaultAndIndexForm) {
  const auto ddl = parse_ddl(R"sql(
    /* nested /* comments */ end here */
    CREATE TABLE IF NOT EXISTS public."All Types" (
      a SERIAL PRIMARY KEY,      -- generated
      b BIGINT DEFAULT -9223372036854775808, c INTEGER DEFAULT +7 NOT NULL, d SMALLINT,
      e TEXT DEFAULT 'it''s', f VARCHAR(20) DEFAULT 'ünï'::varchar(3), g CHAR(3), h CHARACTER VARYING(5), i CHARACTER (2),
      j BOOLEAN DEFAULT TRUE, k BOOL NOT NULL DEFAULT (false),
      l JSON DEFAULT '{}'::json, m JSONB NULL DEFAULT '[]',
      n BYTEA DEFAULT '\xDEADbeef', o UUID UNIQUE DEFAULT gen_random_uuid(),
      p TIMESTAMP(3) WITHOUT TIME ZONE DEFAULT CURRENT_TIMESTAMP, q TIMESTAMP WITH TIME ZONE DEFAULT NOW(), r TIMESTAMPTZ,
      s DATE DEFAULT CURRENT_DATE, t NUMERIC(10, 2) DEFAULT 0.00, u NUMERIC, v DECIMAL(5),
      w REAL DEFAULT 1e3, x DOUBLE PRECISION DEFAULT -.5, y FLOAT8, index INT, "in""dex" TEXT,
      CONSTRAINT one_of_each UNIQUE (b, c), UNIQUE (d),
      INDEX idx_unpublished (p) WHERE p IS NULL, UNIQUE INDEX idx_u (f DESC, g ASC), INDEX (h)
    );;
    CREATE UNIQUE INDEX IF NOT EXISTS more ON "All Types" USING btree (j, k DESC) WHERE (l IS NOT NULL);
    CREATE INDEX ON public."All Types" (s);
  )sql");
  ASSERT_TRUE(ddl) << ddl.error().describe();
  ASSERT_EQ(ddl->size(), 6U);
  EXPECT_TRUE(table_of(*ddl).if_not_exists);
  EXPECT_EQ(table_of(*ddl).name, "All Types");
  EXPECT_EQ(table_of(*ddl).find("t")->precision, 10U);
  EXPECT_EQ(table_of(*ddl).find("t")->scale, 2U);
  EXPECT_EQ(table_of(*ddl).find("in\"dex")->type, DdlType::text);
  EXPECT_EQ(table_of(*ddl).find("index")->type, DdlType::integer);
  EXPECT_EQ(table_of(*ddl).find("i")->type, DdlType::character);
  EXPECT_EQ(table_of(*ddl).find("i")->size, 2U);
  EXPECT_EQ(index_of(*ddl, 1).name, "idx_unpublished");
  EXPECT_TRUE(index_of(*ddl, 2).unique);
  EXPECT_TRUE(index_of(*ddl, 2).columns[0].descending);
  EXPECT_EQ(index_of(*ddl, 3).name, "All Types_h_idx");
  EXPECT_FALSE(index_of(*ddl, 4).where_null);
  EXPECT_EQ(index_of(*ddl, 5).name, "All Types_s_idx");
  Plain plain;
  EXPECT_EQ(plain.apply(*ddl), "");
  EXPECT_EQ(plain.run("INSERT INTO \"All Types\" DEFAULT VALUES"), "");
  EXPECT_EQ(plain.run("INSERT INTO \"All Types\" (c, b, d) VALUES (1, 1, 40000)"),
            "CHECK constraint failed: d (smallint)");
}

TEST(Ddl, KeysOfSeveralColumnsAndKeysBesideTheColumn) {
  const auto ddl = parse_ddl(
      "CREATE TABLE a (x BIGINT, y TEXT, PRIMARY KEY (x, y)); CREATE TABLE b (id BIGSERIAL, PRIMARY KEY (ID))");
  ASSERT_TRUE(ddl) << ddl.error().describe();
  EXPECT_EQ(table_of(*ddl).primary_key.size(), 2U);
  EXPECT_TRUE(table_of(*ddl).columns[0].not_null);
  EXPECT_TRUE(table_of(*ddl, 1).columns[0].primary_key);
  Plain plain;
  EXPECT_EQ(plain.apply(*ddl), "");
}

// A key that the user has to give is not generated, as it is not in PostgreSQL.
TEST(Ddl, AnIntegerKeyIsNotGenerated) {
  const auto ddl = parse_ddl("CREATE TABLE t (id BIGINT PRIMARY KEY, v TEXT)");
  ASSERT_TRUE(ddl);
  Plain plain;
  EXPECT_EQ(plain.apply(*ddl), "");
  EXPECT_EQ(plain.run("INSERT INTO t (v) VALUES ('x')"), "NOT NULL constraint failed: t.id");
}

struct Bad {
  const char* text;
  const char* message;
};
class DdlNotPortable : public ::testing::TestWithParam<Bad> {};

// proves: R-31
TEST_P(DdlNotPortable, IsNamedWithItsPlace) {
  const auto ddl = parse_ddl(GetParam().text);
  ASSERT_FALSE(ddl);
  EXPECT_EQ(ddl.error().reason, "SQL_NOT_PORTABLE");
  EXPECT_EQ(ddl.error().code, Code::invalid_argument);
  EXPECT_THAT(ddl.error().message, StartsWith(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    All, DdlNotPortable,
    ::testing::Values(Bad{"", "1:1: no statement"}, Bad{"  -- only words\n ", "2:2: no statement"},
                      Bad{"CREATE TABLE t (\n  id INET\n)", "2:6: the type INET"},
                      Bad{"CREATE TABLE t (ü INT, b MONEY)", "1:26: the type MONEY"},
                      Bad{"CREATE MATERIALIZED VIEW v AS SELECT 1", "1:1: CREATE MATERIALIZED"},
                      Bad{"CREATE UNIQUE TABLE t (a INT)", "1:1: CREATE TABLE"}, Bad{"DROP TABLE t", "1:1: DROP"},
                      Bad{"SELECT 1", "1:1: SELECT"}, Bad{"CREATE TABLE t AS SELECT 1", "1:16: CREATE TABLE ... AS"},
                      Bad{"CREATE TABLE t (a INT[])", "1:19: an array of INT"},
                      Bad{"CREATE TABLE t (a INT CHECK (a > 0))", "1:23: CHECK after"},
                      Bad{"CREATE TABLE t (a INT REFERENCES b)", "1:23: REFERENCES after"},
                      Bad{"CREATE TABLE t (a INT, FOREIGN KEY (a) REFERENCES b)", "1:24: FOREIGN in a table"},
                      Bad{"CREATE TABLE t (a INT, CHECK (a > 0))", "1:24: CHECK in a table"},
                      Bad{"CREATE TABLE t (a INT, CONSTRAINT c CHECK (a > 0))", "1:37: the constraint CHECK"},
                      Bad{"CREATE TABLE t (LIKE b)", "1:17: LIKE in a table"},
                      Bad{"CREATE TABLE t (a BIGINT GENERATED ALWAYS AS IDENTITY)", "1:26: GENERATED after"},
                      Bad{"CREATE TABLE t (a INT) PARTITION BY RANGE (a)", "1:24: PARTITION after"},
                      Bad{"CREATE TABLE t (a INT DEFAULT random())", "1:31: DEFAULT RANDOM"},
                      Bad{"CREATE TABLE t (a INT DEFAULT 'x')", "1:31: this DEFAULT"},
                      Bad{"CREATE TABLE t (a INT DEFAULT 1.5)", "1:31: this DEFAULT"},
                      Bad{"CREATE TABLE t (a INT DEFAULT 2147483648)", "1:31: this DEFAULT"},
                      Bad{"CREATE TABLE t (a VARCHAR(2) DEFAULT 'abc')", "1:38: this DEFAULT"},
                      Bad{"CREATE TABLE t (a TEXT DEFAULT now())", "1:32: this DEFAULT"},
                      Bad{"CREATE TABLE t (a TIMESTAMP DEFAULT '2026-01-31T10:00:00Z')", "1:37: this DEFAULT"},
                      Bad{"CREATE TABLE t (a BYTEA DEFAULT '\\x123')", "1:33: this DEFAULT"},
                      Bad{"CREATE TABLE t (a BIGSERIAL, b TEXT PRIMARY KEY)", "1:17: BIGSERIAL for \"a\""},
                      Bad{"CREATE TABLE t (a BIGSERIAL, b TEXT, PRIMARY KEY (a, b))", "1:17: BIGSERIAL for \"a\""},
                      Bad{"CREATE TABLE t (a BIGSERIAL PRIMARY KEY DEFAULT 1)", "1:17: a DEFAULT for \"a\""},
                      Bad{"CREATE TABLE t (a INT PRIMARY KEY, b INT PRIMARY KEY)", "1:36: a second PRIMARY KEY"},
                      Bad{"CREATE TABLE t (a INT, A TEXT)", "1:24: a second column \"a\""},
                      Bad{"CREATE TABLE t (a INT, PRIMARY KEY (b))", "1:1: no column \"b\""},
                      Bad{"CREATE TABLE t ()", "1:17: `)` where a column"},
                      Bad{"CREATE TABLE t (UNIQUE (a))", "1:1: the table \"t\" without columns"},
                      Bad{"CREATE TABLE t (a INT,)", "1:23: `)` where a column"},
                      Bad{"CREATE TABLE t (a INT", "1:22: the end of the text"},
                      Bad{"CREATE TABLE other.t (a INT)", "1:14: the schema \"other\""},
                      Bad{"CREATE TABLE sqlite_x (a INT)", "1:14: the table name"},
                      Bad{"CREATE TABLE Prism_kv (a INT)", "1:14: the table name"},
                      Bad{"CREATE TABLE t (a VARCHAR(0))", "1:27: `0` where a number"},
                      Bad{"CREATE TABLE t (a NUMERIC(2, 3))", "1:30: `3` where a number"},
                      Bad{"CREATE TABLE t (a TEXT COLLATE \"C\")", "1:24: COLLATE after"},
                      Bad{"CREATE TABLE t (a INT); CREATE INDEX i ON t (lower(a))", "1:46: an index on an expression"},
                      Bad{"CREATE INDEX i ON t ((a + 1))", "1:22: an index on an expression"},
                      Bad{"CREATE INDEX i ON t USING gin (a)", "1:27: an index USING GIN"},
                      Bad{"CREATE INDEX i ON t (a) WHERE a > 1", "1:33: an index WHERE"},
                      Bad{"CREATE INDEX i ON t (a) WHERE a IS NULL AND b IS NULL", "1:41: AND in the WHERE"},
                      Bad{"CREATE INDEX i ON t (a NULLS FIRST)", "1:24: NULLS in the columns"},
                      Bad{"CREATE INDEX CONCURRENTLY i ON t (a)", "1:14: CREATE INDEX CONCURRENTLY"},
                      Bad{"CREATE INDEX i ON t (a) INCLUDE (b)", "1:25: INCLUDE in an index"},
                      Bad{"CREATE TABLE t (a INT); CREATE INDEX i ON t (b)", "1:46: no column \"b\""},
                      Bad{"CREATE TABLE t (a INT, INDEX i (b))", "1:33: no column \"b\""},
                      Bad{"CREATE TABLE t (a TEXT DEFAULT $$x$$)", "1:32: a string in dollar quotes"},
                      Bad{"CREATE TABLE t (a TEXT DEFAULT E'\\n')", "1:32: a string of the form E'...'"},
                      Bad{"CREATE TABLE t (a TEXT DEFAULT 'x)", "1:32: a string that does not end"},
                      Bad{"CREATE TABLE t (\"a INT)", "1:17: a name that does not end"},
                      Bad{"CREATE /* TABLE", "1:8: a comment that does not end"},
                      Bad{"CREATE TABLE t (a INT) garbage", "1:24: GARBAGE after"},
                      Bad{"CREATE TABLE t (a INT) )", "1:24: `)` where `;`"},
                      Bad{"CREATE TABLE t (a DOUBLE)", "1:25: `)` where PRECISION"}));

// proves: R-31
TEST(Ddl, GarbageIsRefusedOrRendersToTablesThatSqliteTakes) {
  const std::vector<std::string> pieces{
      "CREATE", "TABLE",     "INDEX",       "UNIQUE",    "t",       "u",     "(",
      ")",      ",",         ";",           "a",         "b",       "\"c\"", "INT",
      "TEXT",   "BIGSERIAL", "PRIMARY KEY", "NOT NULL",  "DEFAULT", "NOW()", "'x'",
      "1",      "-",         "WHERE",       "a IS NULL", "ON",      "JSONB", "NUMERIC(3,1)",
      "--\n",   "/*",        "*/",          "::",        ".",       "\0",    "\xff",
      "'",      "\"",        "VARCHAR(",    "UUID"};
  const std::string seeds[] = {
      std::string(kOutbox), std::string(kProjection),
      "CREATE TABLE t (a INT, b TEXT DEFAULT 'x', \"c\" NUMERIC(3,1), UNIQUE (a, b), INDEX i (a) WHERE b IS NULL)"};
  std::mt19937 random(20260131);
  std::size_t accepted = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string text;
    if (round % 2 == 0) {
      text = "CREATE TABLE t (a INT";
      for (std::size_t n = random() % 12; n > 0; --n) text += " " + pieces[random() % pieces.size()];
      if (round % 4 == 0) text += ")";
    } else {
      text = seeds[random() % 3];
      for (std::size_t n = 1 + random() % 4; n > 0; --n) {
        const std::size_t at = random() % text.size();
        switch (random() % 4) {
          case 0:
            text.erase(at, 1 + random() % 8);
            break;
          case 1:
            text.insert(at, pieces[random() % pieces.size()]);
            break;
          case 2:
            text[at] = static_cast<char>(random());
            break;
          default:
            text.resize(at);
            break;
        }
        if (text.empty()) text = ";";
      }
    }
    const auto ddl = parse_ddl(text);
    if (!ddl) {
      ASSERT_EQ(ddl.error().reason, "SQL_NOT_PORTABLE");
      continue;
    }
    ++accepted;
    Plain plain;
    const std::string error = plain.apply(*ddl);
    // What only the database can know: an index on a table that is not here, a name used twice.
    if (!error.empty()) {
      ASSERT_THAT(error, ::testing::AnyOf(HasSubstr("no such table"), HasSubstr("already exists"),
                                          HasSubstr("already a table"), HasSubstr("already an index")))
          << text;
    }
  }
  EXPECT_GT(accepted, 100U);
}

TEST(Ddl, ATextThatIsTooLongIsRefused) {
  EXPECT_FALSE(parse_ddl(std::string((1UL << 20) + 1, ' ')));
  std::string wide = "CREATE TABLE t (";
  for (int i = 0; i < 1001; ++i) wide += (i == 0 ? "c" : ", c") + std::to_string(i) + " INT";
  const auto ddl = parse_ddl(wide + ")");
  ASSERT_FALSE(ddl);
  EXPECT_THAT(ddl.error().message, HasSubstr("more than 1000 columns"));
}

TEST(Ddl, PrismsOwnTablesComeFromTheirDescription) {
  const auto ddl = describe_table({.name = "outbox",
                                   .columns = {{"id", ColumnType::id},
                                               {"payload", ColumnType::json, true},
                                               {"created_at", ColumnType::timestamp, true, true},
                                               {"published_at", ColumnType::timestamp},
                                               {"body", ColumnType::bytes},
                                               {"size", ColumnType::integer}},
                                   .indexes = {{.name = "i", .columns = {"id"}, .where_null = "published_at"}}});
  Plain plain;
  EXPECT_EQ(plain.apply(ddl), "");
  EXPECT_EQ(plain.apply(ddl), "");  // it may be there already
  EXPECT_EQ(plain.run("INSERT INTO outbox (payload) VALUES ('{\"n\":12345678901234567890.123456789}')"), "");
  EXPECT_THAT(plain.run("INSERT INTO outbox (payload) VALUES ('{')"), HasSubstr("payload (jsonb)"));
}

}  // namespace
}  // namespace prism::sqlite
