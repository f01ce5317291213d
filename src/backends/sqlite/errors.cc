#include "backends/sqlite/errors.h"

#include <sqlite3.h>

#include <string>

namespace prism::sqlite {
namespace {

std::string_view constraint_of(int rc) noexcept {
  switch (rc) {
    case SQLITE_CONSTRAINT_UNIQUE:
      return "unique";
    case SQLITE_CONSTRAINT_PRIMARYKEY:
    case SQLITE_CONSTRAINT_ROWID:
      return "primary_key";
    case SQLITE_CONSTRAINT_NOTNULL:
      return "not_null";
    case SQLITE_CONSTRAINT_FOREIGNKEY:
      return "foreign_key";
    case SQLITE_CONSTRAINT_CHECK:
      return "check";
    case SQLITE_CONSTRAINT_DATATYPE:
      return "type";
    default:
      return "other";
  }
}

std::string file_of(sqlite3* db) {
  const char* const name = db != nullptr ? sqlite3_db_filename(db, "main") : nullptr;
  return name != nullptr ? name : "";
}

// Puts the file's name before the message, unless it stands there.
Error of_file(sqlite3* db, Error error) {
  std::string file = file_of(db);
  if (file.empty()) return error;
  if (error.message.find(file) == std::string::npos) error.message = file + ": " + error.message;
  return std::move(error).with("file", std::move(file));
}

Error damaged(sqlite3* db, std::string message) {
  const std::string file = file_of(db);
  const std::string name = file.empty() ? "the database file" : file;
  return of_file(db, {Code::data_loss,
                      "DATABASE_CORRUPT",
                      std::move(message),
                      "stop the server, then restore " + name +
                          " from a backup, or move it away together with its -wal and -shm files to begin without what "
                          "it held; `sqlite3 FILE .recover` may save some of that",
                      Retry::never,
                      {},
                      {}});
}

}  // namespace

Error corrupt(sqlite3* db, std::string_view what) { return damaged(db, std::string(what)); }

Error translate(sqlite3* db, int rc, std::string_view doing, Step step) {
  const int extended = db != nullptr ? sqlite3_extended_errcode(db) : rc;
  const int code = (extended & 0xff) == (rc & 0xff) ? extended : rc;
  std::string message(doing);
  message += ": ";
  message += db != nullptr ? sqlite3_errmsg(db) : sqlite3_errstr(rc);
  const auto make = [&](Code c, const char* reason, const char* hint, Retry retry) {
    return Error{c, reason, std::move(message), hint, retry, {}, {{"sqlite_code", std::to_string(code)}}};
  };
  switch (code & 0xff) {
    case SQLITE_FULL:
      // Also at COMMIT: the frame that ends a transaction is the last to be written, so without room for it nothing is
      // committed.
      return of_file(db, make(Code::resource_exhausted, "DISK_FULL", "free space on the volume of the database file",
                              Retry::safe));
    case SQLITE_IOERR:
      if (step == Step::commit) {
        return of_file(
            db, make(Code::unknown, "DISK_IO_ERROR",
                     "check the volume of the database file, then read back what was written", Retry::unknown_outcome));
      }
      return of_file(db, make(Code::resource_exhausted, "DISK_IO_ERROR",
                              "check the volume of the database file: space, quota, health", Retry::safe));
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_PROTOCOL: {
      Error error = make(Code::unavailable, "DATABASE_BUSY",
                         "another process holds a long transaction on the same file", Retry::safe);
      error.retry_after = std::chrono::milliseconds(100);
      return error;
    }
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return damaged(db, std::move(message)).with("sqlite_code", std::to_string(code));
    case SQLITE_READONLY:
      return of_file(db, make(Code::failed_precondition, "DATABASE_READ_ONLY",
                              "reads and writes take different paths; or the file's permissions", Retry::never));
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
    case SQLITE_AUTH:
      return make(Code::failed_precondition, "DATABASE_CANNOT_OPEN",
                  "check that the directory exists and may be written", Retry::never);
    case SQLITE_CONSTRAINT: {
      Error error = make(Code::failed_precondition, "CONSTRAINT_VIOLATED", "", Retry::never);
      error.metadata.emplace("constraint", constraint_of(code));
      return error;
    }
    case SQLITE_INTERRUPT:
      return make(Code::cancelled, "QUERY_INTERRUPTED", "", Retry::safe);
    case SQLITE_TOOBIG:
      return make(Code::invalid_argument, "VALUE_TOO_LARGE", "", Retry::never);
    case SQLITE_NOMEM:
      return make(Code::resource_exhausted, "OUT_OF_MEMORY", "", Retry::safe);
    case SQLITE_ERROR:
    case SQLITE_MISMATCH:
    case SQLITE_RANGE:
    case SQLITE_SCHEMA:
      return make(Code::invalid_argument, "SQL_ERROR", "", Retry::never);
    default:
      return make(Code::internal, "SQLITE_ERROR", "", Retry::never);
  }
}

bool concerns_the_file(const Error& error) noexcept {
  return error.reason == "DISK_FULL" || error.reason == "DISK_IO_ERROR" || error.reason == "DATABASE_CORRUPT" ||
         error.reason == "DATABASE_BUSY" || error.reason == "DATABASE_READ_ONLY";
}

}  // namespace prism::sqlite
