// Waits between tries: each about twice the one before, with jitter, so that many clients of one server that comes back
// do not come at the same moment.
#pragma once

#include <chrono>
#include <cstdint>
#include <random>

#include "base/types.h"

namespace prism {

// Not thread-safe.
class Backoff {
 public:
  // The first wait is at most `initial`, none is longer than `max`. Both above 0.
  Backoff(std::chrono::milliseconds initial, std::chrono::milliseconds max);
  Backoff(std::chrono::milliseconds initial, std::chrono::milliseconds max, std::uint32_t seed);  // for tests

  // Between a half and the whole of the present bound, which then doubles. Never 0.
  Clock::duration next();
  void reset() noexcept;                                   // after a success
  std::uint32_t tries() const noexcept { return tries_; }  // calls of next() since then

 private:
  std::chrono::nanoseconds initial_, max_, bound_;
  std::uint32_t tries_ = 0;
  std::minstd_rand random_;
};

}  // namespace prism
