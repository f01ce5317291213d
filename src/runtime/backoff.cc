#include "runtime/backoff.h"

#include <algorithm>

namespace prism {

Backoff::Backoff(std::chrono::milliseconds initial, std::chrono::milliseconds max)
    : Backoff(initial, max, std::random_device()()) {}

Backoff::Backoff(std::chrono::milliseconds initial, std::chrono::milliseconds max, std::uint32_t seed)
    : initial_(std::max<std::chrono::nanoseconds>(initial, std::chrono::milliseconds(1))),
      max_(std::max<std::chrono::nanoseconds>(max, initial_)),
      bound_(initial_),
      random_(seed) {}

Clock::duration Backoff::next() {
  std::uniform_int_distribution<std::int64_t> within(bound_.count() / 2, bound_.count());
  const std::chrono::nanoseconds wait(within(random_));
  bound_ = bound_ > max_ / 2 ? max_ : bound_ * 2;
  ++tries_;
  return wait;
}

void Backoff::reset() noexcept {
  bound_ = initial_;
  tries_ = 0;
}

}  // namespace prism
