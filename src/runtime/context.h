// Context: what every request carries to every backend call.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/types.h"

namespace prism {

// Who asks. In open mode (no authentication) the name is "anonymous".
struct Principal {
  std::string name = "anonymous";
  std::vector<std::string> groups;
  std::vector<std::string> scopes;
};

// W3C Trace Context (https://www.w3.org/TR/trace-context/), level 1. All zero: none.
//
// A trace that begins here and is not sampled has an id (log lines tell it) and no span: there is nothing to pass on.
struct TraceContext {
  static constexpr std::size_t kMaxStateBytes = 512;  // a longer tracestate is left out

  std::array<std::byte, 16> trace_id{};
  std::array<std::byte, 8> span_id{};
  std::uint8_t flags = 0;      // bit 0: sampled
  bool recorded = false;       // this process records spans of it
  bool requests_only = false;  // and leaves out those of patterns
  std::string tracestate;      // as it came

  // Is there something to pass on to others?
  bool valid() const noexcept {
    return trace_id != std::array<std::byte, 16>{} && span_id != std::array<std::byte, 8>{};
  }
  bool sampled() const noexcept { return (flags & 1) != 0; }
  // None where the traceparent is not valid; a tracestate that is too long or no list of printable text is left out.
  static std::optional<TraceContext> parse(std::string_view traceparent, std::string_view tracestate = {});
  static TraceContext make_root();    // a new random trace id, not sampled, no span
  TraceContext child() const;         // same trace, new span id
  std::string traceparent() const;    // "00-<32 hex>-<16 hex>-<2 hex>"
  std::string trace_id_text() const;  // 32 hex digits; empty where there is no trace
};

// Time that the steps of one publish through a chain have taken, so that each step can tell its own from that of the
// steps below it (patterns/measured.h).
struct StepTimes {
  static constexpr std::size_t kSteps = 16;               // from the innermost; further out ones share the last
  std::array<std::atomic<std::int64_t>, kSteps> below{};  // nanoseconds that the step inside of this one has taken
};

// An immutable handle, one shared pointer: copying is cheap, it is always passed by value, and whatever it hands out by
// reference lives as long as any copy. Thread-safe.
class Context {
 public:
  struct State {
    Clock::time_point deadline = Clock::time_point::max();
    std::stop_token stop;
    std::shared_ptr<const Principal> principal;  // null: anonymous
    std::string namespace_name;
    std::string session;  // empty: none
    TraceContext trace;
    std::shared_ptr<StepTimes> steps;  // null: no request is being measured
  };

  Context();  // background work: no deadline, never stopped, anonymous
  explicit Context(State state) : state_(std::make_shared<const State>(std::move(state))) {}
  static Context background(std::stop_token stop, std::string namespace_name = {});

  Clock::time_point deadline() const noexcept { return state_->deadline; }
  // A stop callback runs on the stopping thread: it may only post to a loop.
  const std::stop_token& stop() const noexcept { return state_->stop; }
  bool stopped() const noexcept { return state_->stop.stop_requested() || Clock::now() >= state_->deadline; }
  const Principal& principal() const noexcept;
  std::string_view namespace_name() const noexcept { return state_->namespace_name; }
  std::string_view session() const noexcept { return state_->session; }
  const TraceContext& trace() const noexcept { return state_->trace; }
  StepTimes* steps() const noexcept { return state_->steps.get(); }  // null: not on behalf of a request

  Context with_deadline(Clock::time_point) const;  // the earlier of both
  Context with_timeout(Clock::duration d) const { return with_deadline(Clock::now() + d); }
  Context with_stop(std::stop_token) const;  // replaces the token
  Context in_namespace(std::string name) const;
  Context with_trace(TraceContext trace) const;
  Context measured() const;  // with steps of its own
  // Several changes for the price of one: `change` gets a State& to change.
  template <class F>
  Context changed(F&& change) const {
    State state = *state_;
    std::forward<F>(change)(state);
    return Context(std::move(state));
  }
  // For commit, abort and acknowledgement: ignores the stop; the deadline is now + grace.
  Context shielded(Clock::duration grace) const;

  // What an operation answers when its context is over: CANCELLED or DEADLINE_EXCEEDED; with unknown_outcome if it is a
  // write that had been handed to the backend.
  Error over(bool outcome_unknown) const;

 private:
  std::shared_ptr<const State> state_;
};

}  // namespace prism
