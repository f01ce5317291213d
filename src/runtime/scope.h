// Scope: owns running tasks, asks them to stop and joins them. Every task that is not awaited belongs to one.
#pragma once

#include <atomic>
#include <cstdint>
#include <stop_token>
#include <vector>

#include "runtime/one_shot.h"
#include "runtime/task.h"

namespace prism {

// Thread-safe. Must be joined (join or join_blocking) before it is destroyed: the destructor aborts otherwise, since a
// destructor cannot wait. An exception that leaves a spawned task ends the program: tasks report errors as Result.
class Scope {
 public:
  Scope() = default;
  ~Scope();
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

  // Starts the task at once, on this thread, until its first suspension.
  void spawn(Task<void> task);
  std::stop_token stop_token() const noexcept { return stop_.get_token(); }
  void request_stop() noexcept { stop_.request_stop(); }
  // Completes when every task has ended; tasks spawned meanwhile are waited for too. Does not request the stop.
  Task<void> join();
  void join_blocking();  // for threads that are no loop; waits
  std::size_t running() const noexcept { return running_.load(std::memory_order_relaxed); }

 private:
  struct Detached;
  static Detached run(Scope* scope, Task<void> task);
  void finished() noexcept;

  std::stop_source stop_;
  std::atomic<std::size_t> running_{0};
  std::mutex mutex_;
  std::vector<std::shared_ptr<OneShot<void>>> joiners_;  // guarded by mutex_
};

// Runs the tasks side by side and gives their results in order. Each starts on this thread.
template <class T>
Task<std::vector<T>> when_all(std::vector<Task<T>> tasks);

// Runs a task to its end on a thread that is no loop (main, tests), blocking it.
template <class T>
T run_blocking(Task<T> task);

}  // namespace prism

#include "runtime/scope_inl.h"
