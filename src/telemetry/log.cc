#include "telemetry/log.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <spdlog/async.h>
#include <spdlog/sinks/base_sink.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <condition_variable>
#include <map>
#include <mutex>
#include <shared_mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/text.h"

namespace prism::log {

namespace detail {
std::atomic<Level> level{Level::info};
}  // namespace detail

namespace {

using Clock = std::chrono::steady_clock;
constexpr std::size_t kQueue = 4096;     // lines that wait for the output
constexpr std::size_t kRepeats = 512;    // different lines that are watched for repeats
constexpr std::size_t kMaxValue = 8192;  // bytes of one value; the rest is cut

constexpr std::string_view name_of(Level l) noexcept {
  switch (l) {
    case Level::trace:
      return "trace";
    case Level::debug:
      return "debug";
    case Level::info:
      return "info";
    case Level::warn:
      return "warn";
    case Level::error:
      return "error";
    case Level::off:
      break;
  }
  return "off";
}

// JSON's escapes; what is not UTF-8 becomes U+FFFD. Also used for quoted values of the pretty format.
void append_escaped(fmt::memory_buffer& out, std::string_view text) {
  static constexpr char digits[] = "0123456789abcdef";
  const auto put = [&](std::string_view s) { out.append(s.data(), s.data() + s.size()); };
  for (std::size_t i = 0; i < text.size();) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c < 0x80) {
      switch (c) {
        case '"':
          put("\\\"");
          break;
        case '\\':
          put("\\\\");
          break;
        case '\n':
          put("\\n");
          break;
        case '\r':
          put("\\r");
          break;
        case '\t':
          put("\\t");
          break;
        default:
          if (c < 0x20 || c == 0x7f) {
            put("\\u00");
            out.push_back(digits[c >> 4]);
            out.push_back(digits[c & 15]);
          } else {
            out.push_back(static_cast<char>(c));
          }
      }
      ++i;
      continue;
    }
    const std::size_t n = utf8_sequence(text.substr(i));
    put(n > 0 ? text.substr(i, n) : "\xef\xbf\xbd");
    i += std::max<std::size_t>(n, 1);
  }
}

std::string_view cut(std::string_view text) { return text.substr(0, kMaxValue); }

void append_number(fmt::memory_buffer& out, double v) {
  if (std::isfinite(v)) {
    fmt::format_to(std::back_inserter(out), "{}", v);
  } else {
    out.append(std::string_view("null"));
  }
}

void append_json(fmt::memory_buffer& out, const Field::Value& value) {
  if (const auto* text = std::get_if<std::string_view>(&value)) {
    out.push_back('"');
    append_escaped(out, cut(*text));
    out.push_back('"');
  } else if (const auto* number = std::get_if<double>(&value)) {
    append_number(out, *number);
  } else if (const auto* flag = std::get_if<bool>(&value)) {
    out.append(*flag ? std::string_view("true") : std::string_view("false"));
  } else if (const auto* integer = std::get_if<std::int64_t>(&value)) {
    fmt::format_to(std::back_inserter(out), "{}", *integer);
  } else {
    fmt::format_to(std::back_inserter(out), "{}", std::get<std::uint64_t>(value));
  }
}

void append_pretty(fmt::memory_buffer& out, const Field::Value& value) {
  const auto* text = std::get_if<std::string_view>(&value);
  const bool plain = text != nullptr && !text->empty() && std::ranges::all_of(*text, [](char c) {
                       return c > ' ' && c < 0x7f && c != '"' && c != '\\' && c != '=';
                     });
  if (plain) {
    out.append(cut(*text));
  } else {
    append_json(out, value);
  }
}

struct Line {
  Level level;
  std::string_view message;
  std::span<const Field> fields;
  std::uint64_t repeated = 0;
  std::string_view name_space = {};  // of the request, where the fields name none; empty: none
  std::string_view trace_id = {};    // of the request; empty: none
};

// Calls visit(key, value) for all fields of a line.
template <class Visit>
void for_each_field(const Line& line, const Visit& visit) {
  for (const Field& field : line.fields) visit(field.key, field.value);
  if (!line.name_space.empty()) visit(Key("namespace"), Field::Value(line.name_space));
  if (!line.trace_id.empty()) visit(Key("trace_id"), Field::Value(line.trace_id));
}

void format_json(fmt::memory_buffer& out, const Line& line, std::chrono::system_clock::time_point at) {
  const auto seconds = std::chrono::floor<std::chrono::seconds>(at);
  const auto micros = std::chrono::duration_cast<std::chrono::microseconds>(at - seconds).count();
  fmt::format_to(std::back_inserter(out), "{{\"time\":\"{:%Y-%m-%dT%H:%M:%S}.{:06}Z\",\"level\":\"{}\",\"message\":\"",
                 fmt::gmtime(std::chrono::system_clock::to_time_t(seconds)), micros, name_of(line.level));
  append_escaped(out, cut(line.message));
  out.push_back('"');
  for_each_field(line, [&](Key key, const Field::Value& value) {
    fmt::format_to(std::back_inserter(out), ",\"{}\":", key.name());
    append_json(out, value);
  });
  if (line.repeated != 0) fmt::format_to(std::back_inserter(out), ",\"repeated\":{}", line.repeated);
  out.push_back('}');
}

void format_pretty(fmt::memory_buffer& out, const Line& line, std::chrono::system_clock::time_point at, bool colour) {
  static constexpr std::string_view colours[] = {"\x1b[90m", "\x1b[36m", "\x1b[32m", "\x1b[33m", "\x1b[31m"};
  const auto seconds = std::chrono::floor<std::chrono::seconds>(at);
  const auto millis = std::chrono::duration_cast<std::chrono::milliseconds>(at - seconds).count();
  const auto index = std::min<std::size_t>(static_cast<std::size_t>(line.level), 4);
  fmt::format_to(std::back_inserter(out), "{:%H:%M:%S}.{:03} {}{:5}{} ",
                 fmt::localtime(std::chrono::system_clock::to_time_t(seconds)), millis,
                 colour ? colours[index] : std::string_view(), name_of(line.level), colour ? "\x1b[0m" : "");
  append_escaped(out, cut(line.message));
  for_each_field(line, [&](Key key, const Field::Value& value) {
    fmt::format_to(std::back_inserter(out), "  {}{}={}", colour ? "\x1b[90m" : "", key.name(), colour ? "\x1b[0m" : "");
    append_pretty(out, value);
  });
  if (line.repeated != 0) fmt::format_to(std::back_inserter(out), "  (repeated {} times)", line.repeated);
}

// Whole lines in one write each, so that those of several processes do not mix.
void write_to_stderr(std::string_view line) {
  std::string text(line);
  text += '\n';
  std::string_view rest = text;
  while (!rest.empty()) {
    const ssize_t n = ::write(STDERR_FILENO, rest.data(), rest.size());
    if (n < 0 && errno != EINTR) return;  // there is nowhere to say so
    if (n > 0) rest.remove_prefix(static_cast<std::size_t>(n));
  }
}

class LineSink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  explicit LineSink(std::function<void(std::string_view)> write) : write_(std::move(write)) {}
  std::uint64_t flushes() {
    const std::lock_guard lock(mutex_);
    return flushes_;
  }
  bool wait_flushed(std::uint64_t seen, std::chrono::milliseconds at_most) {
    std::unique_lock lock(mutex_);
    return flushed_.wait_for(lock, at_most, [&] { return flushes_ != seen; });
  }

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    write_(std::string_view(message.payload.data(), message.payload.size()));
  }
  void flush_() override {
    ++flushes_;
    flushed_.notify_all();
  }

 private:
  std::function<void(std::string_view)> write_;
  std::uint64_t flushes_ = 0;  // guarded by mutex_, which the base holds when it calls the above
  std::condition_variable flushed_;
};

struct Repeat {
  Clock::time_point written;
  std::uint64_t left_out = 0;
  Level level;
  std::string message;
  std::vector<std::pair<Key, std::string>> about;
};

// With the message these tell whether two lines say the same.
constexpr std::array<std::string_view, 5> kAbout{"reason", "namespace", "job", "backend", "option"};

// What an Output installs.
struct State {
  Options options;
  bool pretty = true;
  bool colour = false;
  std::shared_ptr<LineSink> sink;
  std::shared_ptr<spdlog::async_logger> logger;
  std::shared_ptr<spdlog::details::thread_pool> pool;  // one thread; goes first, having written what was waiting

  std::mutex mutex;
  std::map<std::string, Repeat> repeats;  // guarded by mutex, as are the following
  Clock::time_point swept{};
  std::size_t dropped = 0;  // lines, as far as was told

  Clock::time_point now() const { return options.now ? options.now() : Clock::now(); }
  void emit(const Line& line);
  void emit_left_out(const Repeat& repeat);
  void write(Line line);
  void sweep(Clock::time_point at, bool all);
};

void State::emit(const Line& line) {
  fmt::memory_buffer out;
  if (pretty) {
    format_pretty(out, line, std::chrono::system_clock::now(), colour);
  } else {
    format_json(out, line, std::chrono::system_clock::now());
  }
  logger->log(spdlog::level::info, spdlog::string_view_t(out.data(), out.size()));
}

void State::emit_left_out(const Repeat& repeat) {
  std::vector<Field> fields;
  for (const auto& [key, value] : repeat.about) fields.emplace_back(key, value);
  emit({repeat.level, repeat.message, fields, repeat.left_out});
}

// Says what was left out of lines that have not come again, and forgets them.
void State::sweep(Clock::time_point at, bool all) {
  swept = at;
  std::erase_if(repeats, [&](const auto& entry) {
    if (!all && at - entry.second.written < options.repeat_after) return false;
    if (entry.second.left_out != 0) emit_left_out(entry.second);
    return true;
  });
}

void State::write(Line line) {
  std::vector<std::pair<Key, std::string>> about;
  std::string key(line.message);
  bool has_reason = false;
  for_each_field(line, [&](Key name, const Field::Value& value) {
    const auto* text = std::get_if<std::string_view>(&value);
    if (text == nullptr || std::ranges::find(kAbout, name.name()) == kAbout.end()) return;
    has_reason = has_reason || name.name() == "reason";
    about.emplace_back(name, *text);
    key.append(1, '\x1f').append(name.name()).append(1, '\x1f').append(*text);
  });
  const std::lock_guard lock(mutex);
  const auto at = now();
  if (options.repeat_after.count() > 0) {
    if (line.level >= Level::warn || has_reason) {
      const auto found = repeats.find(key);
      if (found != repeats.end() && at - found->second.written < options.repeat_after) {
        ++found->second.left_out;
        return;
      }
      if (found != repeats.end()) {
        line.repeated = std::exchange(found->second.left_out, 0);
        found->second.written = at;
      } else {
        if (repeats.size() >= kRepeats) sweep(at, false);
        // With too many different lines at once, the further ones are all written.
        if (repeats.size() < kRepeats) {
          repeats.emplace(std::move(key), Repeat{at, 0, line.level, std::string(line.message), std::move(about)});
        }
      }
    }
    if (at - swept >= std::chrono::seconds(1)) sweep(at, false);
  }
  emit(line);
  const std::size_t overrun = pool->overrun_counter();
  if (overrun > dropped && pool->queue_size() < kQueue / 2) {
    const std::array fields{Field("count", overrun - dropped)};
    dropped = overrun;
    emit({Level::warn, "log lines were dropped: the output is too slow", fields});
  }
}

std::shared_mutex current_mutex;  // shared by those who write a line
std::unique_ptr<State> current;   // guarded by current_mutex; null: no Output

}  // namespace

std::optional<Level> parse_level(std::string_view text) noexcept {
  for (const Level l : {Level::trace, Level::debug, Level::info, Level::warn, Level::error, Level::off}) {
    if (name_of(l) == text) return l;
  }
  return std::nullopt;
}

void detail::write(Level l, std::string_view message, Fields fields, const Context* context) noexcept {
  if (l >= Level::off) return;
  try {
    Line line{l, message, {fields.begin(), fields.size()}};
    std::string trace_id;
    if (context != nullptr) {
      const auto named = [](const Field& field) { return field.key.name() == "namespace"; };
      if (std::ranges::none_of(fields, named)) line.name_space = context->namespace_name();
      trace_id = context->trace().trace_id_text();
      line.trace_id = trace_id;
    }
    const std::shared_lock lock(current_mutex);
    if (current != nullptr) {
      current->write(line);
      return;
    }
    const bool terminal = ::isatty(STDERR_FILENO) != 0;
    fmt::memory_buffer out;
    if (terminal) {
      format_pretty(out, line, std::chrono::system_clock::now(), true);
    } else {
      format_json(out, line, std::chrono::system_clock::now());
    }
    write_to_stderr(std::string_view(out.data(), out.size()));
  } catch (...) {  // NOLINT(bugprone-empty-catch): the line is lost, whoever logs goes on
  }
}

Output::Output(Options options) {
  auto state = std::make_unique<State>();
  const bool terminal = !options.sink && ::isatty(STDERR_FILENO) != 0;
  state->pretty = options.format == Format::pretty || (options.format == Format::automatic && terminal);
  state->colour = terminal;
  state->sink = std::make_shared<LineSink>(options.sink ? options.sink : write_to_stderr);
  state->options = std::move(options);
  state->pool = std::make_shared<spdlog::details::thread_pool>(kQueue, 1);
  state->logger = std::make_shared<spdlog::async_logger>("prism", state->sink, state->pool,
                                                         spdlog::async_overflow_policy::overrun_oldest);
  state->logger->set_level(spdlog::level::trace);
  state->logger->set_error_handler([](const std::string&) {});
  detail::level.store(state->options.level, std::memory_order_relaxed);
  const std::unique_lock lock(current_mutex);
  current = std::move(state);
}

Output::~Output() {
  std::unique_ptr<State> state;
  {
    const std::unique_lock lock(current_mutex);
    state = std::move(current);
  }
  detail::level.store(Level::info, std::memory_order_relaxed);
  if (state == nullptr) return;
  const std::lock_guard lock(state->mutex);
  state->sweep(state->now(), true);
}

void Output::flush() noexcept {
  const std::shared_lock lock(current_mutex);
  if (current == nullptr) return;
  const std::uint64_t seen = current->sink->flushes();
  // The request waits in the same queue as the lines and may be dropped like them.
  do {
    current->logger->flush();
  } while (!current->sink->wait_flushed(seen, std::chrono::milliseconds(200)));
}

}  // namespace prism::log
