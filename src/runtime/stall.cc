#include "runtime/stall.h"

#include <pthread.h>

namespace prism {
namespace {
std::atomic<std::uint64_t> generations{1};
thread_local std::string this_thread_name = "unnamed";
struct Cached {
  std::uint64_t generation = 0;
  void* slot = nullptr;
};
thread_local Cached cached;
}  // namespace

StallDetector::StallDetector(Options options)
    : options_(std::move(options)), generation_(generations.fetch_add(1)), watcher_([this] { watch(); }) {}

StallDetector::~StallDetector() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  watcher_.join();
}

void StallDetector::name_thread(std::string name) {
  pthread_setname_np(pthread_self(), name.substr(0, 15).c_str());
  this_thread_name = std::move(name);
}

StallDetector::Slot* StallDetector::slot_of_this_thread() noexcept {
  // A detector's generation is never re-used, so a cached slot cannot belong to a detector that is gone.
  if (cached.generation == generation_) return static_cast<Slot*>(cached.slot);
  Slot* found = nullptr;
  {
    const std::lock_guard lock(mutex_);
    for (auto& slot : slots_) {
      if (slot.taken.load(std::memory_order_relaxed)) continue;
      slot.name = this_thread_name;
      slot.taken.store(true, std::memory_order_release);
      found = &slot;
      break;
    }
  }
  cached = {generation_, found};  // with more threads than slots the later ones are not watched
  return found;
}

StallDetector::Stretch::Stretch(StallDetector& detector) noexcept {
  Slot* const slot = detector.slot_of_this_thread();
  slot_ = slot;
  if (slot == nullptr) return;
  const int depth = slot->depth.load(std::memory_order_relaxed);
  slot->depth.store(depth + 1, std::memory_order_relaxed);
  if (depth == 0) {
    slot->entered_ticks.store(detector.now_ticks_.load(std::memory_order_relaxed), std::memory_order_release);
  }
}

StallDetector::Stretch::~Stretch() {
  auto* const slot = static_cast<Slot*>(slot_);
  if (slot == nullptr) return;
  const int depth = slot->depth.load(std::memory_order_relaxed) - 1;
  slot->depth.store(depth, std::memory_order_relaxed);
  if (depth == 0) slot->entered_ticks.store(0, std::memory_order_release);
}

void StallDetector::watch() {
  name_thread("stall-watch");
  const auto limit = options_.limit / options_.period;  // in ticks
  std::unique_lock lock(mutex_);
  while (!wake_.wait_for(lock, options_.period, [this] { return stopping_; })) {
    const std::int64_t now = now_ticks_.fetch_add(1, std::memory_order_relaxed) + 1;
    for (auto& slot : slots_) {
      if (!slot.taken.load(std::memory_order_acquire)) continue;
      const std::int64_t entered = slot.entered_ticks.load(std::memory_order_acquire);
      if (entered == 0 || now - entered <= limit) continue;
      // Two stretches that begin in one tick look like one: a thread that works without a pause for the whole limit.
      if (slot.reported_ticks.exchange(entered, std::memory_order_relaxed) == entered) continue;
      stalls_.fetch_add(1, std::memory_order_relaxed);
      if (options_.report) options_.report(slot.name, (now - entered) * options_.period);
    }
  }
}

}  // namespace prism
