// Structured log: a message that never varies, and fields with keys of one vocabulary.
//
//   log::info("outbox relay recovered", {{"namespace", ns}, {"count", n}});
//
// Nothing here throws or blocks its caller on the output (with an Output in place); any thread. A call below the level
// costs one relaxed load and the evaluation of its arguments. Values must not be secrets.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <concepts>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>

#include "runtime/context.h"

namespace prism::log {

enum class Level : std::uint8_t { trace, debug, info, warn, error, off };
std::optional<Level> parse_level(std::string_view text) noexcept;  // "trace" … "off"

// All keys that a line may have; docs/reference/logging.md says what they mean. Add what is missing; do not make two
// words for one thing. "time", "level", "message" and "repeated" are the line's own.
inline constexpr std::array kKeys = std::to_array<std::string_view>({
    // where
    "namespace",
    "pattern",
    "backend",
    "topic",
    "group",
    "partition",
    "offset",
    "key",
    "job",
    "shard",
    "table",
    "bucket",
    "object",
    "message_id",
    "consumer",
    // who
    "principal",
    "session",
    "client",
    "holder",
    "service",
    "method",
    "trace_id",
    "thread",
    // what
    "reason",
    "error",
    "hint",
    "code",
    "state",
    "attempt",
    "count",
    "bytes",
    "limit",
    "value",
    "option",
    "type",
    "name",
    "version",
    "signal",
    "durability",
    "mode",
    "lag_ms",
    "duration_ms",
    "delay_ms",
    "age_ms",
    // places
    "address",
    "file",
    "line",
    "column",
    "url",
    "path",
    "pid",
});

// Checked when the program is compiled.
class Key {
 public:
  consteval Key(const char* name) : name_(name) {  // NOLINT(google-explicit-constructor): that is its use
    if (std::ranges::find(kKeys, name_) == kKeys.end()) throw "this key is not in prism::log::kKeys";
  }
  constexpr std::string_view name() const noexcept { return name_; }

 private:
  std::string_view name_;
};

// Strings are referred to: a field lives no longer than the call that it is made for.
class Field {
 public:
  using Value = std::variant<std::string_view, std::int64_t, std::uint64_t, double, bool>;
  template <class T>
  Field(Key k, const T& v) noexcept : key(k), value(value_of(v)) {}

  Key key;
  Value value;

 private:
  template <class T>
  static Value value_of(const T& v) noexcept {
    if constexpr (std::same_as<T, bool>) {
      return v;
    } else if constexpr (std::signed_integral<T>) {
      return static_cast<std::int64_t>(v);
    } else if constexpr (std::unsigned_integral<T>) {
      return static_cast<std::uint64_t>(v);
    } else if constexpr (std::floating_point<T>) {
      return static_cast<double>(v);
    } else if constexpr (requires { typename T::period; }) {
      return std::chrono::duration<double, std::milli>(v).count();  // durations are milliseconds
    } else {
      return std::string_view(v);
    }
  }
};
using Fields = std::initializer_list<Field>;

namespace detail {
extern std::atomic<Level> level;
void write(Level level, std::string_view message, Fields fields, const Context* context = nullptr) noexcept;
}  // namespace detail

inline bool enabled(Level level) noexcept { return level >= detail::level.load(std::memory_order_relaxed); }
inline void write(Level level, std::string_view message, Fields fields = {}) noexcept {
  if (enabled(level)) detail::write(level, message, fields);
}
// A line of a request: with its trace_id, and its namespace where the fields name none.
inline void write(Level level, const Context& context, std::string_view message, Fields fields = {}) noexcept {
  if (enabled(level)) detail::write(level, message, fields, &context);
}
inline void trace(std::string_view message, Fields fields = {}) noexcept { write(Level::trace, message, fields); }
inline void debug(std::string_view message, Fields fields = {}) noexcept { write(Level::debug, message, fields); }
inline void info(std::string_view message, Fields fields = {}) noexcept { write(Level::info, message, fields); }
inline void warn(std::string_view message, Fields fields = {}) noexcept { write(Level::warn, message, fields); }
inline void error(std::string_view message, Fields fields = {}) noexcept { write(Level::error, message, fields); }
inline void debug(const Context& context, std::string_view message, Fields fields = {}) noexcept {
  write(Level::debug, context, message, fields);
}
inline void info(const Context& context, std::string_view message, Fields fields = {}) noexcept {
  write(Level::info, context, message, fields);
}
inline void warn(const Context& context, std::string_view message, Fields fields = {}) noexcept {
  write(Level::warn, context, message, fields);
}
inline void error(const Context& context, std::string_view message, Fields fields = {}) noexcept {
  write(Level::error, context, message, fields);
}

enum class Format : std::uint8_t {
  json,       // one object a line
  pretty,     // for people
  automatic,  // pretty where stderr is a terminal, else json
};

struct Options {
  Level level = Level::info;
  Format format = Format::automatic;
  // Warnings, errors and whatever has a reason: the same message with the same reason, namespace, job, backend and
  // option is written once in this time; the next line says how often it was left out in between ("repeated"). 0:
  // everything is written.
  std::chrono::milliseconds repeat_after{10'000};
  // Where lines (without their end) go; none: stderr. Called by one thread at a time.
  std::function<void(std::string_view line)> sink;
  std::function<std::chrono::steady_clock::time_point()> now;  // for tests; none: the steady clock
};

// Installs the options for the process as long as it lives (made by main, or a test; one at a time). Lines are written
// by a thread of its own; where the output is too slow, the oldest of 4096 waiting lines are dropped, and a line says
// how many. The destructor writes what is waiting. Without an Output lines go to stderr at once, from Level::info on.
class Output {
 public:
  explicit Output(Options options);
  ~Output();
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;
  void flush() noexcept;  // waits until what was logged before is written
};

}  // namespace prism::log
