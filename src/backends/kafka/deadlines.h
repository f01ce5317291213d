// Lets waiters go whose time is over, from a thread that looks now and then.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>

#include "base/types.h"
#include "runtime/one_shot.h"

namespace prism::kafka {

// Thread-safe.
class Deadlines {
 public:
  void add(Clock::time_point at, std::weak_ptr<OneShot<void>> shot) {
    if (at == Clock::time_point::max()) return;
    const std::lock_guard lock(mutex_);
    waiting_.emplace(at, std::move(shot));
  }
  void expire(Clock::time_point now, CompletionBatch& batch) {
    const std::lock_guard lock(mutex_);
    while (!waiting_.empty() && (waiting_.begin()->first <= now || waiting_.begin()->second.expired())) {
      if (const auto shot = waiting_.begin()->second.lock()) batch.add(shot->release());
      waiting_.erase(waiting_.begin());
    }
  }
  Clock::time_point next(Clock::time_point at_most) {
    const std::lock_guard lock(mutex_);
    return waiting_.empty() ? at_most : std::min(at_most, waiting_.begin()->first);
  }

 private:
  std::mutex mutex_;
  std::multimap<Clock::time_point, std::weak_ptr<OneShot<void>>> waiting_;  // guarded by mutex_
};

}  // namespace prism::kafka
