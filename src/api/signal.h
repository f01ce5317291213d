// Signal: wakes one waiting coroutine; a set() before the wait is kept. The glue between the stages of a stream.
#pragma once

#include <atomic>
#include <coroutine>

#include "runtime/loop.h"

namespace prism::api {

// One waiter at a time, any number of setters; several set() before a wait() count as one. The setter must know that
// the Signal lives: stages of a stream set each other's signals and are joined together.
class Signal {
 public:
  Signal() = default;
  Signal(const Signal&) = delete;
  Signal& operator=(const Signal&) = delete;

  // Resumes the waiter on this thread before it returns.
  void set() noexcept {
    if (auto handle = take_waiter()) handle.resume();
  }
  // Resumes the waiter on the loop: for stop callbacks and other places that may not run requests.
  void post(EventLoop& loop) {
    if (auto handle = take_waiter()) loop.post(handle);
  }

  // `co_await signal.wait()` returns once it was set since the last wait returned.
  auto wait() noexcept {
    struct Awaiter {
      Signal& self;
      bool await_ready() const noexcept {
        void* expected = self.set_mark();
        return self.state_.compare_exchange_strong(expected, nullptr, std::memory_order_acq_rel);
      }
      bool await_suspend(std::coroutine_handle<> handle) const noexcept {
        void* expected = nullptr;
        if (self.state_.compare_exchange_strong(expected, handle.address(), std::memory_order_acq_rel)) return true;
        self.state_.store(nullptr, std::memory_order_release);  // it was set meanwhile
        return false;
      }
      void await_resume() const noexcept {}
    };
    return Awaiter{*this};
  }

 private:
  void* set_mark() noexcept { return &state_; }

  std::coroutine_handle<> take_waiter() noexcept {
    void* old = state_.load(std::memory_order_acquire);
    while (true) {
      if (old == set_mark()) return nullptr;
      if (state_.compare_exchange_weak(old, old == nullptr ? set_mark() : nullptr, std::memory_order_acq_rel)) {
        return old == nullptr ? nullptr : std::coroutine_handle<>::from_address(old);
      }
    }
  }

  std::atomic<void*> state_{nullptr};  // null: nothing; set_mark(): set; else the address of the waiter
};

}  // namespace prism::api
