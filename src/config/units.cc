#include "config/units.h"

#include <algorithm>
#include <array>
#include <limits>
#include <utility>
#include <vector>

#include "config/suggestions.h"

namespace prism::config {
namespace {

struct Unit {
  std::string_view name;  // lower case
  std::uint64_t factor;
};

constexpr std::uint64_t kKilo = 1000, kMega = kKilo * 1000, kGiga = kMega * 1000, kTera = kGiga * 1000,
                        kPeta = kTera * 1000;
constexpr std::array kSizeUnits = {
    Unit{"b", 1},
    Unit{"kb", kKilo},
    Unit{"mb", kMega},
    Unit{"gb", kGiga},
    Unit{"tb", kTera},
    Unit{"pb", kPeta},
    Unit{"kib", 1ULL << 10},
    Unit{"mib", 1ULL << 20},
    Unit{"gib", 1ULL << 30},
    Unit{"tib", 1ULL << 40},
    Unit{"pib", 1ULL << 50},
};

constexpr std::uint64_t kMicro = 1000, kMilli = kMicro * 1000, kSecond = kMilli * 1000, kMinute = kSecond * 60,
                        kHour = kMinute * 60, kDay = kHour * 24, kWeek = kDay * 7;
constexpr std::array kTimeUnits = {
    Unit{"ns", 1},
    Unit{"us", kMicro},
    Unit{"\xc2\xb5s", kMicro},
    Unit{"ms", kMilli},
    Unit{"s", kSecond},
    Unit{"sec", kSecond},
    Unit{"second", kSecond},
    Unit{"seconds", kSecond},
    Unit{"m", kMinute},
    Unit{"min", kMinute},
    Unit{"minute", kMinute},
    Unit{"minutes", kMinute},
    Unit{"h", kHour},
    Unit{"hour", kHour},
    Unit{"hours", kHour},
    Unit{"d", kDay},
    Unit{"day", kDay},
    Unit{"days", kDay},
    Unit{"w", kWeek},
    Unit{"week", kWeek},
    Unit{"weeks", kWeek},
    Unit{"millisecond", kMilli},
    Unit{"milliseconds", kMilli},
    Unit{"microsecond", kMicro},
    Unit{"microseconds", kMicro},
    Unit{"nanosecond", 1},
    Unit{"nanoseconds", 1},
};
// What people write for them in other systems; not accepted, since "m" and "mo" are near too.
constexpr std::array<std::pair<std::string_view, std::string_view>, 10> kOtherNames = {{
    {"msec", "ms"},
    {"msecs", "ms"},
    {"millis", "ms"},
    {"usec", "us"},
    {"micros", "us"},
    {"secs", "s"},
    {"mins", "m"},
    {"hr", "h"},
    {"hrs", "h"},
    {"wk", "w"},
}};

// The longest text that can be meant: more is refused before it is quoted back in a message.
constexpr std::size_t kMaxText = 64;

enum class Fault { none, not_a_number, overflow, inexact };

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_gap(char c) { return c == ' ' || c == '_'; }

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

struct Number {
  std::uint64_t digits = 0;   // all digits, without the point
  std::uint64_t divisor = 1;  // 10 to the number of digits after the point
};

// Takes "12" or "1.5" off the front of `text`.
Fault take_number(std::string_view& text, Number& out) {
  bool point = false, any = false, any_after = false;
  std::size_t i = 0;
  for (; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '.' && !point && any) {
      point = true;
      continue;
    }
    if (!is_digit(c)) break;
    any = true;
    if (point) {
      any_after = true;
      if (__builtin_mul_overflow(out.divisor, 10U, &out.divisor)) return Fault::overflow;
    }
    if (__builtin_mul_overflow(out.digits, 10U, &out.digits) ||
        __builtin_add_overflow(out.digits, static_cast<std::uint64_t>(c - '0'), &out.digits)) {
      return Fault::overflow;
    }
  }
  if (!any || (point && !any_after)) return Fault::not_a_number;
  text.remove_prefix(i);
  return Fault::none;
}

Fault scale(const Number& number, std::uint64_t factor, std::uint64_t& out) {
  const unsigned __int128 product = static_cast<unsigned __int128>(number.digits) * factor;
  if (product % number.divisor != 0) return Fault::inexact;
  const unsigned __int128 value = product / number.divisor;
  if (value > std::numeric_limits<std::uint64_t>::max()) return Fault::overflow;
  out = static_cast<std::uint64_t>(value);
  return Fault::none;
}

template <std::size_t N>
const Unit* find_unit(const std::array<Unit, N>& units, std::string_view name) {
  for (const Unit& unit : units) {
    if (unit.name == name) return &unit;
  }
  return nullptr;
}

std::string quoted(std::string_view text) {
  return "'" + std::string(text.substr(0, kMaxText)) + (text.size() > kMaxText ? "..." : "") + "'";
}

// 1,000 and 1,5 and 1_000: what people write for digits in groups, or for a decimal point.
bool has_comma(std::string_view text) { return text.find(',') != std::string_view::npos; }

std::unexpected<Error> bad_size(std::string_view text, std::string_view why, std::string hint = {}) {
  if (hint.empty() && has_comma(text))
    hint = "write digits without commas, and a point for a fraction: 1500000 or 1.5MB";
  if (hint.empty()) hint = "write a number with a unit, for example 500kB, 1MB, 8MiB or 5GB; a bare number is bytes";
  return fail(Code::invalid_argument, "INVALID_SIZE", quoted(text) + " is not a size: " + std::string(why),
              std::move(hint));
}

std::unexpected<Error> bad_duration(std::string_view text, std::string_view why, std::string hint = {}) {
  if (hint.empty() && has_comma(text)) hint = "write digits without commas, and a point for a fraction: 1.5h";
  if (hint.empty())
    hint = "write a number with a unit, for example 100ms, 60s, 15m, 24h or 30 days; a bare number is seconds";
  return fail(Code::invalid_argument, "INVALID_DURATION", quoted(text) + " is not a duration: " + std::string(why),
              std::move(hint));
}

std::unexpected<Error> bad_rate(std::string_view text, std::string_view why) {
  return fail(Code::invalid_argument, "INVALID_RATE", quoted(text) + " is not a rate: " + std::string(why),
              "write a number per time, for example 500/s or 10k msgs/s");
}

template <std::size_t N>
std::string nearest_unit(const std::array<Unit, N>& units, std::string_view name) {
  std::vector<std::string> known;
  for (const Unit& unit : units) {
    if (unit.name.size() > 2) known.emplace_back(unit.name);  // one or two letters are near to everything
  }
  return nearest(name, known).value_or("");
}

}  // namespace

Result<std::uint64_t> parse_size(std::string_view text) {
  if (text.size() > kMaxText) return bad_size(text, "it is too long");
  std::string_view rest = text;
  Number number;
  switch (take_number(rest, number)) {
    case Fault::overflow:
      return bad_size(text, "the number is too large");
    case Fault::none:
      break;
    default:
      return bad_size(text, text.starts_with('-') ? "it must not be negative" : "it must begin with a number");
  }
  if (!rest.empty() && is_gap(rest.front())) {
    rest.remove_prefix(1);
    if (rest.empty()) return bad_size(text, "the unit is missing");
  }
  std::uint64_t factor = 1;
  if (!rest.empty()) {
    const std::string name = lower(rest);
    const Unit* unit = find_unit(kSizeUnits, name);
    if (unit == nullptr) {
      const Unit* meant = find_unit(kSizeUnits, name + "b");
      return bad_size(text, "the unit " + quoted(rest) + " is unknown",
                      meant != nullptr ? "did you mean " + quoted(std::string(text) + "B") + "?" : "");
    }
    factor = unit->factor;
  }
  std::uint64_t value = 0;
  switch (scale(number, factor, value)) {
    case Fault::overflow:
      return bad_size(text, "it is above 16 EiB");
    case Fault::inexact:
      return bad_size(text, "it is not a whole number of bytes");
    default:
      return value;
  }
}

Result<Lifetime> parse_duration(std::string_view text) {
  if (text.size() > kMaxText) return bad_duration(text, "it is too long");
  const std::string folded = lower(text);
  if (folded == "infinite" || folded == "null") return Lifetime{};
  std::string_view rest = folded;
  std::uint64_t total = 0;
  bool first = true;
  while (first || !rest.empty()) {
    Number number;
    switch (take_number(rest, number)) {
      case Fault::overflow:
        return bad_duration(text, "the number is too large");
      case Fault::none:
        break;
      default:
        if (!first) return bad_duration(text, "a number must follow the unit");
        if (folded.starts_with('-'))
          return bad_duration(text, "it must not be negative", "write 'infinite' for no end");
        for (const std::string_view word : {"forever", "never", "unlimited", "none", "inf", "infinity", "no"}) {
          if (folded == word) return bad_duration(text, "it must begin with a number", "write 'infinite' for no end");
        }
        return bad_duration(text, "it must begin with a number");
    }
    std::uint64_t factor = kSecond;
    if (rest.empty()) {
      if (!first) return bad_duration(text, "the last unit is missing");
    } else {
      const bool gap = is_gap(rest.front());
      if (gap) rest.remove_prefix(1);
      std::size_t end = 0;
      while (end < rest.size() && !is_digit(rest[end]) && !is_gap(rest[end])) ++end;
      const std::string_view name = rest.substr(0, end);
      if (name.empty()) return bad_duration(text, "the unit is missing");
      const Unit* unit = find_unit(kTimeUnits, name);
      if (unit == nullptr) {
        const std::string why = "the unit " + quoted(name) + " is unknown";
        for (const std::string_view varying : {"mo", "mon", "month", "months", "y", "yr", "year", "years"}) {
          if (name == varying)
            return bad_duration(text, why, "months and years differ in length: write days, for example 30 days");
        }
        const auto* other = std::ranges::find(kOtherNames, name, &std::pair<std::string_view, std::string_view>::first);
        const std::string meant =
            other != kOtherNames.end() ? std::string(other->second) : nearest_unit(kTimeUnits, name);
        return bad_duration(text, why, meant.empty() ? "" : "did you mean '" + meant + "'?");
      }
      factor = unit->factor;
      rest.remove_prefix(end);
      if (!rest.empty() && is_gap(rest.front())) {
        rest.remove_prefix(1);
        if (rest.empty()) return bad_duration(text, "nothing may follow the unit");
      }
    }
    std::uint64_t part = 0;
    switch (scale(number, factor, part)) {
      case Fault::overflow:
        return bad_duration(text, "it is above 292 years (write 'infinite' for no end)");
      case Fault::inexact:
        return bad_duration(text, "it is finer than a nanosecond");
      default:
        break;
    }
    if (__builtin_add_overflow(total, part, &total) ||
        total > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
      return bad_duration(text, "it is above 292 years (write 'infinite' for no end)");
    }
    first = false;
  }
  return Lifetime{std::chrono::nanoseconds(static_cast<std::int64_t>(total))};
}

Result<double> parse_rate(std::string_view text) {
  if (text.size() > kMaxText) return bad_rate(text, "it is too long");
  const std::string folded = lower(text);
  std::string_view rest = folded;
  Number number;
  switch (take_number(rest, number)) {
    case Fault::overflow:
      return bad_rate(text, "the number is too large");
    case Fault::none:
      break;
    default:
      return bad_rate(text, text.starts_with('-') ? "it must not be negative" : "it must begin with a number");
  }
  double value = static_cast<double>(number.digits) / static_cast<double>(number.divisor);
  const auto letter = [](char c) { return c >= 'a' && c <= 'z'; };
  // A lone letter behind the number is a factor: "10k msgs/s", "2m/s"; a word is what is counted: "10 msgs/s".
  if (!rest.empty() && letter(rest.front()) && (rest.size() == 1 || !letter(rest[1]))) {
    switch (rest.front()) {
      case 'k':
        value *= 1e3;
        break;
      case 'm':
        value *= 1e6;
        break;
      case 'g':
        value *= 1e9;
        break;
      default:
        return bad_rate(text, "the factor " + quoted(rest.substr(0, 1)) + " is unknown");
    }
    rest.remove_prefix(1);
  }
  const auto skip_gap = [&] {
    while (!rest.empty() && is_gap(rest.front())) rest.remove_prefix(1);
  };
  const auto take_word = [&] {
    std::size_t end = 0;
    while (end < rest.size() && letter(rest[end])) ++end;
    const std::string_view word = rest.substr(0, end);
    rest.remove_prefix(end);
    return word;
  };
  skip_gap();
  const std::string_view counted = take_word();
  bool per = counted == "per";
  skip_gap();
  if (!per && rest.starts_with('/')) {
    rest.remove_prefix(1);
    per = true;
  } else if (!per && !rest.empty()) {
    per = take_word() == "per";
  }
  if (per) {
    skip_gap();
    const std::string_view name = take_word();
    const Unit* unit = find_unit(kTimeUnits, name);
    if (unit == nullptr || !rest.empty()) return bad_rate(text, "the time " + quoted(name) + " is unknown");
    value = value * static_cast<double>(kSecond) / static_cast<double>(unit->factor);
  } else if (!rest.empty() || !counted.empty()) {
    return bad_rate(text, "the time is missing");
  }
  constexpr double kMaxRate = 1e12;
  if (value <= 0) return bad_rate(text, "it must be above 0");
  if (value > kMaxRate) return bad_rate(text, "it is above 1e12 a second");
  return value;
}

std::vector<std::string_view> duration_units() {
  std::vector<std::string_view> out;
  for (const Unit& unit : kTimeUnits) out.push_back(unit.name);
  return out;
}

std::string format_size(std::uint64_t bytes) {
  static constexpr std::array kOrder = {
      Unit{"PB", kPeta}, Unit{"PiB", 1ULL << 50}, Unit{"TB", kTera}, Unit{"TiB", 1ULL << 40},
      Unit{"GB", kGiga}, Unit{"GiB", 1ULL << 30}, Unit{"MB", kMega}, Unit{"MiB", 1ULL << 20},
      Unit{"kB", kKilo}, Unit{"KiB", 1ULL << 10},
  };
  if (bytes != 0) {
    for (const Unit& unit : kOrder) {
      if (bytes % unit.factor == 0) return std::to_string(bytes / unit.factor) + std::string(unit.name);
    }
  }
  return std::to_string(bytes) + "B";
}

std::string format_duration(std::chrono::nanoseconds duration) {
  static constexpr std::array kOrder = {
      Unit{"d", kDay}, Unit{"h", kHour}, Unit{"m", kMinute}, Unit{"s", kSecond}, Unit{"ms", kMilli}, Unit{"us", kMicro},
  };
  const std::int64_t count = duration.count();
  if (count == 0) return "0s";
  for (const Unit& unit : kOrder) {
    if (count % static_cast<std::int64_t>(unit.factor) == 0) {
      return std::to_string(count / static_cast<std::int64_t>(unit.factor)) + std::string(unit.name);
    }
  }
  return std::to_string(count) + "ns";
}

std::string format_lifetime(const Lifetime& lifetime) {
  return lifetime ? format_duration(*lifetime) : std::string("infinite");
}

}  // namespace prism::config
