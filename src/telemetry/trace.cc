#include "telemetry/trace.h"

#include <algorithm>
#include <atomic>
#include <limits>

namespace prism::trace {
namespace {

std::atomic<Tracer*> current = nullptr;

using Wall = std::chrono::system_clock;

// What the wall clock is ahead of the steady one. It stays the same until one of them jumps, so that the spans of this
// process stand to one another as they were.
std::atomic<Wall::rep> ahead{0};

void look_at_clocks() {
  constexpr Wall::duration kJump = std::chrono::milliseconds(10);
  const auto now =
      Wall::now().time_since_epoch() - std::chrono::duration_cast<Wall::duration>(Clock::now().time_since_epoch());
  if (std::chrono::abs(now - Wall::duration(ahead.load(std::memory_order_relaxed))) > kJump)
    ahead.store(now.count(), std::memory_order_relaxed);
}

Wall::time_point wall_of(Clock::time_point when) {
  return Wall::time_point(std::chrono::duration_cast<Wall::duration>(when.time_since_epoch()) +
                          Wall::duration(ahead.load(std::memory_order_relaxed)));
}

}  // namespace

Tracer::Tracer(Options options, Sink& sink) : options_(options), sink_(sink) {
  constexpr auto most = std::numeric_limits<std::uint64_t>::max();
  threshold_ = options_.ratio >= 1 ? most : static_cast<std::uint64_t>(options_.ratio * static_cast<double>(most));
  current.store(this, std::memory_order_release);
}

Tracer::~Tracer() { current.store(nullptr, std::memory_order_release); }

// OpenTelemetry's TraceIdRatioBased: the last eight bytes of the id decide, so that all who use the same ratio agree.
bool Tracer::samples(const TraceContext& trace) const noexcept {
  if (options_.ratio <= 0) return false;
  std::uint64_t low = 0;
  for (std::size_t i = 8; i < 16; ++i) low = low << 8 | std::to_integer<std::uint64_t>(trace.trace_id[i]);
  return low <= threshold_;
}

TraceContext begin_trace(const TraceContext* caller) {
  const Tracer* const tracer = current.load(std::memory_order_acquire);
  if (tracer == nullptr) return caller != nullptr ? *caller : TraceContext();
  TraceContext trace = caller != nullptr ? *caller : TraceContext::make_root();
  const bool sampled = caller != nullptr && tracer->options_.sampling == Sampling::parent_based
                           ? caller->sampled()
                           : tracer->samples(trace);
  // Whoever takes a decision back is a participant of its own, also where no span says so.
  if (caller != nullptr && caller->sampled() && !sampled) trace = caller->child();
  trace.recorded = sampled;
  trace.flags = static_cast<std::uint8_t>(sampled ? trace.flags | 1 : trace.flags & ~1);
  return trace;
}

bool active() noexcept { return current.load(std::memory_order_relaxed) != nullptr; }

bool recording(const TraceContext& context) noexcept {
  const Tracer* const tracer = current.load(std::memory_order_acquire);
  return tracer != nullptr && context.valid() && context.sampled() &&
         (tracer->options_.sampling == Sampling::parent_based || tracer->samples(context));
}

Span Span::make(const TraceContext& parent, std::string_view name, Kind kind) {
  Span span;
  span.state_ = std::make_unique<State>();
  State& s = *span.state_;
  s.context = parent.child();
  s.context.flags |= 1;
  s.context.recorded = true;
  s.parent = parent.span_id;
  s.name = name;
  s.kind = kind;
  s.steady = Clock::now();
  look_at_clocks();
  return span;
}

void Span::fail(const Error& error) { fail(error.reason, error.message); }

void Span::fail(std::string_view reason, std::string_view message) {
  if (!state_) return;
  state_->failed = true;
  state_->error = message;
  set("error.type", std::string(reason));
}

void Span::end() { end_at(Clock::now()); }

void Span::begin_at(Clock::time_point when) {
  if (state_) state_->steady = when;
}

void Span::end_at(Clock::time_point when) {
  if (!state_) return;
  const auto state = std::exchange(state_, nullptr);
  state->begun = wall_of(state->steady);
  state->ended = wall_of(std::max(when, state->steady));
  // After the Tracer's end nothing is recorded: a request that outlived it is a mistake of the program.
  if (Tracer* const tracer = current.load(std::memory_order_acquire)) tracer->sink_.take(std::move(*state));
}

}  // namespace prism::trace
