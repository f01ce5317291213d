#include "runtime/context.h"

#include <algorithm>
#include <cstring>

#include "base/ids.h"

namespace prism {
namespace {

template <std::size_t N>
std::string hex(const std::array<std::byte, N>& bytes) {
  static constexpr char digits[] = "0123456789abcdef";
  std::string out;
  out.reserve(2 * N);
  for (const std::byte b : bytes) {
    out += digits[std::to_integer<unsigned>(b >> 4)];
    out += digits[std::to_integer<unsigned>(b & std::byte{0x0f})];
  }
  return out;
}

template <std::size_t N>
bool unhex(std::string_view text, std::array<std::byte, N>& out) {
  if (text.size() != 2 * N) return false;
  for (std::size_t i = 0; i < N; ++i) {
    unsigned value = 0;
    for (const char c : text.substr(2 * i, 2)) {
      // Upper case is not allowed by the specification.
      if (c >= '0' && c <= '9') {
        value = value * 16 + static_cast<unsigned>(c - '0');
      } else if (c >= 'a' && c <= 'f') {
        value = value * 16 + static_cast<unsigned>(c - 'a' + 10);
      } else {
        return false;
      }
    }
    out[i] = static_cast<std::byte>(value);
  }
  return true;
}

}  // namespace

std::optional<TraceContext> TraceContext::parse(std::string_view text, std::string_view state) {
  // version "-" trace-id "-" parent-id "-" flags; a later version may append fields.
  if (text.size() < 55 || text[2] != '-' || text[35] != '-' || text[52] != '-') return std::nullopt;
  if (text.substr(0, 2) == "ff" || (text.size() > 55 && (text.substr(0, 2) == "00" || text[55] != '-')))
    return std::nullopt;
  TraceContext t;
  std::array<std::byte, 1> version{};
  std::array<std::byte, 1> flags{};
  if (!unhex(text.substr(0, 2), version) || !unhex(text.substr(3, 32), t.trace_id) ||
      !unhex(text.substr(36, 16), t.span_id) || !unhex(text.substr(53, 2), flags)) {
    return std::nullopt;
  }
  t.flags = std::to_integer<std::uint8_t>(flags[0]);
  if (!t.valid()) return std::nullopt;
  // Whoever reads the members of the list judges them; what is passed on must be a header's value.
  const auto printable = [](char c) { return c >= ' ' && c <= '~'; };
  if (state.size() <= kMaxStateBytes && std::ranges::all_of(state, printable)) t.tracestate = state;
  return t;
}

TraceContext TraceContext::make_root() {
  TraceContext t;
  t.trace_id = random_id();
  return t;
}

TraceContext TraceContext::child() const {
  TraceContext t = *this;
  const Id128 id = random_id();
  std::memcpy(t.span_id.data(), id.data(), t.span_id.size());
  return t;
}

std::string TraceContext::trace_id_text() const {
  return trace_id == std::array<std::byte, 16>{} ? std::string() : hex(trace_id);
}

std::string TraceContext::traceparent() const {
  return "00-" + hex(trace_id) + "-" + hex(span_id) + "-" + hex(std::array{static_cast<std::byte>(flags)});
}

namespace {
const std::shared_ptr<const Context::State>& background_state() {
  static const auto state = std::make_shared<const Context::State>();
  return state;
}
}  // namespace

Context::Context() : state_(background_state()) {}

Context Context::background(std::stop_token stop, std::string namespace_name) {
  State s;
  s.stop = std::move(stop);
  s.namespace_name = std::move(namespace_name);
  return Context(std::move(s));
}

const Principal& Context::principal() const noexcept {
  static const Principal anonymous;
  return state_->principal ? *state_->principal : anonymous;
}

Context Context::with_deadline(Clock::time_point deadline) const {
  if (deadline >= state_->deadline) return *this;
  return changed([&](State& s) { s.deadline = deadline; });
}

Context Context::with_stop(std::stop_token stop) const {
  return changed([&](State& s) { s.stop = std::move(stop); });
}

Context Context::in_namespace(std::string name) const {
  return changed([&](State& s) { s.namespace_name = std::move(name); });
}

Context Context::measured() const {
  return changed([](State& s) { s.steps = std::make_shared<StepTimes>(); });
}

Context Context::with_trace(TraceContext trace) const {
  return changed([&](State& s) { s.trace = std::move(trace); });
}

Context Context::shielded(Clock::duration grace) const {
  return changed([&](State& s) {
    s.stop = {};
    s.deadline = Clock::now() + grace;
  });
}

Error Context::over(bool outcome_unknown) const {
  const bool late = Clock::now() >= state_->deadline;
  Error e;
  e.code = late ? Code::deadline_exceeded : Code::cancelled;
  e.reason = late ? "DEADLINE_EXCEEDED" : "CANCELLED";
  e.message =
      late ? "the deadline passed before the operation ended" : "the caller went away before the operation ended";
  if (outcome_unknown) e.message += "; it may have been carried out";
  e.retry = outcome_unknown ? Retry::unknown_outcome : Retry::safe;
  return e;
}

}  // namespace prism
