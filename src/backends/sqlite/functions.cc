#include "backends/sqlite/functions.h"

#include <fmt/format.h>
#include <sqlite3.h>

#include <algorithm>
#include <cctype>
#include <chrono>
#include <cstring>

#include "backends/sqlite/ddl.h"
#include "base/ids.h"

namespace prism::sqlite {
namespace {

// What SQLite's callbacks find: they run on the thread that prepares or steps.
struct Present {
  bool foreign = false;
  std::set<std::string, std::less<>>* changed = nullptr;
  const char* last_changed = nullptr;  // the hook gives the same pointer for row after row
  std::string forbidden;
  std::string failure;
};
thread_local Present present;

std::string_view text_of(sqlite3_value* value) {
  const auto* data = static_cast<const char*>(sqlite3_value_blob(value));
  return data == nullptr ? std::string_view()
                         : std::string_view(data, static_cast<std::size_t>(sqlite3_value_bytes(value)));
}
void give_text(sqlite3_context* context, const std::string& text) {
  sqlite3_result_text64(context, text.data(), text.size(), SQLITE_TRANSIENT, SQLITE_UTF8);
}

void lane(sqlite3_context* context, int, sqlite3_value** args) {
  const std::int64_t lanes = sqlite3_value_int64(args[1]);
  if (lanes < 1) return sqlite3_result_error(context, "prism_lane: the number of lanes must be positive", -1);
  if (sqlite3_value_type(args[0]) != SQLITE_BLOB) sqlite3_value_text(args[0]);  // numbers count as their text
  sqlite3_result_int64(context,
                       static_cast<std::int64_t>(lane_hash(text_of(args[0])) % static_cast<std::uint64_t>(lanes)));
}

void now(sqlite3_context* context, int, sqlite3_value**) { give_text(context, timestamp_text(wall_now())); }

void ago(sqlite3_context* context, int, sqlite3_value** args) {
  if (sqlite3_value_type(args[0]) == SQLITE_NULL) return sqlite3_result_null(context);
  // Within the years that the form can hold.
  constexpr std::int64_t kMost = std::chrono::microseconds(std::chrono::years(1900)).count();
  const auto back = std::clamp<std::int64_t>(sqlite3_value_int64(args[0]), -kMost, kMost);
  give_text(context, timestamp_text(wall_now() - std::chrono::microseconds(back)));
}

void age(sqlite3_context* context, int, sqlite3_value** args) {
  const auto then = parse_timestamp(text_of(args[0]));
  if (!then) return sqlite3_result_null(context);
  sqlite3_result_int64(context, (wall_now() - *then).count());
}

void uuid4(sqlite3_context* context, int, sqlite3_value**) {
  std::string hex = to_hex(random_id());
  hex[12] = '4';
  hex[16] = "89ab"[static_cast<unsigned char>(hex[16]) & 3];
  give_text(context, fmt::format("{}-{}-{}-{}-{}", hex.substr(0, 8), hex.substr(8, 4), hex.substr(12, 4),
                                 hex.substr(16, 4), hex.substr(20)));
}

void fail_with(sqlite3_context* context, int, sqlite3_value** args) {
  sqlite3_value_text(args[0]);
  present.failure = text_of(args[0]);
  sqlite3_result_error(context, "a condition of the statement does not hold", -1);
}

bool digits(std::string_view s) {
  return std::all_of(s.begin(), s.end(), [](char c) { return c >= '0' && c <= '9'; });
}

// A decimal number without sign, leading and trailing zeros.
struct Decimal {
  bool valid = false;
  bool negative = false;
  std::string_view whole;
  std::string_view fraction;
};
Decimal read_decimal(std::string_view s) noexcept {
  Decimal d;
  if (!s.empty() && (s.front() == '-' || s.front() == '+')) {
    d.negative = s.front() == '-';
    s.remove_prefix(1);
  }
  const auto dot = s.find('.');
  d.whole = s.substr(0, dot);
  d.fraction = dot == std::string_view::npos ? std::string_view() : s.substr(dot + 1);
  d.valid = d.whole.size() + d.fraction.size() > 0 && digits(d.whole) && digits(d.fraction);
  d.whole.remove_prefix(std::min(d.whole.find_first_not_of('0'), d.whole.size()));
  d.fraction = d.fraction.substr(0, d.fraction.find_last_not_of('0') + 1);  // npos + 1 is 0
  if (d.whole.empty() && d.fraction.empty()) d.negative = false;
  return d;
}

void check_decimal(sqlite3_context* context, int n, sqlite3_value** args) {
  if (sqlite3_value_type(args[0]) == SQLITE_NULL) return sqlite3_result_null(context);
  sqlite3_value_text(args[0]);
  const Decimal d = read_decimal(text_of(args[0]));
  bool fits = d.valid;
  if (n == 3) {
    const auto precision = static_cast<std::size_t>(std::max(sqlite3_value_int(args[1]), 0));
    const auto scale = static_cast<std::size_t>(std::max(sqlite3_value_int(args[2]), 0));
    fits = fits && d.fraction.size() <= scale && d.whole.size() + scale <= precision;
  }
  sqlite3_result_int(context, fits ? 1 : 0);
}

void json_valid(sqlite3_context* context, int, sqlite3_value** args) {
  if (sqlite3_value_type(args[0]) == SQLITE_NULL) return sqlite3_result_null(context);
  if (sqlite3_value_type(args[0]) != SQLITE_BLOB) sqlite3_value_text(args[0]);
  sqlite3_result_int(context, is_json(text_of(args[0])) ? 1 : 0);
}

bool starts_with(const char* name, std::string_view prefix) {
  return name != nullptr && std::strlen(name) >= prefix.size() &&
         sqlite3_strnicmp(name, prefix.data(), static_cast<int>(prefix.size())) == 0;
}

int forbid(std::string what) {
  if (present.forbidden.empty()) present.forbidden = std::move(what);
  return SQLITE_DENY;
}

int authorize(void*, int action, const char* a, const char* b, const char*, const char*) {
  if (!present.foreign) return SQLITE_OK;
  switch (action) {
    case SQLITE_SELECT:
    case SQLITE_RECURSIVE:
      return SQLITE_OK;
    case SQLITE_FUNCTION:
      return sqlite3_stricmp(b, "load_extension") == 0 ? forbid("load_extension()") : SQLITE_OK;
    case SQLITE_READ:
      if (starts_with(a, kInternalPrefix) && sqlite3_stricmp(a, "prism_lease") != 0)
        return forbid(fmt::format("reading \"{}\"", a));
      return SQLITE_OK;
    case SQLITE_INSERT:
    case SQLITE_UPDATE:
    case SQLITE_DELETE:
      if (starts_with(a, kInternalPrefix)) return forbid(fmt::format("writing to \"{}\"", a));
      // CREATE and DROP begin with a write to the schema's own table.
      if (starts_with(a, "sqlite_")) return forbid("a change of the schema");
      return SQLITE_OK;
    case SQLITE_PRAGMA:
      return forbid("PRAGMA");
    case SQLITE_ATTACH:
      return forbid("ATTACH");
    case SQLITE_DETACH:
      return forbid("DETACH");
    case SQLITE_TRANSACTION:
    case SQLITE_SAVEPOINT:
      return forbid("BEGIN, COMMIT, ROLLBACK and SAVEPOINT");
    case SQLITE_ANALYZE:
    case SQLITE_REINDEX:
      return forbid("ANALYZE and REINDEX");
    default:
      return forbid("a change of the schema");
  }
}

void note_change(void*, int, const char*, const char* table, sqlite3_int64) {
  if (present.changed == nullptr || table == present.last_changed) return;
  present.last_changed = table;
  std::string name(table);
  for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  present.changed->insert(std::move(name));
}

}  // namespace

int install_functions(sqlite3* db) {
  struct Function {
    const char* name;
    int args;
    int flags;
    void (*call)(sqlite3_context*, int, sqlite3_value**);
  };
  constexpr int kPure =
      SQLITE_DETERMINISTIC | SQLITE_INNOCUOUS;  // innocuous: a CHECK may use it though the schema is not trusted
  static constexpr Function kFunctions[] = {
      {"prism_lane", 2, kPure, lane},
      {"prism_now", 0, SQLITE_INNOCUOUS, now},
      {"now", 0, SQLITE_INNOCUOUS, now},
      {"prism_ago", 1, SQLITE_INNOCUOUS, ago},
      {"prism_age", 1, SQLITE_INNOCUOUS, age},
      {"gen_random_uuid", 0, SQLITE_INNOCUOUS, uuid4},
      // Not deterministic, or SQLite would call it before it knows whether it must.
      {"prism_fail", 1, SQLITE_DIRECTONLY, fail_with},
      {"json_valid", 1, kPure, json_valid},
      {"prism_is_decimal", 1, kPure, check_decimal},
      {"prism_is_decimal", 3, kPure, check_decimal},
  };
  for (const auto& f : kFunctions) {
    if (const int rc = sqlite3_create_function_v2(db, f.name, f.args, SQLITE_UTF8 | f.flags, nullptr, f.call, nullptr,
                                                  nullptr, nullptr);
        rc != SQLITE_OK) {
      return rc;
    }
  }
  if (const int rc = sqlite3_create_collation_v2(
          db, "prism_decimal", SQLITE_UTF8, nullptr,
          [](void*, int n, const void* a, int m, const void* b) {
            return compare_decimals({static_cast<const char*>(a), static_cast<std::size_t>(n)},
                                    {static_cast<const char*>(b), static_cast<std::size_t>(m)});
          },
          nullptr);
      rc != SQLITE_OK) {
    return rc;
  }
  sqlite3_update_hook(db, note_change, nullptr);
  // "name" is a name, never a string: a column that does not exist is an error.
  sqlite3_db_config(db, SQLITE_DBCONFIG_DQS_DML, 0, nullptr);
  sqlite3_db_config(db, SQLITE_DBCONFIG_DQS_DDL, 0, nullptr);
  sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  return sqlite3_set_authorizer(db, authorize, nullptr);
}

std::optional<WallTime> parse_timestamp(std::string_view text) {
  constexpr std::string_view kForm = "0000-00-00 00:00:00";
  if (text.size() < kForm.size() || text.size() > kForm.size() + 7) return std::nullopt;
  for (std::size_t i = 0; i < kForm.size(); ++i) {
    const bool digit = text[i] >= '0' && text[i] <= '9';
    if (kForm[i] == '0' ? !digit : text[i] != kForm[i]) return std::nullopt;
  }
  const auto number = [&](std::size_t at, std::size_t n) {
    int value = 0;
    for (std::size_t i = at; i < at + n; ++i) value = 10 * value + (text[i] - '0');
    return value;
  };
  const std::chrono::year_month_day day{std::chrono::year(number(0, 4)),
                                        std::chrono::month(static_cast<unsigned>(number(5, 2))),
                                        std::chrono::day(static_cast<unsigned>(number(8, 2)))};
  if (!day.ok()) return std::nullopt;
  int micros = 0;
  if (text.size() > kForm.size()) {
    const auto fraction = text.substr(kForm.size() + 1);
    if (text[kForm.size()] != '.' || fraction.empty() || !digits(fraction)) return std::nullopt;
    for (std::size_t i = 0; i < 6; ++i) micros = 10 * micros + (i < fraction.size() ? fraction[i] - '0' : 0);
  }
  return WallTime(std::chrono::sys_days(day) + std::chrono::hours(number(11, 2)) + std::chrono::minutes(number(14, 2)) +
                  std::chrono::seconds(number(17, 2)) + std::chrono::microseconds(micros));
}

std::string timestamp_text(WallTime time) {
  const auto day = std::chrono::floor<std::chrono::days>(time);
  const std::chrono::year_month_day date(day);
  const std::chrono::hh_mm_ss clock(time - day);
  return fmt::format("{:04}-{:02}-{:02} {:02}:{:02}:{:02}.{:06}", static_cast<int>(date.year()),
                     static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()), clock.hours().count(),
                     clock.minutes().count(), clock.seconds().count(), clock.subseconds().count());
}

// FNV-1a, then the finalizer of MurmurHash3, since a lane is a remainder by a small number. Stored data depend on
// nothing of it, but two processes of different versions do: never change it.
std::uint64_t lane_hash(std::string_view bytes) noexcept {
  std::uint64_t h = 0xcbf29ce484222325ULL;
  for (const char c : bytes) {
    h ^= static_cast<unsigned char>(c);
    h *= 0x100000001b3ULL;
  }
  h ^= h >> 33;
  h *= 0xff51afd7ed558ccdULL;
  h ^= h >> 33;
  h *= 0xc4ceb9fe1a85ec53ULL;
  h ^= h >> 33;
  return h;
}

bool is_json(std::string_view s) {
  constexpr std::size_t kDeepest = 1000;
  std::string open;  // '[' and '{' that wait for their end
  std::size_t i = 0;
  const auto peek = [&] { return i < s.size() ? s[i] : '\0'; };
  const auto blank = [&] {
    while (i < s.size() && (s[i] == ' ' || s[i] == '\t' || s[i] == '\n' || s[i] == '\r')) ++i;
  };
  const auto some_digits = [&] {
    const std::size_t from = i;
    while (peek() >= '0' && peek() <= '9') ++i;
    return i > from;
  };
  const auto string = [&] {
    if (peek() != '"') return false;
    for (++i; i < s.size(); ++i) {
      const auto c = static_cast<unsigned char>(s[i]);
      if (c == '"') {
        ++i;
        return true;
      }
      if (c < 0x20) return false;
      if (c != '\\') continue;
      ++i;
      if (peek() == 'u') {
        for (int n = 0; n < 4; ++n) {
          if (++i >= s.size() || std::isxdigit(static_cast<unsigned char>(s[i])) == 0) return false;
        }
      } else if (peek() == '\0' || std::strchr("\"\\/bfnrt", peek()) == nullptr) {
        return false;
      }
    }
    return false;
  };
  const auto scalar = [&] {
    for (const std::string_view word : {"true", "false", "null"}) {
      if (s.substr(i, word.size()) == word) {
        i += word.size();
        return true;
      }
    }
    if (peek() == '"') return string();
    if (peek() == '-') ++i;
    if (peek() == '0') {
      ++i;
    } else if (!some_digits()) {
      return false;
    }
    if (peek() == '.') {
      ++i;
      if (!some_digits()) return false;
    }
    if (peek() == 'e' || peek() == 'E') {
      ++i;
      if (peek() == '+' || peek() == '-') ++i;
      if (!some_digits()) return false;
    }
    return true;
  };
  const auto name = [&] {  // of a member, and its colon
    if (!string()) return false;
    blank();
    if (peek() != ':') return false;
    ++i;
    blank();
    return true;
  };
  blank();
  while (true) {
    // A value begins here.
    bool empty = false;
    if (const char c = peek(); c == '[' || c == '{') {
      if (open.size() == kDeepest) return false;
      open += c;
      ++i;
      blank();
      empty = peek() == (c == '[' ? ']' : '}');
      if (!empty) {
        if (c == '{' && !name()) return false;
        continue;
      }
    } else if (!scalar()) {
      return false;
    }
    // A value has ended, or an empty list or object is about to.
    while (true) {
      if (!empty) blank();
      empty = false;
      if (open.empty()) return i == s.size();
      const char c = peek();
      ++i;
      if (c == ',') {
        blank();
        if (open.back() == '{' && !name()) return false;
        break;
      }
      if (c != (open.back() == '[' ? ']' : '}')) return false;
      open.pop_back();
    }
  }
}

int compare_decimals(std::string_view a, std::string_view b) noexcept {
  const Decimal x = read_decimal(a);
  const Decimal y = read_decimal(b);
  if (!x.valid || !y.valid) {
    if (x.valid != y.valid) return x.valid ? -1 : 1;
    return a.compare(b);
  }
  if (x.negative != y.negative) return x.negative ? -1 : 1;
  int order = 0;
  if (x.whole.size() != y.whole.size()) {
    order = x.whole.size() < y.whole.size() ? -1 : 1;
  } else if (order = x.whole.compare(y.whole); order == 0) {
    order = x.fraction.compare(y.fraction);  // without trailing zeros the shorter of two equal beginnings is smaller
  }
  return x.negative ? -order : order;
}

ForeignStatement::ForeignStatement(std::set<std::string, std::less<>>* changed) {
  present.foreign = true;
  present.changed = changed;
  present.last_changed = nullptr;
  present.forbidden.clear();
  present.failure.clear();
}

ForeignStatement::~ForeignStatement() {
  present.foreign = false;
  present.changed = nullptr;
}

Error ForeignStatement::explain(Error error) const {
  if (!present.forbidden.empty()) {
    return Error{Code::permission_denied,
                 "SQL_FORBIDDEN",
                 "a statement may not do this: " + present.forbidden,
                 "tables are made from the configuration; statements read and write their rows",
                 Retry::never,
                 {},
                 {}};
  }
  if (!present.failure.empty()) {
    return Error{Code::aborted, present.failure, error.message, "", Retry::never, {}, {}};
  }
  if (error.reason == "CONSTRAINT_VIOLATED") {
    const auto& kind = error.metadata["constraint"];
    if (kind == "unique" || kind == "primary_key") error.code = Code::already_exists;
  }
  return error;
}

}  // namespace prism::sqlite
