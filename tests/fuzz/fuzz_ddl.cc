// A user's DDL: what the parser understands becomes single statements that SQLite takes.
#include <sqlite3.h>

#include <string>
#include <variant>

#include "backends/sqlite/ddl.h"
#include "backends/sqlite/functions.h"
#include "fuzz.h"

namespace prism::sqlite {
namespace {

// One statement, all of the text; its outcome is the caller's.
int execute(sqlite3* db, const std::string& sql) {
  sqlite3_stmt* statement = nullptr;
  const char* rest = nullptr;
  const int prepared = sqlite3_prepare_v2(db, sql.data(), static_cast<int>(sql.size()), &statement, &rest);
  if (prepared == SQLITE_OK) {
    REQUIRE(statement != nullptr);
    REQUIRE(rest == sql.data() + sql.size());
    const int stepped = sqlite3_step(statement);
    sqlite3_finalize(statement);
    return stepped == SQLITE_DONE ? SQLITE_OK : stepped;
  }
  return prepared;
}

bool made_twice(sqlite3* db) { return std::string(sqlite3_errmsg(db)).find("already") != std::string::npos; }

void run(std::string_view text) {
  const auto ddl = parse_ddl(text);
  if (!ddl) {
    REQUIRE(ddl.error().reason == "SQL_NOT_PORTABLE");
    return;
  }
  sqlite3* db = nullptr;
  REQUIRE(sqlite3_open(":memory:", &db) == SQLITE_OK);
  REQUIRE(install_functions(db) == SQLITE_OK);
  for (const auto& part : *ddl) {
    if (const auto* table = std::get_if<DdlTable>(&part)) {
      const std::string sql = render(*table);
      const int outcome = execute(db, sql);
      if (outcome != SQLITE_OK && !made_twice(db)) {
        std::fprintf(stderr, "%s\n%s\n", sqlite3_errmsg(db), sql.c_str());
        REQUIRE(outcome == SQLITE_OK);
      }
    } else {
      // The table of an index may stand elsewhere.
      const std::string sql = render(std::get<DdlIndex>(part));
      if (execute(db, sql) != SQLITE_OK && !made_twice(db)) {
        const std::string problem = sqlite3_errmsg(db);
        if (problem.find("no such") == std::string::npos)
          std::fprintf(stderr, "%s\n%s\n", problem.c_str(), sql.c_str());
        REQUIRE(problem.find("no such") != std::string::npos);
      }
    }
  }
  sqlite3_close(db);
}

}  // namespace
}  // namespace prism::sqlite

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  prism::sqlite::run(prism::fuzz::text_of(data, size));
  return 0;
}
