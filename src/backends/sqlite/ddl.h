// The part of PostgreSQL's DDL that the SQLite twin understands: read into a description, rendered as STRICT tables.
//
// PostgreSQL gets a user's text as it is. SQLite would accept much of the same text and mean something else by it (ids
// that stay NULL, JSON numbers rounded, types ignored), so the twin never sees the text, only what this parser
// understood of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/error.h"
#include "capabilities/sql_database.h"

namespace prism::sqlite {

enum class DdlType : std::uint8_t {
  bigserial,
  serial,
  bigint,
  integer,
  smallint,
  text,
  varchar,    // size: characters, at most
  character,  // the same; values are not padded with blanks
  boolean,    // 0 and 1
  json,       // text as written
  jsonb,      // text as written: it is not put into PostgreSQL's order of keys
  bytea,
  uuid,
  timestamp,    // "2026-01-31 12:34:56.123456", UTC
  timestamptz,  // the same: what is written must be UTC
  date,         // "2026-01-31"
  numeric,      // text, never a double; a value that does not fit precision and scale is refused, not rounded
  real,
  double_precision,
};

// PostgreSQL's name of the type, as information_schema.columns.data_type gives it ("timestamp without time zone").
std::string_view postgres_name(DdlType) noexcept;

struct DdlDefault {
  enum class Kind : std::uint8_t { null, now, uuid, boolean, number, text };
  Kind kind = Kind::null;
  std::string text;  // number: as written; text: the value; boolean: "true" or "false"
};

// Where something stands in the text, both from 1.
struct DdlPlace {
  std::uint32_t line = 1;
  std::uint32_t column = 1;
};

struct DdlColumn {
  std::string name;
  DdlType type = DdlType::text;
  std::uint32_t size = 0;                  // varchar, character: 0: any
  std::optional<std::uint32_t> precision;  // numeric
  std::uint32_t scale = 0;                 // numeric with a precision
  bool not_null = false;
  bool primary_key = false;  // of this column alone
  bool unique = false;
  std::optional<DdlDefault> fallback;
  DdlPlace place;
};

struct DdlIndexColumn {
  std::string name;
  bool descending = false;
  DdlPlace place;
};

struct DdlIndex {
  std::string name;
  std::string table;
  std::vector<DdlIndexColumn> columns;
  bool unique = false;
  bool if_not_exists = false;
  std::string where;       // a column, or empty: all rows
  bool where_null = true;  // rows in which it is null, or is not
  DdlPlace place;
};

struct DdlTable {
  std::string name;
  bool if_not_exists = false;
  std::vector<DdlColumn> columns;
  std::vector<std::string> primary_key;  // of several columns; empty: see DdlColumn::primary_key
  std::vector<std::vector<std::string>> unique;
  DdlPlace place;

  const DdlColumn* find(std::string_view column) const;
};

// In the order of the text; an index inside a CREATE TABLE follows its table.
using Ddl = std::vector<std::variant<DdlTable, DdlIndex>>;

// SQL_NOT_PORTABLE with "line:column" and the construct in the message. Never throws, whatever the text.
Result<Ddl> parse_ddl(std::string_view text);
// Prism's own tables.
Ddl describe_table(const TableSpec& spec);

// SQLite statements, one a string.
std::string render(const DdlTable& table);
std::string render(const DdlIndex& index);

// Names of Prism's own tables in the file; no user's table may begin so.
inline constexpr std::string_view kInternalPrefix = "prism_";

}  // namespace prism::sqlite
