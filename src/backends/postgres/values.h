// Statements and their values in the form in which they travel: parameters as text (bytes as they are), results as
// text, so that nothing is rounded.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "capabilities/sql_database.h"

namespace prism::postgres {

// Parameters of one statement; refers to the texts and bytes of the values that it was made of.
//
// 64-bit integers, doubles, booleans and bytes say their type. Text does not: the statement decides whether it is a
// text, a timestamp, JSON, a UUID or a decimal.
struct Parameters {
  std::vector<std::uint32_t> types;  // object ids; 0: to be inferred
  std::vector<const char*> values;   // nullptr: NULL
  std::vector<int> lengths;
  std::vector<int> formats;           // 1: binary
  std::vector<std::string> rendered;  // numbers
};
Parameters encode(const std::vector<SqlValue>& values);  // that check_statement() has seen

// A value of a result: boolean, 16- to 64-bit integers, floating point and bytea as such, everything else as text.
// Timestamps are in UTC with six digits after the second: "2026-01-31 12:34:56.123456".
SqlValue decode(std::uint32_t type, std::string_view text);

// SQL_INVALID_PARAMETER where the text has another number of parameters, or a value cannot be sent; SQL_FORBIDDEN for
// what would outlive the statement or change its transaction (BEGIN, SET, LISTEN, COPY, ...); SQL_ERROR for no
// statement at all.
Result<void> check_statement(const Statement& statement);

bool surely_reads(std::string_view sql);  // begins with SELECT or VALUES
// The table that a statement changes, lower case; empty: it reads; "*": it cannot be told.
std::string changed_table(std::string_view sql);
std::string folded(std::string_view name);  // lower case, ASCII

// "16/B374D848" as a number; 0: it is none.
std::uint64_t parse_lsn(std::string_view text) noexcept;

std::size_t memory_of(const Statement& statement) noexcept;

}  // namespace prism::postgres
