// Breaker: leaves a server alone that does not answer. Operations are then refused at once, with the server's last
// error and the time until the next try, instead of each waiting for its own time-out; one is let through now and then.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string_view>

#include "backends/client/backoff.h"
#include "backends/client/errors.h"
#include "backends/client/options.h"
#include "base/types.h"

namespace prism::client {

// Thread-safe.
class Breaker {
 public:
  enum class State : std::uint8_t {
    closed,     // operations go through
    open,       // they are refused until the pause is over
    half_open,  // one of them is trying
  };
  explicit Breaker(BreakerOptions options = {}, std::function<Clock::time_point()> now = Clock::now);

  // Before an operation, or an attempt to connect. The error is the last one, with retry_after; where that error leaves
  // hope without an operator, retry is safe: nothing was sent. Who is let through says how it went by one of the
  // others; a try of which nothing is heard for the longest pause makes room for the next one.
  Result<void> admit();
  void succeeded();
  // Counts errors that is_outage() holds for (those that need an operator open it at once); others say that the server
  // answers, but for CANCELLED and DEADLINE_EXCEEDED of a request itself, which say nothing of it.
  void failed(const Error& error);
  template <class T>
  void done(const Result<T>& result) {
    if (result) {
      succeeded();
    } else {
      failed(result.error());
    }
  }

  State state() const;
  std::optional<Error> last_error() const;  // since the last success
  Clock::duration until_next_try() const;   // 0: operations are let through

 private:
  void open(Clock::time_point now);  // mutex_ held

  const BreakerOptions options_;
  const std::function<Clock::time_point()> now_;
  mutable std::mutex mutex_;
  // All guarded by mutex_.
  State state_ = State::closed;
  std::uint32_t failures_ = 0;  // in a row
  Clock::time_point next_try_{};
  Backoff pause_;
  std::optional<Error> last_error_;
};

std::string_view to_string(Breaker::State) noexcept;  // "closed", "open", "half_open"

}  // namespace prism::client
