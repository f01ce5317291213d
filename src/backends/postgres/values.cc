#include "backends/postgres/values.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <utility>

#include "base/text.h"

namespace prism::postgres {
namespace {

// Of pg_type.dat; they are fixed.
constexpr std::uint32_t kBool = 16, kBytea = 17, kInt8 = 20, kInt2 = 21, kInt4 = 23, kOid = 26, kFloat4 = 700,
                        kFloat8 = 701, kTimestamp = 1114, kTimestamptz = 1184;
constexpr std::size_t kFractionDigits = 6;
constexpr std::size_t kMostBytes = (1UL << 30) - 1;  // of one value

std::unexpected<Error> bad_parameter(std::string what) {
  return fail(Code::invalid_argument, "SQL_INVALID_PARAMETER", std::move(what));
}

// Of each character its value as a hexadecimal digit.
constexpr auto kNibbles = [] {
  std::array<std::uint8_t, 256> table{};
  for (std::uint8_t i = 0; i < 10; ++i) table[static_cast<std::size_t>('0') + i] = i;
  for (std::uint8_t i = 0; i < 6; ++i) table[static_cast<std::size_t>('a') + i] = static_cast<std::uint8_t>(10 + i);
  return table;
}();

Bytes from_hex(std::string_view text) {
  if (text.starts_with("\\x")) text.remove_prefix(2);
  std::string out;
  // Not the size that is handed in: libstdc++ 12 makes it as large as what it has allocated.
  out.resize_and_overwrite(text.size() / 2, [from = text.data(), n = text.size() / 2](char* to, std::size_t) {
    for (std::size_t i = 0; i < n; ++i) {
      to[i] = static_cast<char>((kNibbles[static_cast<unsigned char>(from[2 * i])] << 4U) |
                                kNibbles[static_cast<unsigned char>(from[2 * i + 1])]);
    }
    return n;
  });
  return Bytes(std::move(out));
}

// The server leaves out zeros at the end. Dates before Christ, "infinity" and other zones stay as they are.
std::string timestamp(std::string_view text) {
  if (text.ends_with("+00")) text.remove_suffix(3);
  std::string out(text);
  const auto colon = text.rfind(':');
  if (colon == std::string_view::npos || text.size() < colon + 3 || text.find('+') != std::string_view::npos)
    return out;
  if (!std::ranges::all_of(text.substr(colon + 1), [](char c) { return (c >= '0' && c <= '9') || c == '.'; }))
    return out;
  if (text.size() == colon + 3) out += '.';
  while (out.size() < colon + 4 + kFractionDigits) out += '0';
  return out;
}

bool word_part(char c) noexcept {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         (static_cast<unsigned char>(c) & 0x80) != 0;
}
bool space(char c) noexcept { return c == ' ' || (c >= '\t' && c <= '\r'); }

// Walks over the parts of a statement, by PostgreSQL's rules (with standard_conforming_strings, which is always on).
class Scanner {
 public:
  enum class Kind : std::uint8_t { end, word, quoted, string, parameter, other };
  struct Token {
    Kind kind = Kind::end;
    std::string_view text;  // of a quoted identifier: with its quotes
    std::size_t number = 0;
  };
  explicit Scanner(std::string_view sql) : sql_(sql) {}

  Token next() {
    skip_blanks();
    if (at_ >= sql_.size()) return {};
    const std::size_t from = at_;
    const char c = sql_[at_];
    const auto made = [&](Kind kind, std::size_t number = 0) {
      return Token{kind, sql_.substr(from, at_ - from), number};
    };
    if (c == '\'') {
      quoted('\'', false);
      return made(Kind::string);
    }
    if (c == '"') {
      quoted('"', false);
      return made(Kind::quoted);
    }
    if (c == '$') {
      std::size_t end = at_ + 1;
      while (end < sql_.size() && sql_[end] >= '0' && sql_[end] <= '9') ++end;
      if (end > at_ + 1) {
        std::size_t n = 0;
        const auto [read, error] = std::from_chars(sql_.data() + at_ + 1, sql_.data() + end, n);
        at_ = end;
        return made(Kind::parameter, error == std::errc() ? n : std::numeric_limits<std::size_t>::max());
      }
      while (end < sql_.size() && word_part(sql_[end])) ++end;
      if (end < sql_.size() && sql_[end] == '$') {  // $tag$ ... $tag$
        const std::string_view tag = sql_.substr(at_, end + 1 - at_);
        const auto close = sql_.find(tag, end + 1);
        at_ = close == std::string_view::npos ? sql_.size() : close + tag.size();
        return made(Kind::string);
      }
      ++at_;
      return made(Kind::other);
    }
    if (word_part(c)) {
      while (at_ < sql_.size() && (word_part(sql_[at_]) || sql_[at_] == '$')) ++at_;
      if ((sql_.substr(from, at_ - from) == "e" || sql_.substr(from, at_ - from) == "E") && at_ < sql_.size() &&
          sql_[at_] == '\'') {
        quoted('\'', true);
        return made(Kind::string);
      }
      return made(Kind::word);
    }
    ++at_;
    return made(Kind::other);
  }

 private:
  void skip_blanks() {
    while (at_ < sql_.size()) {
      if (space(sql_[at_])) {
        ++at_;
      } else if (sql_.substr(at_).starts_with("--")) {
        const auto end = sql_.find('\n', at_);
        at_ = end == std::string_view::npos ? sql_.size() : end + 1;
      } else if (sql_.substr(at_).starts_with("/*")) {
        int depth = 0;  // they nest
        do {
          if (sql_.substr(at_).starts_with("/*")) {
            ++depth;
            at_ += 2;
          } else if (sql_.substr(at_).starts_with("*/")) {
            --depth;
            at_ += 2;
          } else {
            ++at_;
          }
        } while (depth > 0 && at_ < sql_.size());
      } else {
        return;
      }
    }
  }
  // A doubled quote begins another string, which makes no difference here.
  void quoted(char quote, bool backslashes) {
    ++at_;
    while (at_ < sql_.size() && sql_[at_] != quote) at_ += backslashes && sql_[at_] == '\\' ? 2 : 1;
    at_ = std::min(at_ + 1, sql_.size());
  }

  std::string_view sql_;
  std::size_t at_ = 0;
};

bool is_word(const Scanner::Token& token, std::string_view word) {
  return token.kind == Scanner::Kind::word && folded(token.text) == word;
}

std::string identifier(const Scanner::Token& token) {
  if (token.kind == Scanner::Kind::word) return folded(token.text);
  if (token.kind != Scanner::Kind::quoted || token.text.size() < 2) return "*";
  return folded(token.text.substr(1, token.text.size() - 2));
}

constexpr auto kForbidden = std::to_array<std::string_view>(
    {"abort",    "begin",   "checkpoint", "close",    "commit",    "copy",   "deallocate", "declare",
     "discard",  "end",     "execute",    "fetch",    "listen",    "load",   "move",       "notify",
     "prepare",  "release", "reset",      "rollback", "savepoint", "set",    "start",      "unlisten",
     "alter",    "create",  "drop",       "grant",    "revoke",    "vacuum", "do",         "security",
     "reassign", "import",  "comment",    "cluster",  "reindex"});

}  // namespace

Parameters encode(const std::vector<SqlValue>& values) {
  Parameters out;
  const std::size_t n = values.size();
  out.types.resize(n, 0);
  out.values.resize(n, nullptr);
  out.lengths.resize(n, 0);
  out.formats.resize(n, 0);
  out.rendered.reserve(n);  // pointers into it must stay
  const auto number = [&](std::size_t i, std::uint32_t type, auto value) {
    std::array<char, 32> buffer{};
    const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value).ptr;
    out.types[i] = type;
    out.values[i] = out.rendered.emplace_back(buffer.data(), end).c_str();
  };
  for (std::size_t i = 0; i < n; ++i) {
    const SqlValue& value = values[i];
    if (const auto* b = std::get_if<bool>(&value)) {
      out.types[i] = kBool;
      out.values[i] = *b ? "t" : "f";
    } else if (const auto* integer = std::get_if<std::int64_t>(&value)) {
      number(i, kInt8, *integer);
    } else if (const auto* real = std::get_if<double>(&value)) {
      number(i, kFloat8, *real);
    } else if (const auto* text = std::get_if<std::string>(&value)) {
      out.values[i] = text->c_str();
    } else if (const auto* bytes = std::get_if<Bytes>(&value)) {
      out.types[i] = kBytea;
      out.values[i] = bytes->data() == nullptr ? "" : bytes->data();
      out.lengths[i] = static_cast<int>(bytes->size());
      out.formats[i] = 1;
    }
  }
  return out;
}

SqlValue decode(std::uint32_t type, std::string_view text) {
  switch (type) {
    case kBool:
      return text == "t";
    case kInt8:
    case kInt2:
    case kInt4:
    case kOid: {
      std::int64_t value = 0;
      std::from_chars(text.data(), text.data() + text.size(), value);
      return value;
    }
    case kFloat4:
    case kFloat8: {
      double value = 0;
      std::from_chars(text.data(), text.data() + text.size(), value);
      return value;
    }
    case kBytea:
      return from_hex(text);
    case kTimestamp:
    case kTimestamptz:
      return timestamp(text);
    default:
      return std::string(text);
  }
}

Result<void> check_statement(const Statement& statement) {
  const std::string_view sql = statement.text;
  const std::size_t values = statement.bind.size();
  if (sql.find('\0') != std::string_view::npos)
    return fail(Code::invalid_argument, "SQL_ERROR", "a statement with a zero byte in it");
  Scanner scanner(sql);
  std::size_t highest = 0;
  bool first = true;
  for (auto token = scanner.next(); token.kind != Scanner::Kind::end; token = scanner.next()) {
    if (std::exchange(first, false) && token.kind == Scanner::Kind::word &&
        std::ranges::find(kForbidden, folded(token.text)) != kForbidden.end()) {
      return fail(Code::permission_denied, "SQL_FORBIDDEN",
                  fmt::format("{}: statements read and write rows, and nothing else", shown(token.text)));
    }
    if (token.kind == Scanner::Kind::parameter) {
      if (token.number == 0) return bad_parameter("parameters are written $1, $2, ...");
      highest = std::max(highest, token.number);
    }
  }
  if (first) return fail(Code::invalid_argument, "SQL_ERROR", "no statement");
  if (highest != values) {
    return bad_parameter(fmt::format("{} values are given for {} parameters", values, highest));
  }
  for (std::size_t i = 0; i < values; ++i) {
    if (const auto* text = std::get_if<std::string>(&statement.bind[i]); text && text->find('\0') != std::string::npos)
      return bad_parameter(fmt::format("the value of ${} has a zero byte in it, which no text can have", i + 1));
    if (const auto* bytes = std::get_if<Bytes>(&statement.bind[i]); bytes && bytes->size() > kMostBytes)
      return bad_parameter(fmt::format("the value of ${} has more than 1 GB", i + 1));
  }
  return {};
}

bool surely_reads(std::string_view sql) {
  const auto first = Scanner(sql).next();
  return is_word(first, "select") || is_word(first, "values");
}

std::string changed_table(std::string_view sql) {
  Scanner scanner(sql);
  auto token = scanner.next();
  if (is_word(token, "select") || is_word(token, "values")) return {};
  if (is_word(token, "insert") || is_word(token, "delete") || is_word(token, "merge")) {
    scanner.next();  // INTO, FROM
  } else if (!is_word(token, "update")) {
    return "*";
  }
  token = scanner.next();
  if (is_word(token, "only")) token = scanner.next();
  std::string name = identifier(token);
  // A schema before it: what is waited for is the table's own name.
  if (token = scanner.next(); token.kind == Scanner::Kind::other && token.text == ".")
    name = identifier(scanner.next());
  return name;
}

std::string folded(std::string_view name) {
  std::string out(name);
  for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return out;
}

std::uint64_t parse_lsn(std::string_view text) noexcept {
  const auto slash = text.find('/');
  if (slash == std::string_view::npos) return 0;
  std::uint64_t high = 0;
  std::uint64_t low = 0;
  const auto read = [](std::string_view digits, std::uint64_t& out) {
    return std::from_chars(digits.data(), digits.data() + digits.size(), out, 16).ec == std::errc();
  };
  if (!read(text.substr(0, slash), high) || !read(text.substr(slash + 1), low)) return 0;
  return (high << 32U) | low;
}

std::size_t memory_of(const Statement& statement) noexcept {
  std::size_t n = sizeof(Statement) + statement.text.size() + statement.bind.size() * sizeof(SqlValue);
  for (const auto& value : statement.bind) {
    if (const auto* text = std::get_if<std::string>(&value)) n += text->size();
    if (const auto* bytes = std::get_if<Bytes>(&value)) n += bytes->size();
  }
  return n;
}

}  // namespace prism::postgres
