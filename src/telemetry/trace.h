// Traces (RFC-014, Distributed Tracing): spans of sampled requests, in OpenTelemetry's terms.
//
//   trace::Span span = trace::Span::begin(context, "OutboxPattern.process_publish", trace::Layer::pattern);
//   span.set("prism.pattern", "outbox");
//   auto done = co_await something(span.context(context));
//   if (!done) span.fail(done.error());
//
// Where the request is not sampled all of this is a test of one flag in the context. A span ends when it is destroyed
// or by end(); it is used by one coroutine at a time, on any thread. Names, keys and values must not be secrets nor
// hold payloads.
#pragma once

#include <chrono>
#include <concepts>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/error.h"
#include "runtime/context.h"

namespace prism::trace {

enum class Kind : std::uint8_t { internal, server, client, producer, consumer };

// What is left out when a namespace says `observability: {trace_patterns: false}`: patterns and their steps.
enum class Layer : std::uint8_t { request, pattern, backend };

using Value = std::variant<std::string, std::int64_t, double, bool>;
using Attributes = std::vector<std::pair<std::string_view, Value>>;  // keys are string literals

// A span that has ended.
struct Finished {
  TraceContext context;  // its own
  std::array<std::byte, 8> parent{};
  std::string name;
  Kind kind = Kind::internal;
  std::chrono::system_clock::time_point begun, ended;
  Attributes attributes;
  std::vector<TraceContext> links;
  bool failed = false;
  std::string error;  // for people; empty: none
};

// Takes finished spans; thread-safe, never blocks.
class Sink {
 public:
  virtual ~Sink() = default;
  virtual void take(Finished span) noexcept = 0;
};

enum class Sampling : std::uint8_t {
  ratio,         // by the trace id, whatever the caller says
  parent_based,  // the caller's decision where there is one, else by the ratio
};

struct Options {
  Sampling sampling = Sampling::parent_based;
  double ratio = 1;  // 0 to 1, of the traces that begin here
};

// Makes the process record spans as long as it lives (made by main or a test; one at a time). It must outlive every
// request and job; the sink outlives it.
class Tracer {
 public:
  Tracer(Options options, Sink& sink);
  ~Tracer();
  Tracer(const Tracer&) = delete;
  Tracer& operator=(const Tracer&) = delete;

 private:
  friend class Span;
  friend TraceContext begin_trace(const TraceContext*);
  friend bool recording(const TraceContext&) noexcept;
  bool samples(const TraceContext& trace) const noexcept;
  Options options_;
  std::uint64_t threshold_ = 0;
  Sink& sink_;
};

// The trace of a request that comes in: the caller's, or a new one (null); sampled and recorded as the Tracer decides.
// Without a Tracer nothing is recorded, the caller's context is passed on as it is, and no trace begins.
TraceContext begin_trace(const TraceContext* caller);

// Does this process record spans at all?
bool active() noexcept;

// Would a span below this context, found in a stored record, be recorded?
bool recording(const TraceContext& context) noexcept;

// A part of a request. Empty (and free) where the request is not recorded. Moves, is not copied.
class Span {
 public:
  Span() noexcept = default;
  ~Span() {
    if (state_) end();
  }
  Span(Span&&) noexcept = default;
  Span& operator=(Span&& other) noexcept {
    if (state_) end();
    state_ = std::move(other.state_);
    return *this;
  }

  // A child of the context's span. The name is a literal or lives as long as the call.
  static Span begin(const Context& context, std::string_view name, Layer layer, Kind kind = Kind::internal) {
    if (!context.trace().recorded) return {};
    if (layer == Layer::pattern && context.trace().requests_only) return {};
    return make(context.trace(), name, kind);
  }
  // A child of a context that came with a record.
  static Span resume(const TraceContext& parent, std::string_view name, Kind kind) {
    if (!recording(parent)) return {};
    return make(parent, name, kind);
  }

  explicit operator bool() const noexcept { return state_ != nullptr; }

  // Keys are literals.
  template <class T>
  void set(std::string_view key, T&& value) {
    if (state_) state_->attributes.emplace_back(key, value_of(std::forward<T>(value)));
  }
  void link(const TraceContext& other) {
    if (state_ && other.valid()) state_->links.push_back(other);
  }
  // What happens inside is recorded without the spans of patterns.
  void leave_out_patterns() noexcept {
    if (state_) state_->context.requests_only = true;
  }
  // Marks the span as failed with the error's reason; what is asked of it later is kept.
  void fail(const Error& error);
  void fail(std::string_view reason, std::string_view message);

  // The context for what happens inside the span; the same one where there is no span.
  Context context(const Context& outer) const { return state_ ? outer.with_trace(state_->context) : outer; }
  // Of this span; without a span the other one.
  const TraceContext& trace_or(const TraceContext& other) const noexcept { return state_ ? state_->context : other; }

  void end();
  void end_at(Clock::time_point when);    // for steps that a backend has measured
  void begin_at(Clock::time_point when);  // likewise

 private:
  template <class T>
  static Value value_of(T&& value) {
    using D = std::remove_cvref_t<T>;
    if constexpr (std::same_as<D, bool>) {
      return value;
    } else if constexpr (std::integral<D>) {
      return static_cast<std::int64_t>(value);
    } else if constexpr (std::floating_point<D>) {
      return static_cast<double>(value);
    } else {
      return std::string(std::forward<T>(value));
    }
  }
  struct State : Finished {
    Clock::time_point steady;  // of the begin
  };
  static Span make(const TraceContext& parent, std::string_view name, Kind kind);
  std::unique_ptr<State> state_;
};

}  // namespace prism::trace
