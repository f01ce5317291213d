// Threads that end by themselves, and one who waits for all of them at the end.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

namespace prism::kafka {

// Thread-safe. Each librdkafka client is served by a thread that also destroys it, which takes a while; nobody waits
// for that but the log when it closes.
class Threads : public std::enable_shared_from_this<Threads> {
 public:
  void start(std::move_only_function<void()> work) {
    {
      const std::lock_guard lock(mutex_);
      ++running_;
    }
    std::thread([self = shared_from_this(), work = std::move(work)]() mutable {
      work();
      work = nullptr;  // what it held goes first
      const std::lock_guard lock(self->mutex_);
      --self->running_;
      self->ended_.notify_all();
    }).detach();
  }
  // For those that nobody else tells to end: they look now and then.
  void stop() noexcept { stopping_.store(true); }
  bool stopping() const noexcept { return stopping_.load(); }
  void join() {  // blocks
    std::unique_lock lock(mutex_);
    ended_.wait(lock, [&] { return running_ == 0; });
  }

 private:
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;
  std::condition_variable ended_;
  std::size_t running_ = 0;  // guarded by mutex_
};

}  // namespace prism::kafka
