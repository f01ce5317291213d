#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>

#include "runtime/scope.h"

namespace prism {
namespace detail {

// Counts down and resumes one waiter, inline on the thread that brings it to zero.
struct Countdown {
  explicit Countdown(std::size_t n) : left(n + 1) {}
  std::atomic<std::size_t> left;
  std::coroutine_handle<> waiter;
  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> handle) noexcept {
    waiter = handle;
    return left.fetch_sub(1, std::memory_order_acq_rel) != 1;
  }
  void await_resume() const noexcept {}
};

struct Starter {
  struct promise_type {
    Starter get_return_object() noexcept { return {}; }
    std::suspend_never initial_suspend() const noexcept { return {}; }
    // Symmetric transfer to whoever waits for the countdown, after this frame is out of the way.
    struct Final {
      bool await_ready() const noexcept { return false; }
      std::coroutine_handle<> await_suspend(std::coroutine_handle<promise_type> self) const noexcept {
        Countdown* const shared = self.promise().countdown;
        self.destroy();
        if (shared->left.fetch_sub(1, std::memory_order_acq_rel) == 1) return shared->waiter;
        return std::noop_coroutine();
      }
      void await_resume() const noexcept {}
    };
    Final final_suspend() const noexcept { return {}; }
    void unhandled_exception() noexcept { std::terminate(); }
    void return_void() const noexcept {}
    template <class... A>
    explicit promise_type(Countdown* c, A&...) noexcept : countdown(c) {}
    Countdown* countdown;
  };
};

template <class T>
Starter run_into(Countdown* /*countdown*/, Task<T> task, std::optional<T>* out) {
  out->emplace(co_await std::move(task));
}

template <class T>
struct BlockingResult {
  std::mutex mutex;
  std::condition_variable ready;
  bool done = false;
  std::optional<std::conditional_t<std::is_void_v<T>, bool, T>> value;
  std::exception_ptr error;
};

struct Blocker {
  struct promise_type {
    Blocker get_return_object() noexcept { return {}; }
    std::suspend_never initial_suspend() const noexcept { return {}; }
    std::suspend_never final_suspend() const noexcept { return {}; }
    void unhandled_exception() noexcept { std::terminate(); }
    void return_void() const noexcept {}
  };
};

template <class T>
Blocker run_to_end(Task<T> task, std::shared_ptr<BlockingResult<T>> out) {
  try {
    if constexpr (std::is_void_v<T>) {
      co_await std::move(task);
      out->value = true;
    } else {
      out->value.emplace(co_await std::move(task));
    }
  } catch (...) {
    out->error = std::current_exception();
  }
  task = Task<T>();  // nothing of it is left when the caller goes on, and perhaps takes the runtime down
  const std::lock_guard lock(out->mutex);
  out->done = true;
  out->ready.notify_all();
}

}  // namespace detail

template <class T>
Task<std::vector<T>> when_all(std::vector<Task<T>> tasks) {
  std::vector<std::optional<T>> results(tasks.size());
  detail::Countdown countdown(tasks.size());
  for (std::size_t i = 0; i < tasks.size(); ++i) detail::run_into(&countdown, std::move(tasks[i]), &results[i]);
  co_await countdown;
  std::vector<T> out;
  out.reserve(results.size());
  for (auto& r : results) out.push_back(std::move(*r));
  co_return out;
}

template <class T>
T run_blocking(Task<T> task) {
  auto result = std::make_shared<detail::BlockingResult<T>>();
  detail::run_to_end(std::move(task), result);
  std::unique_lock lock(result->mutex);
  result->ready.wait(lock, [&] { return result->done; });
  if (result->error) std::rethrow_exception(result->error);
  if constexpr (!std::is_void_v<T>) return std::move(*result->value);
}

}  // namespace prism
