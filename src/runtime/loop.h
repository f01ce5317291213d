// EventLoop: one thread that resumes coroutines and runs timers and sockets (Asio). OffloadPool: threads for what
// blocks.
#pragma once

#include <array>
#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <coroutine>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include "base/measures.h"
#include "base/types.h"
#include "runtime/context.h"
#include "runtime/one_shot.h"
#include "runtime/stall.h"
#include "runtime/task.h"

namespace prism {

class ByteBudget;

class EventLoop {
 public:
  explicit EventLoop(std::string name);
  ~EventLoop();  // stops and joins the thread; what was posted before is still run
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  asio::io_context& io() noexcept { return io_; }
  bool on_this_thread() const noexcept { return std::this_thread::get_id() == thread_.get_id(); }
  // Any thread. The loop is woken once, however many handles it is given before it drains.
  void post(std::coroutine_handle<> handle) { post(std::span(&handle, 1)); }
  void post(std::span<const std::coroutine_handle<>> handles);

  const std::string& name() const noexcept { return name_; }
  const Histogram& lag() const noexcept { return lag_; }  // seconds from the wake-up to its turn

 private:
  void drain();

  std::string name_;
  asio::io_context io_{1};
  std::optional<asio::executor_work_guard<asio::io_context::executor_type>> work_;
  std::mutex mutex_;
  std::vector<std::coroutine_handle<>> inbox_;  // guarded by mutex_
  Clock::time_point woken_{};                   // when the inbox got its first handle; guarded by mutex_
  Histogram lag_{Histogram::seconds()};
  std::vector<std::coroutine_handle<>> draining_;  // loop thread only
  std::thread thread_;
};

// A fixed number of threads for blocking calls (files, DNS, SQLite readers) and for CPU work over 64 KiB. FIFO.
class OffloadPool {
 public:
  OffloadPool(std::string name, std::size_t threads);
  ~OffloadPool();  // runs what was submitted, then joins
  OffloadPool(const OffloadPool&) = delete;
  OffloadPool& operator=(const OffloadPool&) = delete;

  void submit(std::move_only_function<void()> work);

  const std::string& name() const noexcept { return name_; }
  std::size_t threads() const noexcept { return threads_.size(); }
  std::size_t queued() const;                                 // calls that wait for a thread
  std::size_t busy() const;                                   // threads at work
  const Histogram& waits() const noexcept { return waits_; }  // seconds that calls have waited for a thread

 private:
  struct Item {
    std::move_only_function<void()> work;
    Clock::time_point since;
  };
  void work();

  const std::string name_;
  mutable std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<Item> queue_;  // guarded by mutex_
  std::size_t busy_ = 0;    // guarded by mutex_
  bool stopping_ = false;   // guarded by mutex_
  Histogram waits_{Histogram::seconds()};
  std::vector<std::thread> threads_;
};

// The loops and pools of one process, made first and destroyed last.
class Runtime {
 public:
  struct Options {
    std::size_t loops = 0;                  // 0: clamp(cores / 2, 1, 8)
    std::size_t file_threads = 4;           // blocking file calls, SQLite readers
    std::size_t cpu_threads = 0;            // 0: clamp(cores / 2, 1, 8)
    std::size_t budget_bytes = 48UL << 20;  // payloads in flight of all streams together
  };
  Runtime() : Runtime(Options()) {}
  explicit Runtime(Options options);
  ~Runtime();

  EventLoop& next_loop() noexcept;  // round robin; a backend's client takes one and keeps it
  OffloadPool& files() noexcept { return *files_; }
  OffloadPool& cpu() noexcept { return *cpu_; }
  StallDetector& stalls() noexcept { return stalls_; }
  const std::vector<std::unique_ptr<EventLoop>>& loops() const noexcept { return loops_; }
  const std::shared_ptr<ByteBudget>& budget() const noexcept { return budget_; }

 private:
  StallDetector stalls_;
  std::vector<std::unique_ptr<EventLoop>> loops_;
  std::atomic<std::size_t> next_{0};
  std::unique_ptr<OffloadPool> files_;
  std::unique_ptr<OffloadPool> cpu_;
  std::shared_ptr<ByteBudget> budget_;
};

// Runs `work` on the pool and resumes on the loop with its result. The work always runs to its end and the caller
// always waits for it: whatever it refers to may live in the caller's frame.
template <class F>
auto offload(OffloadPool& pool, EventLoop& loop, F work) -> Task<std::invoke_result_t<F&>> {
  using T = std::invoke_result_t<F&>;
  OneShot<T> shot(&loop);
  pool.submit([&shot, &work] {
    if constexpr (std::is_void_v<T>) {
      work();
      resume_on_loop(shot.complete());
    } else {
      resume_on_loop(shot.complete(work()));
    }
  });
  co_await shot.wait({});
  if constexpr (!std::is_void_v<T>) co_return shot.take();
}

// Sleeps until the time has passed or the context is stopped (or its deadline comes); resumes on the loop.
// True: the time has passed. False: stopped.
Task<bool> sleep_for(EventLoop& loop, Context context, Clock::duration time);

// Moves the coroutine to the loop's thread (`co_await resume_on(loop)`).
inline auto resume_on(EventLoop& loop) {
  struct Awaiter {
    EventLoop& loop;
    bool await_ready() const noexcept { return loop.on_this_thread(); }
    void await_suspend(std::coroutine_handle<> handle) const { loop.post(handle); }
    void await_resume() const noexcept {}
  };
  return Awaiter{loop};
}

// A counter that coroutines wait for: "something new has come". Any thread may notify.
class Notifier {
 public:
  explicit Notifier(EventLoop& loop) noexcept : loop_(loop) {}
  std::uint64_t version() const noexcept { return version_.load(std::memory_order_acquire); }
  void notify();
  void notify_into(CompletionBatch& batch);
  // Returns when version() != seen, when the time is over, or when the context is stopped, with the present version.
  Task<std::uint64_t> wait(Context context, std::uint64_t seen, Clock::duration at_most);

 private:
  EventLoop& loop_;
  std::atomic<std::uint64_t> version_{0};
  std::mutex mutex_;
  std::vector<std::shared_ptr<OneShot<void>>> waiters_;  // guarded by mutex_
};

}  // namespace prism
