#include "runtime/scope.h"

#include <cstdio>
#include <cstdlib>

namespace prism {

struct Scope::Detached {
  struct promise_type {
    Detached get_return_object() noexcept { return {}; }
    std::suspend_never initial_suspend() const noexcept { return {}; }
    // The frame goes first: when the scope is told that the task ended, nothing of it is left.
    struct Final {
      bool await_ready() const noexcept { return false; }
      void await_suspend(std::coroutine_handle<promise_type> self) const noexcept {
        Scope* const scope = self.promise().scope;
        self.destroy();
        scope->finished();
      }
      void await_resume() const noexcept {}
    };
    Final final_suspend() const noexcept { return {}; }
    void unhandled_exception() noexcept { std::terminate(); }
    void return_void() const noexcept {}
    explicit promise_type(Scope* s, Task<void>& /*task*/) noexcept : scope(s) {}
    Scope* scope;
  };
};

Scope::Detached Scope::run(Scope* /*scope*/, Task<void> task) { co_await std::move(task); }

Scope::~Scope() {
  // The last finished() may still hold the mutex for an instant after its joiner was resumed.
  const std::lock_guard lock(mutex_);
  if (running_.load(std::memory_order_acquire) != 0) {
    std::fputs("prism: a Scope was destroyed before its tasks were joined\n", stderr);
    std::abort();
  }
}

void Scope::spawn(Task<void> task) {
  running_.fetch_add(1, std::memory_order_relaxed);
  run(this, std::move(task));
}

void Scope::finished() noexcept {
  std::vector<std::shared_ptr<OneShot<void>>> joiners;
  {
    const std::lock_guard lock(mutex_);
    if (running_.fetch_sub(1, std::memory_order_acq_rel) == 1) joiners.swap(joiners_);
  }
  for (auto& joiner : joiners) resume_on_loop(joiner->complete());
}

Task<void> Scope::join() {
  while (true) {
    auto shot = std::make_shared<OneShot<void>>(nullptr);
    {
      const std::lock_guard lock(mutex_);
      if (running_.load(std::memory_order_acquire) == 0) co_return;
      joiners_.push_back(shot);
    }
    co_await shot->wait({});
  }
}

void Scope::join_blocking() { run_blocking(join()); }

}  // namespace prism
