// What Prism adds to every SQLite connection: functions, a collation, and the rules for statements that are not its
// own.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/types.h"

struct sqlite3;

namespace prism::sqlite {

// Once for each new connection. Gives an SQLite result code.
//   prism_lane(text, n)         0..n-1 by a hash of the bytes that never changes; NULL counts as ''
//   prism_now(), now()          "2026-01-31 12:34:56.123456", UTC
//   prism_ago(microseconds)     the same, so long ago
//   prism_age(timestamp)        microseconds since then; NULL where it is no such text
//   gen_random_uuid()           a UUID version 4
//   prism_fail(reason)          fails the statement with this reason
//   prism_is_decimal(x[, p, s]) whether x is a decimal number (that fits NUMERIC(p, s)); NULL for NULL
//   json_valid(x)               SQLite's own is not allowed in a CHECK of a schema that is not trusted
//   COLLATE prism_decimal       decimal numbers in text by their value
int install_functions(sqlite3* db);

std::string timestamp_text(WallTime time);                       // "2026-01-31 12:34:56.123456"
std::optional<WallTime> parse_timestamp(std::string_view text);  // with a fraction of 0 to 6 digits
std::uint64_t lane_hash(std::string_view bytes) noexcept;
int compare_decimals(std::string_view a, std::string_view b) noexcept;
bool is_json(std::string_view text);  // RFC 8259, nested 1000 deep at most; numbers of any size

// While one lives on a thread, statements prepared there may read and write rows and nothing else: no schema, no
// PRAGMA, no ATTACH, no transaction, no table of Prism's own (but reading leases, for guards).
class ForeignStatement {
 public:
  // Names of the tables whose rows are changed are added to `changed`; null: nobody asks.
  explicit ForeignStatement(std::set<std::string, std::less<>>* changed);
  ~ForeignStatement();
  ForeignStatement(const ForeignStatement&) = delete;
  ForeignStatement& operator=(const ForeignStatement&) = delete;

  // The error as its caller should see it: what was forbidden, the reason given to prism_fail.
  Error explain(Error error) const;
};

}  // namespace prism::sqlite
