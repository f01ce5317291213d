// OneShot<T>: one value from any thread to one waiting coroutine, which is resumed on a loop.
//
// This is the only bridge between foreign threads (SQLite's writer, offload pools, a vendor's callbacks) and
// coroutines: the foreign thread completes, the loop resumes. A waiter whose context is stopped is released at once;
// the operation itself goes on and its late completion is dropped here.
#pragma once

#include <atomic>
#include <condition_variable>
#include <coroutine>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <stop_token>
#include <type_traits>
#include <utility>
#include <vector>

namespace prism {

class EventLoop;

// Where a suspended coroutine is to be resumed. With no loop, the completing thread resumes it (blocking waits in tests
// and main).
struct Resumption {
  EventLoop* loop = nullptr;
  std::coroutine_handle<> handle;
};

// Collects resumptions and wakes each loop once.
class CompletionBatch {
 public:
  CompletionBatch() = default;
  CompletionBatch(const CompletionBatch&) = delete;
  CompletionBatch& operator=(const CompletionBatch&) = delete;
  ~CompletionBatch() { flush(); }
  void add(Resumption r) {
    if (r.handle) ready_.push_back(r);
  }
  void flush();

 private:
  std::vector<Resumption> ready_;
};

void resume_on_loop(Resumption r);

enum class Outcome : std::uint8_t {
  done,
  cancelled,  // the waiter was released before the operation was begun; it will not be
  abandoned,  // the waiter was released after the operation was begun; its outcome is unknown to the waiter
};

template <class T>
class OneShot {
  using Stored = std::conditional_t<std::is_void_v<T>, bool, T>;

 public:
  explicit OneShot(EventLoop* loop) noexcept : loop_(loop) {}
  OneShot(const OneShot&) = delete;
  OneShot& operator=(const OneShot&) = delete;

  // --- completing side, any thread ---
  // Marks the operation as begun. False: the waiter is gone and the operation must not be begun.
  bool begin() noexcept { return (bits_.fetch_or(kBegun, std::memory_order_acq_rel) & kReleased) == 0; }

  // At most once; a OneShot<void> any number of times and from any threads, the first counts. The result says what to
  // resume (maybe nothing); hand it to a CompletionBatch or to resume_on_loop.
  template <class... A>
  [[nodiscard]] Resumption complete(A&&... value) {
    if constexpr (std::is_void_v<T>) {
      static_assert(sizeof...(A) == 0);
    } else {
      value_.emplace(std::forward<A>(value)...);
    }
    unsigned old = bits_.load(std::memory_order_acquire);
    do {
      if ((old & (kReleased | kDone)) != 0) return {};
    } while (!bits_.compare_exchange_weak(old, old | kDone, std::memory_order_acq_rel));
    return (old & kWaiting) != 0 ? Resumption{loop_, waiter_} : Resumption{};
  }

  // Releases the waiter without a value; a later complete() is dropped. Nothing happens when it is done already.
  [[nodiscard]] Resumption release() noexcept {
    unsigned old = bits_.load(std::memory_order_acquire);
    do {
      if ((old & (kReleased | kDone)) != 0) return {};
    } while (!bits_.compare_exchange_weak(old, old | kReleased | ((old & kBegun) != 0 ? kLate : 0U),
                                          std::memory_order_acq_rel));
    return (old & kWaiting) != 0 ? Resumption{loop_, waiter_} : Resumption{};
  }

  // --- waiting side, once ---
  // `co_await shot->wait(token)` gives an Outcome; on `done` take() gives the value. The caller keeps the OneShot
  // alive.
  auto wait(std::stop_token stop) noexcept { return Awaiter{this, std::move(stop), {}}; }

  auto take() {
    if constexpr (!std::is_void_v<T>) return std::move(*value_);
  }

 private:
  static constexpr unsigned kWaiting = 1;
  static constexpr unsigned kBegun = 2;
  static constexpr unsigned kDone = 4;
  static constexpr unsigned kReleased = 8;
  static constexpr unsigned kLate = 16;  // released after it had begun

  struct OnStop {
    OneShot* self;
    void operator()() const { resume_on_loop(self->release()); }
  };

  struct Awaiter {
    OneShot* self;
    std::stop_token stop;
    std::optional<std::stop_callback<OnStop>> on_stop;

    bool await_ready() const noexcept { return (self->bits_.load(std::memory_order_acquire) & kDone) != 0; }
    bool await_suspend(std::coroutine_handle<> handle) {
      self->waiter_ = handle;
      // Registered before the waiter is announced: from then on the frame may be resumed, and gone, at any moment.
      if (stop.stop_possible()) on_stop.emplace(std::move(stop), OnStop{self});
      unsigned old = self->bits_.load(std::memory_order_acquire);
      do {
        if ((old & (kDone | kReleased)) != 0) return false;
      } while (!self->bits_.compare_exchange_weak(old, old | kWaiting, std::memory_order_acq_rel));
      return true;
    }
    Outcome await_resume() noexcept {
      on_stop.reset();
      const unsigned bits = self->bits_.load(std::memory_order_acquire);
      if ((bits & kDone) != 0) return Outcome::done;
      return (bits & kLate) != 0 ? Outcome::abandoned : Outcome::cancelled;
    }
  };

  std::atomic<unsigned> bits_{0};
  EventLoop* loop_;
  std::coroutine_handle<> waiter_;
  std::optional<Stored> value_;
};

}  // namespace prism
