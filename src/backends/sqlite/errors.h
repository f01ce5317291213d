// SQLite's result codes as Prism's errors. Nothing else in this folder interprets a code.
#pragma once

#include <string_view>

#include "base/error.h"

struct sqlite3;

namespace prism::sqlite {

// What was being done when the error came: it decides what the caller may do next.
enum class Step : std::uint8_t {
  statement,  // inside a transaction that is rolled back, or a read: nothing has happened
  commit,     // COMMIT itself: after an I/O error its outcome is unknown
};

// The error of the last call on `db`; where it concerns the file, message and metadata (file) name it. DISK_FULL,
// DISK_IO_ERROR, DATABASE_BUSY, DATABASE_CORRUPT, DATABASE_READ_ONLY, DATABASE_CANNOT_OPEN, CONSTRAINT_VIOLATED
// (metadata constraint: unique, primary_key, not_null, foreign_key, check), QUERY_INTERRUPTED, VALUE_TOO_LARGE,
// SQL_ERROR, OUT_OF_MEMORY, SQLITE_ERROR.
Error translate(sqlite3* db, int rc, std::string_view doing, Step step = Step::statement);

// DATABASE_CORRUPT: what Prism keeps in the file is not what it wrote.
Error corrupt(sqlite3* db, std::string_view what);

// Whether all later writes of the same group would meet the same obstacle (full or failing disk, damaged file).
bool concerns_the_file(const Error& error) noexcept;

}  // namespace prism::sqlite
