#include "backends/sqlite/statements.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>

#include "backends/sqlite/functions.h"

namespace prism::sqlite {
namespace {

std::unexpected<Error> bad_parameter(std::string what) {
  return fail(Code::invalid_argument, "SQL_INVALID_PARAMETER", std::move(what));
}

// RFC 3629, and no zero byte: what PostgreSQL takes as text.
bool is_text(std::string_view s) noexcept {
  const auto* p = reinterpret_cast<const unsigned char*>(s.data());
  const auto* const end = p + s.size();
  while (p < end) {
    const unsigned char c = *p;
    if (c < 0x80) {
      if (c == 0) return false;
      ++p;
      continue;
    }
    const int more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
    if (c < 0xc2 || c > 0xf4 || end - p <= more) return false;
    for (int i = 1; i <= more; ++i) {
      if ((p[i] & 0xc0) != 0x80) return false;
    }
    if ((c == 0xe0 && p[1] < 0xa0) || (c == 0xed && p[1] > 0x9f) || (c == 0xf0 && p[1] < 0x90) ||
        (c == 0xf4 && p[1] > 0x8f)) {
      return false;
    }
    p += more + 1;
  }
  return true;
}

bool word_part(char c) noexcept {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '$' ||
         (static_cast<unsigned char>(c) & 0x80) != 0;
}

// The text with ?n for $n: SQLite takes $n for a name, which it looks for among all names at each use.
struct Numbered {
  std::string text;
  std::size_t highest = 0;
};
Result<Numbered> number_parameters(std::string_view sql) {
  Numbered out;
  out.text.reserve(sql.size() + 1);
  std::size_t i = 0;
  const auto copy_to = [&](std::size_t end) {
    end = std::min(end, sql.size());
    out.text.append(sql, i, end - i);
    i = end;
  };
  const auto behind = [&](std::string_view what, std::size_t from) {
    const auto at = sql.find(what, from);
    return at == std::string_view::npos ? sql.size() : at + what.size();
  };
  while (i < sql.size()) {
    const char c = sql[i];
    const char next = i + 1 < sql.size() ? sql[i + 1] : '\0';
    switch (c) {
      case '\'':
      case '"':
      case '`':
        copy_to(behind(std::string_view(&c, 1), i + 1));
        continue;  // a doubled quote begins another one
      case '[':
        copy_to(behind("]", i + 1));
        continue;
      case '-':
        copy_to(next == '-' ? behind("\n", i) : i + 1);
        continue;
      case '/':
        copy_to(next == '*' ? behind("*/", i + 2) : i + 1);
        continue;
      case '$': {
        std::size_t end = i + 1;
        while (end < sql.size() && word_part(sql[end])) ++end;
        std::size_t n = 0;
        const auto [read, error] = std::from_chars(sql.data() + i + 1, sql.data() + end, n);
        if (error != std::errc() || read != sql.data() + end || n == 0) break;
        out.highest = std::max(out.highest, n);
        out.text += '?';
        ++i;
        copy_to(end);
        continue;
      }
      case ':':
        if (next == ':')
          return fail(Code::invalid_argument, "SQL_NOT_PORTABLE", "a cast of the form x::type",
                      "write CAST(x AS type)");
        break;
      case '?':
      case '@':
      case '#':
        break;
      default: {
        std::size_t end = i + 1;
        if (word_part(c)) {
          while (end < sql.size() && word_part(sql[end])) ++end;
        }
        copy_to(end);
        continue;
      }
    }
    return bad_parameter(fmt::format("{}: parameters are written $1, $2, ...", sql.substr(i, 20)));
  }
  // Prism's own statements are in the cache too and were prepared without the rules: no text of another's must meet
  // them.
  out.text += '\n';
  return out;
}

Result<void> bind(Query& query, const std::vector<SqlValue>& values) {
  for (std::size_t n = 1; n <= values.size(); ++n) {
    const SqlValue& value = values[n - 1];
    const int i = static_cast<int>(n);
    if (std::holds_alternative<SqlNull>(value)) {
      query.bind_null(i);
    } else if (const auto* b = std::get_if<bool>(&value)) {
      query.bind(i, static_cast<std::int64_t>(*b));
    } else if (const auto* integer = std::get_if<std::int64_t>(&value)) {
      query.bind(i, *integer);
    } else if (const auto* real = std::get_if<double>(&value)) {
      if (std::isnan(*real))
        return bad_parameter(fmt::format("the value of ${} is no number", n));  // it would become NULL
      query.bind(i, *real);
    } else if (const auto* text = std::get_if<std::string>(&value)) {
      if (!is_text(*text))
        return bad_parameter(fmt::format("the value of ${} is no UTF-8 text, or has a zero byte in it", n));
      query.bind_text_view(i, *text);
    } else {
      query.bind_blob_view(i, std::get<Bytes>(value).view());
    }
  }
  return {};
}

SqlValue value_of(const Query& query, int column) {
  switch (sqlite3_column_type(query.handle(), column)) {
    case SQLITE_INTEGER:
      return query.integer(column);
    case SQLITE_FLOAT:
      return query.real(column);
    case SQLITE_TEXT:
      return std::string(query.text(column));
    case SQLITE_BLOB:
      return Bytes::copy(query.blob(column));
    default:
      return SqlNull();
  }
}

}  // namespace

Result<SqlRows> run_statement(Connection& connection, const Statement& statement, std::size_t max_rows, bool read_only,
                              TableNames* changed) {
  PRISM_TRY(const Numbered numbered, number_parameters(statement.text));
  if (numbered.highest != statement.bind.size()) {
    return bad_parameter(fmt::format("{} values are given for {} parameters", statement.bind.size(), numbered.highest));
  }
  const ForeignStatement rules(changed);
  auto query = connection.prepare(numbered.text);
  if (!query) return fail(rules.explain(std::move(query).error()));
  const bool reads = sqlite3_stmt_readonly(query->handle()) != 0;
  if (read_only && !reads) {
    return fail(Code::failed_precondition, "SQL_READ_ONLY", "a statement that writes, where only reading is possible");
  }
  PRISM_CHECK(bind(*query, statement.bind));
  SqlRows rows;
  const int columns = sqlite3_column_count(query->handle());
  rows.columns.reserve(static_cast<std::size_t>(columns));
  for (int i = 0; i < columns; ++i) rows.columns.emplace_back(sqlite3_column_name(query->handle(), i));
  while (!reads || rows.rows.size() < max_rows) {
    auto row = query->step();
    if (!row) return fail(rules.explain(std::move(row).error()));
    if (!*row) break;
    auto& out = rows.rows.emplace_back();
    out.reserve(static_cast<std::size_t>(columns));
    for (int i = 0; i < columns; ++i) out.push_back(value_of(*query, i));
  }
  if (!reads) rows.affected = static_cast<std::uint64_t>(connection.changes());
  return rows;
}

bool surely_reads(std::string_view sql) noexcept {
  sql.remove_prefix(std::min(sql.find_first_not_of(" \t\r\n"), sql.size()));
  const auto begins = [&](std::string_view word) {
    return sql.size() > word.size() && sqlite3_strnicmp(sql.data(), word.data(), static_cast<int>(word.size())) == 0;
  };
  return begins("select") || begins("values");
}

std::size_t memory_of(const Statement& statement) noexcept {
  std::size_t n = sizeof(Statement) + statement.text.size() + statement.bind.size() * sizeof(SqlValue);
  for (const auto& value : statement.bind) {
    if (const auto* text = std::get_if<std::string>(&value)) n += text->size();
    if (const auto* bytes = std::get_if<Bytes>(&value)) n += bytes->size();
  }
  return n;
}

Result<std::uint64_t> take_numbers(Connection& connection, std::uint64_t n) {
  PRISM_TRY(Query query, connection.prepare("UPDATE prism_numbers SET value = value + ?1 RETURNING value"));
  query.bind(1, static_cast<std::int64_t>(n));
  PRISM_TRY(const bool row, query.step());
  if (!row) return fail(corrupt(connection.handle(), "the file has lost its counter"));
  const auto last = static_cast<std::uint64_t>(query.integer(0));
  PRISM_CHECK(query.run());
  return last;
}

Result<std::uint64_t> last_number(Connection& connection) {
  PRISM_TRY(const std::int64_t value, connection.integer("SELECT value FROM prism_numbers"));
  return static_cast<std::uint64_t>(value);
}

}  // namespace prism::sqlite
