// Running Statements of SqlDatabase on a connection.
#pragma once

#include <cstdint>
#include <set>
#include <string>

#include "backends/sqlite/connection.h"
#include "capabilities/sql_database.h"

namespace prism::sqlite {

using TableNames = std::set<std::string, std::less<>>;  // lower case

// Runs one statement under the rules of ForeignStatement. `max_rows`: rows beyond are not read; a writing statement is
// always run to its end. SQL_ERROR, SQL_FORBIDDEN, SQL_INVALID_PARAMETER, SQL_READ_ONLY (only where `read_only`),
// CONSTRAINT_VIOLATED, the reason given to prism_fail, and the errors of the file.
Result<SqlRows> run_statement(Connection& connection, const Statement& statement, std::size_t max_rows, bool read_only,
                              TableNames* changed);

// A text that cannot write: it begins with SELECT or VALUES. Others may be harmless too; that is for SQLite to say.
bool surely_reads(std::string_view sql) noexcept;

std::size_t memory_of(const Statement& statement) noexcept;

// The number of the latest write that was given a position, kept in the file: it grows with each of them, in any
// process. Only inside a transaction of the writer; takes `n` numbers and gives the last of them.
Result<std::uint64_t> take_numbers(Connection& connection, std::uint64_t n);
Result<std::uint64_t> last_number(Connection& connection);
inline constexpr const char* kNumbersDdl =
    "CREATE TABLE IF NOT EXISTS prism_numbers (id INTEGER PRIMARY KEY CHECK (id = 1), value INTEGER NOT NULL) STRICT; "
    "INSERT OR IGNORE INTO prism_numbers VALUES (1, 0);";

}  // namespace prism::sqlite
