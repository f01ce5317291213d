#include "runtime/loop.h"

#include <algorithm>
#include <asio/executor_work_guard.hpp>
#include <asio/post.hpp>
#include <asio/steady_timer.hpp>

#include "runtime/byte_budget.h"

namespace prism {
namespace {
StallDetector* process_stalls = nullptr;  // the loops' detector; set by the Runtime that made them
std::size_t half_the_cores() { return std::clamp<std::size_t>(std::thread::hardware_concurrency() / 2, 1, 8); }
}  // namespace

void CompletionBatch::flush() {
  // Usually one loop: hand over runs of the same loop in one post.
  std::size_t i = 0;
  std::vector<std::coroutine_handle<>> run;
  while (i < ready_.size()) {
    EventLoop* const loop = ready_[i].loop;
    run.clear();
    for (; i < ready_.size() && ready_[i].loop == loop; ++i) run.push_back(ready_[i].handle);
    if (loop != nullptr) {
      loop->post(run);
    } else {
      for (auto handle : run) handle.resume();
    }
  }
  ready_.clear();
}

void resume_on_loop(Resumption r) {
  if (!r.handle) return;
  if (r.loop != nullptr) {
    r.loop->post(r.handle);
  } else {
    r.handle.resume();
  }
}

EventLoop::EventLoop(std::string name) : name_(std::move(name)) {
  work_.emplace(io_.get_executor());
  thread_ = std::thread([this] {
    StallDetector::name_thread(name_);
    io_.run();
  });
}

EventLoop::~EventLoop() {
  work_.reset();
  if (thread_.joinable()) thread_.join();
}

void EventLoop::post(std::span<const std::coroutine_handle<>> handles) {
  bool wake;
  {
    const std::lock_guard lock(mutex_);
    wake = inbox_.empty();
    if (wake) woken_ = Clock::now();
    inbox_.insert(inbox_.end(), handles.begin(), handles.end());
  }
  if (wake) asio::post(io_, [this] { drain(); });
}

void EventLoop::drain() {
  {
    const std::lock_guard lock(mutex_);
    draining_.swap(inbox_);
    lag_.observe(Clock::now() - woken_);
  }
  for (const auto handle : draining_) {
    if (process_stalls != nullptr) {
      const StallDetector::Stretch stretch(*process_stalls);
      handle.resume();
    } else {
      handle.resume();
    }
  }
  draining_.clear();
}

OffloadPool::OffloadPool(std::string name, std::size_t threads) : name_(std::move(name)) {
  for (std::size_t i = 0; i < threads; ++i) {
    threads_.emplace_back([this, i] {
      StallDetector::name_thread(name_ + "-" + std::to_string(i));
      work();
    });
  }
}

OffloadPool::~OffloadPool() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  ready_.notify_all();
  for (auto& thread : threads_) thread.join();
}

void OffloadPool::submit(std::move_only_function<void()> work) {
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back({std::move(work), Clock::now()});
  }
  ready_.notify_one();
}

void OffloadPool::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    ready_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
    if (queue_.empty()) return;
    Item item = std::move(queue_.front());
    queue_.pop_front();
    ++busy_;
    lock.unlock();
    waits_.observe(Clock::now() - item.since);
    item.work();
    item.work = nullptr;
    lock.lock();
    --busy_;
  }
}

std::size_t OffloadPool::queued() const {
  const std::lock_guard lock(mutex_);
  return queue_.size();
}

std::size_t OffloadPool::busy() const {
  const std::lock_guard lock(mutex_);
  return busy_;
}

Runtime::Runtime(Options options) {
  process_stalls = &stalls_;
  const std::size_t loops = options.loops != 0 ? options.loops : half_the_cores();
  for (std::size_t i = 0; i < loops; ++i) loops_.push_back(std::make_unique<EventLoop>("loop-" + std::to_string(i)));
  files_ = std::make_unique<OffloadPool>("files", options.file_threads);
  cpu_ = std::make_unique<OffloadPool>("cpu", options.cpu_threads != 0 ? options.cpu_threads : half_the_cores());
  budget_ = ByteBudget::make(*loops_.front(), options.budget_bytes);
}

Runtime::~Runtime() {
  files_.reset();
  cpu_.reset();
  loops_.clear();
  if (process_stalls == &stalls_) process_stalls = nullptr;
}

EventLoop& Runtime::next_loop() noexcept {
  return *loops_[next_.fetch_add(1, std::memory_order_relaxed) % loops_.size()];
}

namespace {

// A timer that completes a OneShot; made, waited for and cancelled on the loop's thread only.
struct Alarm {
  Alarm(EventLoop& loop, std::shared_ptr<OneShot<void>> s) : timer(loop.io()), shot(std::move(s)) {}
  asio::steady_timer timer;
  std::shared_ptr<OneShot<void>> shot;
};

std::shared_ptr<Alarm> set_alarm(EventLoop& loop, std::shared_ptr<OneShot<void>> shot, Clock::time_point at) {
  auto alarm = std::make_shared<Alarm>(loop, std::move(shot));
  asio::post(loop.io(), [alarm, at] {
    alarm->timer.expires_at(at);
    alarm->timer.async_wait([alarm](const asio::error_code& error) {
      if (!error) resume_on_loop(alarm->shot->complete());
    });
  });
  return alarm;
}

void cancel_alarm(EventLoop& loop, std::shared_ptr<Alarm> alarm) {
  asio::post(loop.io(), [alarm = std::move(alarm)] { alarm->timer.cancel(); });
}

}  // namespace

Task<bool> sleep_for(EventLoop& loop, Context context, Clock::duration time) {
  const auto until = Clock::now() + time;
  const bool cut = context.deadline() < until;
  auto shot = std::make_shared<OneShot<void>>(&loop);
  auto alarm = set_alarm(loop, shot, std::min(until, context.deadline()));
  const Outcome outcome = co_await shot->wait(context.stop());
  if (outcome != Outcome::done) cancel_alarm(loop, std::move(alarm));
  co_return outcome == Outcome::done && !cut;
}

void Notifier::notify() {
  CompletionBatch batch;
  notify_into(batch);
}

void Notifier::notify_into(CompletionBatch& batch) {
  std::vector<std::shared_ptr<OneShot<void>>> waiters;
  {
    const std::lock_guard lock(mutex_);
    version_.fetch_add(1, std::memory_order_acq_rel);
    waiters.swap(waiters_);
  }
  for (auto& waiter : waiters) batch.add(waiter->complete());
}

Task<std::uint64_t> Notifier::wait(Context context, std::uint64_t seen, Clock::duration at_most) {
  auto shot = std::make_shared<OneShot<void>>(&loop_);
  {
    const std::lock_guard lock(mutex_);
    if (version_.load(std::memory_order_acquire) != seen) co_return version();
    waiters_.push_back(shot);
  }
  auto alarm = set_alarm(loop_, shot, Clock::now() + at_most);
  co_await shot->wait(context.stop());
  cancel_alarm(loop_, std::move(alarm));
  {
    const std::lock_guard lock(mutex_);
    std::erase(waiters_, shot);
  }
  co_return version();
}

}  // namespace prism
