#include "backends/sqlite/ddl.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <initializer_list>
#include <limits>
#include <set>
#include <span>
#include <utility>

namespace prism::sqlite {
namespace {

constexpr std::size_t kMaxText = 1UL << 20;
constexpr std::size_t kMaxColumns = 1000;       // SQLite takes 2000
constexpr std::size_t kMaxNameBytes = 63;       // PostgreSQL cuts longer names off
constexpr std::uint32_t kMaxLength = 10485760;  // of varchar(n), PostgreSQL's own limit
constexpr std::uint32_t kMaxPrecision = 1000;   // of numeric(p, s), PostgreSQL's own limit

std::unexpected<Error> not_portable(DdlPlace at, std::string what) {
  return fail(
      Code::invalid_argument, "SQL_NOT_PORTABLE", fmt::format("{}:{}: {}", at.line, at.column, what),
      "the embedded database reads CREATE TABLE and CREATE INDEX with PostgreSQL's common types and defaults; a "
      "PostgreSQL backend takes the text as it is");
}

enum class Kind : std::uint8_t { end, word, quoted, string, number, symbol };

struct Token {
  Kind kind = Kind::end;
  std::string text;  // word: lower case; quoted, string: without quotes
  DdlPlace at;

  // For messages.
  std::string shown() const {
    switch (kind) {
      case Kind::end:
        return "the end of the text";
      case Kind::string:
        return fmt::format("'{}'", text.substr(0, 40));
      case Kind::quoted:
        return fmt::format("\"{}\"", text.substr(0, 40));
      case Kind::word: {
        std::string upper = text.substr(0, 40);
        for (char& c : upper) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
        return upper;
      }
      default:
        return fmt::format("`{}`", text.substr(0, 40));
    }
  }
};

bool digit(char c) { return c >= '0' && c <= '9'; }
bool hex_digit(char c) { return digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }
bool word_start(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (static_cast<unsigned char>(c) & 0x80) != 0;
}
bool word_part(char c) { return word_start(c) || digit(c) || c == '$'; }

class Lexer {
 public:
  explicit Lexer(std::string_view text) : text_(text) {}

  Result<std::vector<Token>> all() {
    std::vector<Token> tokens;
    while (true) {
      PRISM_CHECK(skip_blank());
      PRISM_TRY(Token token, next());
      const bool end = token.kind == Kind::end;
      tokens.push_back(std::move(token));
      if (end) return tokens;
    }
  }

 private:
  char peek(std::size_t ahead = 0) const { return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0'; }
  bool done() const { return at_ >= text_.size(); }
  char take() {
    const char c = text_[at_++];
    if (c == '\n') {
      ++place_.line;
      place_.column = 1;
    } else if ((static_cast<unsigned char>(c) & 0xc0) != 0x80) {  // characters, not bytes
      ++place_.column;
    }
    return c;
  }

  Result<void> skip_blank() {
    while (!done()) {
      const char c = peek();
      if (c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v') {
        take();
      } else if (c == '-' && peek(1) == '-') {
        while (!done() && peek() != '\n') take();
      } else if (c == '/' && peek(1) == '*') {
        const DdlPlace begin = place_;
        std::size_t depth = 0;  // PostgreSQL's comments nest
        do {
          if (done()) return not_portable(begin, "a comment that does not end");
          if (peek() == '/' && peek(1) == '*') {
            ++depth;
            take();
          } else if (peek() == '*' && peek(1) == '/') {
            --depth;
            take();
          }
          take();
        } while (depth > 0);
      } else {
        break;
      }
    }
    return {};
  }

  Result<Token> next() {
    Token token{.at = place_};
    if (done()) return token;
    const char c = peek();
    if (c == '\'' || c == '"') return delimited(c, c == '"' ? Kind::quoted : Kind::string);
    if ((c == 'e' || c == 'E' || c == 'b' || c == 'B' || c == 'x' || c == 'X' || c == 'n' || c == 'N') &&
        peek(1) == '\'') {
      return not_portable(token.at, fmt::format("a string of the form {}'...'", c));
    }
    if ((c == 'u' || c == 'U') && peek(1) == '&' && (peek(2) == '\'' || peek(2) == '"')) {
      return not_portable(token.at, "a string or name of the form U&'...'");
    }
    if (word_start(c)) {
      token.kind = Kind::word;
      while (!done() && word_part(peek())) {
        const char w = take();
        token.text += w >= 'A' && w <= 'Z' ? static_cast<char>(w - 'A' + 'a') : w;
      }
      return token;
    }
    if (digit(c) || (c == '.' && digit(peek(1)))) {
      token.kind = Kind::number;
      while (digit(peek())) token.text += take();
      if (peek() == '.') {
        token.text += take();
        while (digit(peek())) token.text += take();
      }
      if ((peek() == 'e' || peek() == 'E') &&
          (digit(peek(1)) || ((peek(1) == '+' || peek(1) == '-') && digit(peek(2))))) {
        token.text += take();
        token.text += take();
        while (digit(peek())) token.text += take();
      }
      return token;
    }
    if (c == '$') return not_portable(token.at, "a string in dollar quotes or a parameter");
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      return not_portable(token.at, fmt::format("the control character 0x{:02x}", static_cast<unsigned char>(c)));
    }
    token.kind = Kind::symbol;
    token.text += take();
    if (c == ':' && peek() == ':') token.text += take();
    return token;
  }

  Result<Token> delimited(char quote, Kind kind) {
    Token token{.kind = kind, .at = place_};
    take();
    while (true) {
      if (done())
        return not_portable(token.at, kind == Kind::string ? "a string that does not end" : "a name that does not end");
      const char c = take();
      if (c == '\0') return not_portable(token.at, "a string or name with a zero byte in it");
      if (c == quote) {
        if (peek() != quote) return token;
        take();
      }
      token.text += c;
    }
  }

  std::string_view text_;
  std::size_t at_ = 0;
  DdlPlace place_;
};

// SQLite compares names without regard to case, quoted or not.
std::string folded(std::string_view name) {
  std::string out(name);
  for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return out;
}
bool same_name(std::string_view a, std::string_view b) { return folded(a) == folded(b); }

bool all_digits(std::string_view s) { return !s.empty() && std::all_of(s.begin(), s.end(), digit); }

bool is_decimal(std::string_view s) {
  if (!s.empty() && (s.front() == '-' || s.front() == '+')) s.remove_prefix(1);
  const auto dot = s.find('.');
  if (dot == std::string_view::npos) return all_digits(s);
  const auto whole = s.substr(0, dot);
  const auto part = s.substr(dot + 1);
  return (whole.empty() || all_digits(whole)) && (part.empty() || all_digits(part)) && whole.size() + part.size() > 0;
}

// `form`: '0' stands for a digit, 'h' for a hexadecimal one, anything else for itself.
bool has_form(std::string_view s, std::string_view form) {
  if (s.size() != form.size()) return false;
  for (std::size_t i = 0; i < s.size(); ++i) {
    if (form[i] == '0' ? !digit(s[i]) : form[i] == 'h' ? !hex_digit(s[i]) : s[i] != form[i]) return false;
  }
  return true;
}
constexpr std::string_view kDateForm = "0000-00-00";
constexpr std::string_view kTimeForm = "0000-00-00 00:00:00";
constexpr std::string_view kUuidForm = "hhhhhhhh-hhhh-hhhh-hhhh-hhhhhhhhhhhh";

bool is_timestamp(std::string_view s) {
  if (!has_form(s.substr(0, kTimeForm.size()), kTimeForm)) return false;
  s.remove_prefix(kTimeForm.size());
  return s.empty() || (s.front() == '.' && all_digits(s.substr(1)));
}

bool integral(DdlType t) {
  return t == DdlType::bigserial || t == DdlType::serial || t == DdlType::bigint || t == DdlType::integer ||
         t == DdlType::smallint;
}
bool serial(DdlType t) { return t == DdlType::bigserial || t == DdlType::serial; }

struct Range {
  std::int64_t low, high;
};
Range range_of(DdlType t) {
  if (t == DdlType::smallint)
    return {std::numeric_limits<std::int16_t>::min(), std::numeric_limits<std::int16_t>::max()};
  if (t == DdlType::integer || t == DdlType::serial) {
    return {std::numeric_limits<std::int32_t>::min(), std::numeric_limits<std::int32_t>::max()};
  }
  return {std::numeric_limits<std::int64_t>::min(), std::numeric_limits<std::int64_t>::max()};
}

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  Result<Ddl> all() {
    while (true) {
      while (symbol(";")) {
      }
      if (now().kind == Kind::end) break;
      PRISM_CHECK(statement());
      if (now().kind != Kind::end && now().text != ";") return unexpected("`;`");
    }
    if (ddl_.empty()) return not_portable(now().at, "no statement: a CREATE TABLE is expected");
    return std::move(ddl_);
  }

 private:
  const Token& now() const { return tokens_[at_]; }
  const Token& ahead(std::size_t n) const { return tokens_[std::min(at_ + n, tokens_.size() - 1)]; }
  void advance() {
    if (at_ + 1 < tokens_.size()) ++at_;
  }
  static bool is_word(const Token& t, std::string_view w) { return t.kind == Kind::word && t.text == w; }
  bool word(std::string_view w) {
    if (!is_word(now(), w)) return false;
    advance();
    return true;
  }
  // Several words in a row, or none of them.
  bool words(std::initializer_list<std::string_view> all) {
    std::size_t n = 0;
    for (const auto w : all) {
      if (!is_word(ahead(n++), w)) return false;
    }
    for (std::size_t i = 0; i < n; ++i) advance();
    return true;
  }
  bool is_symbol(std::string_view s) const { return now().kind == Kind::symbol && now().text == s; }
  bool symbol(std::string_view s) {
    if (!is_symbol(s)) return false;
    advance();
    return true;
  }
  std::unexpected<Error> unexpected(std::string_view wanted) const {
    return not_portable(now().at, fmt::format("{} where {} is expected", now().shown(), wanted));
  }
  Result<void> expect(std::string_view s) {
    if (!symbol(s)) return unexpected(fmt::format("`{}`", s));
    return {};
  }

  Result<std::string> name(std::string_view what) {
    if (now().kind != Kind::word && now().kind != Kind::quoted) return unexpected(what);
    if (now().text.empty()) return not_portable(now().at, "an empty name");
    if (now().text.size() > kMaxNameBytes) {
      return not_portable(now().at, fmt::format("a name of more than {} bytes: {}", kMaxNameBytes, now().shown()));
    }
    std::string out = now().text;
    advance();
    return out;
  }

  Result<std::string> table_name() {
    const DdlPlace at = now().at;
    PRISM_TRY(std::string out, name("the name of a table"));
    if (symbol(".")) {
      if (out != "public") return not_portable(at, fmt::format("the schema \"{}\": there is one only", out));
      PRISM_TRY(out, name("the name of a table"));
    }
    const std::string low = folded(out);
    if (low.starts_with("sqlite_") || low.starts_with(kInternalPrefix)) {
      return not_portable(
          at, fmt::format("the table name \"{}\": names that begin so are kept for the database itself", out));
    }
    return out;
  }

  Result<void> statement() {
    const DdlPlace at = now().at;
    if (!word("create"))
      return not_portable(at, fmt::format("{}: only CREATE TABLE and CREATE INDEX are read", now().shown()));
    const bool unique = word("unique");
    if (word("index")) return create_index(at, unique);
    if (!unique && word("table")) return create_table(at);
    return not_portable(at, fmt::format("CREATE {}: only CREATE TABLE and CREATE INDEX are read", now().shown()));
  }

  Result<bool> if_not_exists() {
    if (!is_word(now(), "if")) return false;
    if (!words({"if", "not", "exists"})) return unexpected("IF NOT EXISTS");
    return true;
  }

  Result<void> create_table(DdlPlace at) {
    DdlTable table{.place = at};
    PRISM_TRY(table.if_not_exists, if_not_exists());
    PRISM_TRY(table.name, table_name());
    if (is_word(now(), "as") || is_word(now(), "of") || is_word(now(), "partition")) {
      return not_portable(now().at, fmt::format("CREATE TABLE ... {}", now().shown()));
    }
    PRISM_CHECK(expect("("));
    std::vector<DdlIndex> indexes;
    do {
      PRISM_CHECK(element(table, indexes));
    } while (symbol(","));
    PRISM_CHECK(expect(")"));
    if (now().kind == Kind::word)
      return not_portable(now().at, fmt::format("{} after the columns of a table", now().shown()));
    PRISM_CHECK(check(table));
    for (const auto& index : indexes) PRISM_CHECK(check(index, table));
    ddl_.emplace_back(std::move(table));
    for (auto& index : indexes) ddl_.emplace_back(std::move(index));
    return {};
  }

  // A column, a constraint of the table, or an index.
  Result<void> element(DdlTable& table, std::vector<DdlIndex>& indexes) {
    const DdlPlace at = now().at;
    if (word("constraint")) {
      PRISM_CHECK(name("the name of a constraint"));
      if (!is_word(now(), "primary") && !is_word(now(), "unique")) {
        return not_portable(now().at, fmt::format("the constraint {}", now().shown()));
      }
    }
    if (words({"primary", "key"})) {
      if (!table.primary_key.empty()) return not_portable(at, "a second PRIMARY KEY");
      PRISM_TRY(table.primary_key, column_list());
      return {};
    }
    if (is_word(now(), "unique")) {
      advance();
      // MySQL's way to write a unique index, beside PostgreSQL's constraint.
      if (word("index") || word("key")) return inline_index(at, table, true, indexes);
      if (!is_symbol("(")) return not_portable(now().at, fmt::format("UNIQUE {}", now().shown()));
      PRISM_TRY(auto columns, column_list());
      table.unique.push_back(std::move(columns));
      return {};
    }
    const bool bracket_next = ahead(1).kind == Kind::symbol && ahead(1).text == "(";
    if (is_word(now(), "check") || is_word(now(), "foreign") || is_word(now(), "like") ||
        (is_word(now(), "exclude") && (bracket_next || is_word(ahead(1), "using")))) {
      return not_portable(at, fmt::format("{} in a table", now().shown()));
    }
    // `index` may be a column's name: then a type follows.
    if (is_word(now(), "index") && (ahead(1).kind == Kind::quoted ||
                                    (ahead(1).kind == Kind::word && ahead(2).kind == Kind::symbol &&
                                     ahead(2).text == "(" && !known_type(ahead(1).text)) ||
                                    bracket_next)) {
      advance();
      return inline_index(at, table, false, indexes);
    }
    if (table.columns.size() >= kMaxColumns) {
      return not_portable(at, fmt::format("more than {} columns in a table", kMaxColumns));
    }
    PRISM_TRY(DdlColumn column, this->column());
    table.columns.push_back(std::move(column));
    return {};
  }

  Result<std::vector<std::string>> column_list() {
    PRISM_CHECK(expect("("));
    std::vector<std::string> out;
    do {
      PRISM_TRY(std::string column, name("the name of a column"));
      out.push_back(std::move(column));
    } while (symbol(","));
    PRISM_CHECK(expect(")"));
    return out;
  }

  static bool known_type(std::string_view word) {
    static constexpr std::array kNames{"bigserial", "serial8", "serial",    "serial4",   "bigint",      "int8",
                                       "integer",   "int",     "int4",      "smallint",  "int2",        "text",
                                       "varchar",   "char",    "character", "boolean",   "bool",        "json",
                                       "jsonb",     "bytea",   "uuid",      "timestamp", "timestamptz", "date",
                                       "numeric",   "decimal", "real",      "float4",    "float8",      "double"};
    return std::find(kNames.begin(), kNames.end(), word) != kNames.end();
  }

  Result<std::optional<std::uint32_t>> number_in_brackets(std::uint32_t low, std::uint32_t high) {
    if (!symbol("(")) return std::optional<std::uint32_t>();
    PRISM_TRY(const std::uint32_t n, small_number(low, high));
    PRISM_CHECK(expect(")"));
    return std::optional(n);
  }
  Result<std::uint32_t> small_number(std::uint32_t low, std::uint32_t high) {
    std::uint32_t n = 0;
    const std::string& text = now().text;
    if (now().kind != Kind::number || !all_digits(text)) return unexpected("a whole number");
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
    if (error != std::errc() || end != text.data() + text.size() || n < low || n > high) {
      return not_portable(now().at,
                          fmt::format("{} where a number from {} to {} is expected", now().shown(), low, high));
    }
    advance();
    return n;
  }

  Result<void> type(DdlColumn& column) {
    const DdlPlace at = now().at;
    if (now().kind != Kind::word) return unexpected("the type of a column");
    const Token first = now();
    advance();
    const std::string& t = first.text;
    if (t == "bigserial" || t == "serial8") {
      column.type = DdlType::bigserial;
    } else if (t == "serial" || t == "serial4") {
      column.type = DdlType::serial;
    } else if (t == "bigint" || t == "int8") {
      column.type = DdlType::bigint;
    } else if (t == "integer" || t == "int" || t == "int4") {
      column.type = DdlType::integer;
    } else if (t == "smallint" || t == "int2") {
      column.type = DdlType::smallint;
    } else if (t == "text") {
      column.type = DdlType::text;
    } else if (t == "varchar" || t == "character" || t == "char") {
      const bool varying = t == "varchar" || word("varying");
      column.type = varying ? DdlType::varchar : DdlType::character;
      PRISM_TRY(const auto size, number_in_brackets(1, kMaxLength));
      column.size = size.value_or(varying ? 0 : 1);
    } else if (t == "boolean" || t == "bool") {
      column.type = DdlType::boolean;
    } else if (t == "json") {
      column.type = DdlType::json;
    } else if (t == "jsonb") {
      column.type = DdlType::jsonb;
    } else if (t == "bytea") {
      column.type = DdlType::bytea;
    } else if (t == "uuid") {
      column.type = DdlType::uuid;
    } else if (t == "timestamp" || t == "timestamptz") {
      PRISM_CHECK(number_in_brackets(0, 6));  // more digits than asked for do no harm
      const bool with = t == "timestamp" && words({"with", "time", "zone"});
      if (t == "timestamp" && !with) words({"without", "time", "zone"});
      column.type = with || t == "timestamptz" ? DdlType::timestamptz : DdlType::timestamp;
    } else if (t == "date") {
      column.type = DdlType::date;
    } else if (t == "numeric" || t == "decimal") {
      column.type = DdlType::numeric;
      if (symbol("(")) {
        PRISM_TRY(column.precision, small_number(1, kMaxPrecision));
        if (symbol(",")) {
          PRISM_TRY(column.scale, small_number(0, *column.precision));
        }
        PRISM_CHECK(expect(")"));
      }
    } else if (t == "real" || t == "float4") {
      column.type = DdlType::real;
    } else if (t == "float8") {
      column.type = DdlType::double_precision;
    } else if (t == "double") {
      if (!word("precision")) return unexpected("PRECISION");
      column.type = DdlType::double_precision;
    } else {
      return not_portable(at, fmt::format("the type {}", first.shown()));
    }
    if (is_symbol("[") || is_word(now(), "array"))
      return not_portable(at, fmt::format("an array of {}", first.shown()));
    return {};
  }

  Result<DdlColumn> column() {
    DdlColumn column{.place = now().at};
    PRISM_TRY(column.name, name("a column"));
    PRISM_CHECK(type(column));
    while (now().kind == Kind::word) {
      const DdlPlace at = now().at;
      if (word("constraint")) {
        PRISM_CHECK(name("the name of a constraint"));
      } else if (words({"primary", "key"})) {
        column.primary_key = true;
      } else if (words({"not", "null"})) {
        column.not_null = true;
      } else if (word("null")) {
        if (column.not_null) return not_portable(at, "NULL after NOT NULL");
      } else if (word("unique")) {
        column.unique = true;
      } else if (word("default")) {
        if (column.fallback) return not_portable(at, "a second DEFAULT");
        PRISM_TRY(column.fallback, fallback(column));
      } else {
        return not_portable(at, fmt::format("{} after the column \"{}\"", now().shown(), column.name));
      }
    }
    if (column.fallback && serial(column.type)) {
      return not_portable(column.place, fmt::format("a DEFAULT for \"{}\", which is generated", column.name));
    }
    return column;
  }

  // A cast of a literal to one of the types that are read says nothing that the column's own type does not say.
  Result<void> skip_cast() {
    if (!symbol("::")) return {};
    DdlColumn ignored;
    return type(ignored);
  }

  Result<DdlDefault> fallback(const DdlColumn& column) {
    const DdlPlace at = now().at;
    const bool bracket = symbol("(");
    DdlDefault out;
    if (word("null")) {
      out.kind = DdlDefault::Kind::null;
    } else if (is_word(now(), "true") || is_word(now(), "false")) {
      out = {DdlDefault::Kind::boolean, now().text};
      advance();
    } else if (now().kind == Kind::string) {
      out = {DdlDefault::Kind::text, now().text};
      advance();
    } else if (now().kind == Kind::number || is_symbol("-") || is_symbol("+")) {
      out.kind = DdlDefault::Kind::number;
      if (symbol("-")) {
        out.text = "-";
      } else {
        symbol("+");
      }
      if (now().kind != Kind::number) return unexpected("a number");
      out.text += now().text;
      advance();
    } else if (word("current_timestamp")) {
      out.kind = DdlDefault::Kind::now;
      PRISM_CHECK(number_in_brackets(0, 6));
    } else if (word("current_date")) {
      if (column.type != DdlType::date) return not_portable(at, "DEFAULT CURRENT_DATE for a column that is no DATE");
      out.kind = DdlDefault::Kind::now;
    } else if (now().kind == Kind::word && ahead(1).kind == Kind::symbol && ahead(1).text == "(") {
      const Token function = now();
      advance();
      advance();
      if (function.text == "now") {
        out.kind = DdlDefault::Kind::now;
      } else if (function.text == "gen_random_uuid") {
        out.kind = DdlDefault::Kind::uuid;
      } else {
        return not_portable(at, fmt::format("DEFAULT {}(...)", function.shown()));
      }
      PRISM_CHECK(expect(")"));
    } else {
      return not_portable(at, fmt::format("DEFAULT {}", now().shown()));
    }
    PRISM_CHECK(skip_cast());
    if (bracket) {
      PRISM_CHECK(expect(")"));
      PRISM_CHECK(skip_cast());
    }
    if (!fits(column, out)) {
      return not_portable(at,
                          fmt::format("this DEFAULT for \"{}\", which is {}", column.name, postgres_name(column.type)));
    }
    return out;
  }

  static bool fits(const DdlColumn& column, DdlDefault& value) {
    using K = DdlDefault::Kind;
    const DdlType t = column.type;
    switch (value.kind) {
      case K::null:
        return true;
      case K::now:
        return t == DdlType::timestamp || t == DdlType::timestamptz || t == DdlType::date;
      case K::uuid:
        return t == DdlType::uuid || t == DdlType::text;
      case K::boolean:
        return t == DdlType::boolean;
      case K::number: {
        if (t == DdlType::real || t == DdlType::double_precision) return true;
        if (t == DdlType::numeric) return is_decimal(value.text);
        if (!integral(t)) return false;
        std::int64_t n = 0;
        const auto [end, error] = std::from_chars(value.text.data(), value.text.data() + value.text.size(), n);
        const Range range = range_of(t);
        return error == std::errc() && end == value.text.data() + value.text.size() && n >= range.low &&
               n <= range.high;
      }
      case K::text:
        switch (t) {
          case DdlType::text:
          case DdlType::json:
          case DdlType::jsonb:
            return true;
          case DdlType::varchar:
          case DdlType::character: {
            const auto characters = std::count_if(value.text.begin(), value.text.end(), [](char c) {
              return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
            });
            return column.size == 0 || static_cast<std::uint64_t>(characters) <= column.size;
          }
          case DdlType::uuid:
            return has_form(value.text, kUuidForm);
          case DdlType::date:
            return has_form(value.text, kDateForm);
          case DdlType::timestamp:
          case DdlType::timestamptz:
            return is_timestamp(value.text);
          case DdlType::numeric:
            return is_decimal(value.text);
          case DdlType::bytea: {
            if (value.text.empty()) return true;
            if (!value.text.starts_with("\\x") || value.text.size() % 2 != 0) return false;
            return std::all_of(value.text.begin() + 2, value.text.end(), hex_digit);
          }
          default:
            return false;
        }
    }
    return false;
  }

  Result<void> index_columns(DdlIndex& index) {
    PRISM_CHECK(expect("("));
    do {
      DdlIndexColumn column{.place = now().at};
      if (is_symbol("(")) return not_portable(now().at, "an index on an expression");
      PRISM_TRY(column.name, name("the name of a column"));
      if (is_symbol("(")) return not_portable(column.place, "an index on an expression");
      if (word("desc")) {
        column.descending = true;
      } else {
        word("asc");
      }
      if (now().kind == Kind::word || (now().kind == Kind::symbol && now().text != "," && now().text != ")")) {
        return not_portable(now().at, fmt::format("{} in the columns of an index", now().shown()));
      }
      index.columns.push_back(std::move(column));
    } while (symbol(","));
    return expect(")");
  }

  Result<void> index_tail(DdlIndex& index) {
    if (word("where")) {
      const bool bracket = symbol("(");
      PRISM_TRY(index.where, name("the name of a column"));
      if (words({"is", "not", "null"})) {
        index.where_null = false;
      } else if (!words({"is", "null"})) {
        return not_portable(now().at, "an index WHERE of another form than `column IS NULL` or `column IS NOT NULL`");
      }
      if (bracket) PRISM_CHECK(expect(")"));
      if (is_word(now(), "and") || is_word(now(), "or")) {
        return not_portable(now().at, fmt::format("{} in the WHERE of an index", now().shown()));
      }
    }
    if (now().kind == Kind::word) return not_portable(now().at, fmt::format("{} in an index", now().shown()));
    return {};
  }

  Result<void> inline_index(DdlPlace at, const DdlTable& table, bool unique, std::vector<DdlIndex>& indexes) {
    DdlIndex index{.table = table.name, .unique = unique, .if_not_exists = table.if_not_exists, .place = at};
    if (!is_symbol("(")) {
      PRISM_TRY(index.name, name("the name of an index"));
    }
    PRISM_CHECK(index_columns(index));
    PRISM_CHECK(index_tail(index));
    name_index(index);
    indexes.push_back(std::move(index));
    return {};
  }

  Result<void> create_index(DdlPlace at, bool unique) {
    DdlIndex index{.unique = unique, .place = at};
    if (is_word(now(), "concurrently")) return not_portable(now().at, "CREATE INDEX CONCURRENTLY");
    PRISM_TRY(index.if_not_exists, if_not_exists());
    if (!is_word(now(), "on") || ahead(1).kind == Kind::end) {
      PRISM_TRY(index.name, name("the name of an index"));
    }
    if (!word("on")) return unexpected("ON");
    PRISM_TRY(index.table, table_name());
    if (word("using")) {
      if (!word("btree")) return not_portable(now().at, fmt::format("an index USING {}", now().shown()));
    }
    PRISM_CHECK(index_columns(index));
    PRISM_CHECK(index_tail(index));
    name_index(index);
    for (const auto& earlier : ddl_) {
      const auto* table = std::get_if<DdlTable>(&earlier);
      if (table != nullptr && same_name(table->name, index.table)) PRISM_CHECK(check(index, *table));
    }
    ddl_.emplace_back(std::move(index));
    return {};
  }

  // PostgreSQL names an index that has no name in this way.
  static void name_index(DdlIndex& index) {
    if (!index.name.empty()) return;
    index.name = index.table;
    for (const auto& column : index.columns) index.name += "_" + column.name;
    index.name += "_idx";
  }

  static Result<void> check(const DdlIndex& index, const DdlTable& table) {
    for (const auto& column : index.columns) {
      if (table.find(column.name) == nullptr) {
        return not_portable(column.place, fmt::format("no column \"{}\" in the table \"{}\"", column.name, table.name));
      }
    }
    if (!index.where.empty() && table.find(index.where) == nullptr) {
      return not_portable(index.place, fmt::format("no column \"{}\" in the table \"{}\"", index.where, table.name));
    }
    const std::string low = folded(index.name);
    if (low.starts_with("sqlite_") || low.starts_with(kInternalPrefix)) {
      return not_portable(index.place, fmt::format("the index name \"{}\"", index.name));
    }
    return {};
  }

  static Result<void> check(DdlTable& table) {
    if (table.columns.empty())
      return not_portable(table.place, fmt::format("the table \"{}\" without columns", table.name));
    std::set<std::string> seen;
    std::size_t keys = table.primary_key.empty() ? 0 : 1;
    for (const auto& column : table.columns) {
      if (!seen.insert(folded(column.name)).second) {
        return not_portable(column.place,
                            fmt::format("a second column \"{}\" (upper and lower case are one)", column.name));
      }
      keys += column.primary_key ? 1 : 0;
      if (keys > 1) return not_portable(column.place, "a second PRIMARY KEY");
    }
    const auto known = [&](const std::vector<std::string>& columns) -> Result<void> {
      std::set<std::string> used;
      for (const auto& c : columns) {
        if (table.find(c) == nullptr)
          return not_portable(table.place, fmt::format("no column \"{}\" in \"{}\"", c, table.name));
        if (!used.insert(folded(c)).second)
          return not_portable(table.place, fmt::format("the column \"{}\" twice in a key", c));
      }
      return {};
    };
    PRISM_CHECK(known(table.primary_key));
    for (const auto& columns : table.unique) PRISM_CHECK(known(columns));
    for (auto& column : table.columns) {
      const bool keyed = std::any_of(table.primary_key.begin(), table.primary_key.end(),
                                     [&](const std::string& c) { return same_name(c, column.name); });
      if (keyed) column.not_null = true;
      if (keyed && table.primary_key.size() == 1) column.primary_key = true;
      if (serial(column.type) && !column.primary_key) {
        return not_portable(column.place,
                            fmt::format("{} for \"{}\", which is not the primary key by itself: only that is generated",
                                        column.type == DdlType::serial ? "SERIAL" : "BIGSERIAL", column.name));
      }
      if (column.primary_key) column.not_null = true;
    }
    if (table.primary_key.size() == 1) table.primary_key.clear();
    return {};
  }

  std::vector<Token> tokens_;
  std::size_t at_ = 0;
  Ddl ddl_;
};

// --- rendering ---

std::string quoted(std::string_view name) { return SqlText::quote(name); }

std::string literal(std::string_view text) {
  std::string out = "'";
  for (const char c : text) {
    out += c;
    if (c == '\'') out += c;
  }
  return out + "'";
}

// A GLOB pattern for the forms of has_form().
std::string glob(std::string_view form) {
  std::string out = "'";
  for (const char c : form) {
    if (c == '0') {
      out += "[0-9]";
    } else if (c == 'h') {
      out += "[0-9a-fA-F]";
    } else {
      out += c;
    }
  }
  return out + "'";
}

std::string_view storage(const DdlColumn& column) {
  switch (column.type) {
    case DdlType::bigserial:
    case DdlType::serial:
      return "INTEGER";
    // Not INTEGER: as a primary key that would be the row id, and be generated where PostgreSQL refuses a missing
    // value.
    case DdlType::bigint:
    case DdlType::integer:
    case DdlType::smallint:
    case DdlType::boolean:
      return "INT";
    case DdlType::bytea:
      return "BLOB";
    case DdlType::real:
    case DdlType::double_precision:
      return "REAL";
    case DdlType::numeric:
      return "TEXT COLLATE prism_decimal";  // 10 comes after 9, and 1.0 equals 1
    case DdlType::uuid:
      return "TEXT COLLATE NOCASE";
    default:
      return "TEXT";
  }
}

// What STRICT does not check; empty: nothing.
std::string check_of(const DdlColumn& column) {
  const std::string c = quoted(column.name);
  switch (column.type) {
    case DdlType::serial:
    case DdlType::integer:
    case DdlType::smallint: {
      const Range range = range_of(column.type);
      return fmt::format("{} BETWEEN {} AND {}", c, range.low, range.high);
    }
    case DdlType::boolean:
      return fmt::format("{} IN (0, 1)", c);
    case DdlType::varchar:
    case DdlType::character:
      return column.size == 0 ? "" : fmt::format("length({}) <= {}", c, column.size);
    case DdlType::json:
    case DdlType::jsonb:
      return fmt::format("json_valid({})", c);
    case DdlType::uuid:
      return fmt::format("{} GLOB {}", c, glob(kUuidForm));
    case DdlType::date:
      return fmt::format("{0} IS NULL OR ({0} GLOB {1} AND date({0}) IS NOT NULL)", c, glob(kDateForm));
    case DdlType::timestamp:
    case DdlType::timestamptz:
      return fmt::format(
          "{0} IS NULL OR (substr({0}, 1, 19) GLOB {1} AND datetime({0}) IS NOT NULL AND (length({0}) = 19 OR "
          "(substr({0}, 20) GLOB '.[0-9]*' AND substr({0}, 21) NOT GLOB '*[^0-9]*')))",
          c, glob(kTimeForm));
    case DdlType::numeric:
      return column.precision ? fmt::format("prism_is_decimal({}, {}, {})", c, *column.precision, column.scale)
                              : fmt::format("prism_is_decimal({})", c);
    default:
      return "";
  }
}

std::string default_of(const DdlColumn& column, const DdlDefault& value) {
  switch (value.kind) {
    case DdlDefault::Kind::null:
      return "NULL";
    case DdlDefault::Kind::now:
      // SQLite's own clock has milliseconds; six digits, so that it sorts with what Prism writes.
      return column.type == DdlType::date ? "(date('now'))" : "(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000')";
    case DdlDefault::Kind::uuid:
      return "(lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-' "
             "|| "
             "substr('89ab', 1 + (random() & 3), 1) || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6))))";
    case DdlDefault::Kind::boolean:
      return value.text == "true" ? "1" : "0";
    case DdlDefault::Kind::number:
      return column.type == DdlType::numeric ? literal(value.text) : value.text;
    case DdlDefault::Kind::text:
      if (column.type == DdlType::bytea) return value.text.empty() ? "x''" : fmt::format("x'{}'", value.text.substr(2));
      return literal(value.text);
  }
  return "NULL";
}

std::string list(std::span<const std::string> columns) {
  std::string out;
  for (const auto& c : columns) out += (out.empty() ? "" : ", ") + quoted(c);
  return out;
}

}  // namespace

std::string_view postgres_name(DdlType type) noexcept {
  switch (type) {
    case DdlType::bigserial:
    case DdlType::bigint:
      return "bigint";
    case DdlType::serial:
    case DdlType::integer:
      return "integer";
    case DdlType::smallint:
      return "smallint";
    case DdlType::text:
      return "text";
    case DdlType::varchar:
      return "character varying";
    case DdlType::character:
      return "character";
    case DdlType::boolean:
      return "boolean";
    case DdlType::json:
      return "json";
    case DdlType::jsonb:
      return "jsonb";
    case DdlType::bytea:
      return "bytea";
    case DdlType::uuid:
      return "uuid";
    case DdlType::timestamp:
      return "timestamp without time zone";
    case DdlType::timestamptz:
      return "timestamp with time zone";
    case DdlType::date:
      return "date";
    case DdlType::numeric:
      return "numeric";
    case DdlType::real:
      return "real";
    case DdlType::double_precision:
      return "double precision";
  }
  return "text";
}

const DdlColumn* DdlTable::find(std::string_view column) const {
  const auto it =
      std::find_if(columns.begin(), columns.end(), [&](const DdlColumn& c) { return same_name(c.name, column); });
  return it == columns.end() ? nullptr : &*it;
}

Result<Ddl> parse_ddl(std::string_view text) {
  if (text.size() > kMaxText) return not_portable({}, fmt::format("a text of more than {} bytes", kMaxText));
  PRISM_TRY(auto tokens, Lexer(text).all());
  return Parser(std::move(tokens)).all();
}

Ddl describe_table(const TableSpec& spec) {
  DdlTable table{.name = spec.name, .if_not_exists = true};
  for (const auto& from : spec.columns) {
    DdlColumn column{.name = from.name, .not_null = from.not_null};
    switch (from.type) {
      case ColumnType::id:
        column.type = DdlType::bigserial;
        column.primary_key = column.not_null = true;
        break;
      case ColumnType::text:
        column.type = DdlType::text;
        break;
      case ColumnType::integer:
        column.type = DdlType::bigint;
        break;
      case ColumnType::bytes:
        column.type = DdlType::bytea;
        break;
      case ColumnType::json:
        column.type = DdlType::jsonb;
        break;
      case ColumnType::timestamp:
        column.type = DdlType::timestamp;
        if (from.default_now) column.fallback = DdlDefault{DdlDefault::Kind::now, {}};
        break;
    }
    table.columns.push_back(std::move(column));
  }
  Ddl ddl;
  ddl.emplace_back(std::move(table));
  for (const auto& from : spec.indexes) {
    DdlIndex index{
        .name = from.name, .table = spec.name, .unique = from.unique, .if_not_exists = true, .where = from.where_null};
    for (const auto& column : from.columns) index.columns.push_back({.name = column});
    ddl.emplace_back(std::move(index));
  }
  return ddl;
}

std::string render(const DdlTable& table) {
  std::string out = fmt::format("CREATE TABLE {}{} (", table.if_not_exists ? "IF NOT EXISTS " : "", quoted(table.name));
  bool first = true;
  for (const auto& column : table.columns) {
    out += fmt::format("{}\n  {} {}", first ? "" : ",", quoted(column.name), storage(column));
    first = false;
    // AUTOINCREMENT: the id of a deleted row is never given again.
    if (column.primary_key) out += serial(column.type) ? " PRIMARY KEY AUTOINCREMENT" : " PRIMARY KEY";
    if (column.not_null) out += " NOT NULL";
    if (column.unique) out += " UNIQUE";
    if (column.fallback) out += " DEFAULT " + default_of(column, *column.fallback);
    if (const std::string check = check_of(column); !check.empty()) {
      // SQLite names the constraint in its message.
      out += fmt::format(" CONSTRAINT {} CHECK ({})",
                         quoted(fmt::format("{} ({})", column.name, postgres_name(column.type))), check);
    }
  }
  if (!table.primary_key.empty()) out += fmt::format(",\n  PRIMARY KEY ({})", list(table.primary_key));
  for (const auto& columns : table.unique) out += fmt::format(",\n  UNIQUE ({})", list(columns));
  return out + "\n) STRICT";
}

std::string render(const DdlIndex& index) {
  std::string columns;
  for (const auto& c : index.columns) {
    columns += fmt::format("{}{}{}", columns.empty() ? "" : ", ", quoted(c.name), c.descending ? " DESC" : "");
  }
  std::string out =
      fmt::format("CREATE {}INDEX {}{} ON {} ({})", index.unique ? "UNIQUE " : "",
                  index.if_not_exists ? "IF NOT EXISTS " : "", quoted(index.name), quoted(index.table), columns);
  if (!index.where.empty())
    out += fmt::format(" WHERE {} IS {}NULL", quoted(index.where), index.where_null ? "" : "NOT ");
  return out;
}

}  // namespace prism::sqlite
