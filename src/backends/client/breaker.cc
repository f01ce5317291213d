#include "backends/client/breaker.h"

#include <algorithm>

namespace prism::client {

Breaker::Breaker(BreakerOptions options, std::function<Clock::time_point()> now)
    : options_(options), now_(std::move(now)), pause_(options.pause, options.max_pause) {}

Result<void> Breaker::admit() {
  const auto now = now_();
  const std::lock_guard lock(mutex_);
  if (state_ == State::closed) return {};
  if (now >= next_try_) {
    state_ = State::half_open;
    next_try_ = now + options_.max_pause;
    return {};
  }
  Error refused = *last_error_;
  if (!needs_operator(refused)) refused.retry = Retry::safe;
  refused.retry_after =
      std::max(std::chrono::ceil<std::chrono::milliseconds>(next_try_ - now), std::chrono::milliseconds(1));
  return fail(std::move(refused));
}

void Breaker::succeeded() {
  const std::lock_guard lock(mutex_);
  state_ = State::closed;
  failures_ = 0;
  pause_.reset();
  last_error_.reset();
}

void Breaker::failed(const Error& error) {
  if (!is_outage(error)) {
    if (error.code != Code::cancelled && error.code != Code::deadline_exceeded &&
        error.code != Code::resource_exhausted)
      succeeded();
    return;
  }
  const auto now = now_();
  const std::lock_guard lock(mutex_);
  last_error_ = error;
  ++failures_;
  // Late answers of operations that were let through before it opened do not prolong the pause.
  if (state_ == State::open) return;
  if (state_ == State::half_open || needs_operator(error) || failures_ >= options_.failures) open(now);
}

void Breaker::open(Clock::time_point now) {
  state_ = State::open;
  next_try_ = now + pause_.next();
}

Breaker::State Breaker::state() const {
  const std::lock_guard lock(mutex_);
  return state_;
}

std::optional<Error> Breaker::last_error() const {
  const std::lock_guard lock(mutex_);
  return last_error_;
}

Clock::duration Breaker::until_next_try() const {
  const auto now = now_();
  const std::lock_guard lock(mutex_);
  return state_ == State::closed || now >= next_try_ ? Clock::duration::zero() : next_try_ - now;
}

std::string_view to_string(Breaker::State state) noexcept {
  switch (state) {
    case Breaker::State::closed:
      return "closed";
    case Breaker::State::open:
      return "open";
    case Breaker::State::half_open:
      return "half_open";
  }
  return "closed";
}

}  // namespace prism::client
