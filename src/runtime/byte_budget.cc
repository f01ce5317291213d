#include "runtime/byte_budget.h"

#include <algorithm>
#include <asio/post.hpp>
#include <asio/steady_timer.hpp>
#include <map>
#include <mutex>
#include <vector>

#include "runtime/loop.h"

namespace prism {

struct ByteBudget::Waiter {
  Waiter(EventLoop* loop, std::size_t n, std::uint64_t s) : shot(loop), bytes(n), sequence(s) {}
  OneShot<void> shot;
  const std::size_t bytes;
  const std::uint64_t sequence;
  bool granted = false;  // guarded by the tree's mutex
};

struct ByteBudget::Tree {
  explicit Tree(EventLoop& l) : loop(&l) {}

  // Serves whoever can be served, the oldest first. After every change.
  void serve(CompletionBatch& batch);
  void enqueue(ByteBudget* budget, std::shared_ptr<Waiter> waiter);
  void remove(ByteBudget* budget, const Waiter* waiter);
  void give_back(ByteBudget* budget, std::size_t n) noexcept {
    for (; budget != nullptr; budget = budget->parent_.get()) budget->used_ -= n;
  }

  EventLoop* const loop;
  std::mutex mutex;
  std::uint64_t next_sequence = 0;             // the following are guarded by the mutex
  std::map<std::uint64_t, ByteBudget*> heads;  // budgets with waiters, by the sequence number of their oldest
  std::vector<ByteBudget*> contended;  // those whose flag is set; each has a waiter at or below it, so it is alive
};

void ByteBudget::Tree::serve(CompletionBatch& batch) {
  for (ByteBudget* budget : contended) budget->contended_ = false;
  contended.clear();
  for (auto head = heads.begin(); head != heads.end();) {
    ByteBudget* const budget = head->second;
    const std::shared_ptr<Waiter> waiter = budget->queue_.front();
    if (ByteBudget* const lacking = budget->short_of(waiter->bytes)) {
      if (!lacking->contended_) {
        lacking->contended_ = true;
        contended.push_back(lacking);
      }
      if (lacking->parent_ == nullptr) return;  // nobody overtakes at the root
      ++head;
      continue;
    }
    budget->charge(waiter->bytes);
    waiter->granted = true;
    budget->queue_.pop_front();
    head = heads.erase(head);
    if (!budget->queue_.empty()) {
      // Its next request is younger than this one: it comes later in this same pass, in its turn.
      const auto next = heads.emplace(budget->queue_.front()->sequence, budget).first;
      if (head == heads.end() || next->first < head->first) head = next;
    }
    batch.add(waiter->shot.complete());
  }
}

void ByteBudget::Tree::enqueue(ByteBudget* budget, std::shared_ptr<Waiter> waiter) {
  if (budget->queue_.empty()) heads.emplace(waiter->sequence, budget);
  budget->queue_.push_back(std::move(waiter));
}

void ByteBudget::Tree::remove(ByteBudget* budget, const Waiter* waiter) {
  auto& queue = budget->queue_;
  const bool was_head = queue.front().get() == waiter;
  std::erase_if(queue, [&](const auto& other) { return other.get() == waiter; });
  if (!was_head) return;
  heads.erase(waiter->sequence);
  if (!queue.empty()) heads.emplace(queue.front()->sequence, budget);
}

ByteBudget::ByteBudget(std::shared_ptr<Tree> tree, std::shared_ptr<ByteBudget> parent, std::size_t limit) noexcept
    : tree_(std::move(tree)), parent_(std::move(parent)), limit_(limit) {}

ByteBudget::~ByteBudget() = default;

std::shared_ptr<ByteBudget> ByteBudget::make(EventLoop& loop, std::size_t limit) {
  return std::shared_ptr<ByteBudget>(new ByteBudget(std::make_shared<Tree>(loop), nullptr, limit));
}

std::shared_ptr<ByteBudget> ByteBudget::share(std::size_t limit) {
  return std::shared_ptr<ByteBudget>(new ByteBudget(tree_, shared_from_this(), limit));
}

ByteBudget* ByteBudget::short_of(std::size_t n) noexcept {
  for (ByteBudget* budget = this; budget != nullptr; budget = budget->parent_.get()) {
    if (budget->contended_) return budget;
    if (budget->used_ != 0 && (budget->used_ >= budget->limit_ || n > budget->limit_ - budget->used_)) return budget;
  }
  return nullptr;
}

void ByteBudget::charge(std::size_t n) noexcept {
  for (ByteBudget* budget = this; budget != nullptr; budget = budget->parent_.get()) budget->used_ += n;
}

std::optional<ByteBudget::Lease> ByteBudget::try_acquire(std::size_t n) {
  {
    const std::lock_guard lock(tree_->mutex);
    if (n != 0 && short_of(n) != nullptr) return std::nullopt;
    charge(n);
  }
  return Lease(shared_from_this(), n);
}

Task<Result<ByteBudget::Lease>> ByteBudget::acquire(Context context, std::size_t n) {
  return wait(shared_from_this(), std::move(context), n);
}

namespace {

// Releases a waiter at its deadline. The timer is touched on the loop's thread only.
template <class Shot>
class Deadline {
 public:
  Deadline(EventLoop& loop, std::shared_ptr<Shot> shot, Clock::time_point at) : loop_(loop) {
    if (at == Clock::time_point::max()) return;
    timer_ = std::make_shared<asio::steady_timer>(loop.io());
    asio::post(loop.io(), [timer = timer_, shot = std::move(shot), at]() mutable {
      timer->expires_at(at);
      timer->async_wait([timer, shot = std::move(shot)](const asio::error_code& error) {
        if (!error) resume_on_loop(shot->release());
      });
    });
  }
  ~Deadline() {
    if (timer_) asio::post(loop_.io(), [timer = std::move(timer_)] { timer->cancel(); });
  }
  Deadline(const Deadline&) = delete;
  Deadline& operator=(const Deadline&) = delete;

 private:
  EventLoop& loop_;
  std::shared_ptr<asio::steady_timer> timer_;
};

}  // namespace

Task<Result<ByteBudget::Lease>> ByteBudget::wait(std::shared_ptr<ByteBudget> self, Context context, std::size_t n) {
  if (auto lease = self->try_acquire(n)) co_return std::move(*lease);
  if (context.stopped()) co_return fail(context.over(false));
  Tree& tree = *self->tree_;
  std::shared_ptr<Waiter> waiter;
  CompletionBatch batch;
  {
    const std::lock_guard lock(tree.mutex);
    waiter = std::make_shared<Waiter>(tree.loop, n, tree.next_sequence++);
    tree.enqueue(self.get(), waiter);
    tree.serve(batch);  // something may have come free since the try
  }
  batch.flush();
  Outcome outcome;
  {
    const Deadline deadline(*tree.loop, std::shared_ptr<OneShot<void>>(waiter, &waiter->shot), context.deadline());
    outcome = co_await waiter->shot.wait(context.stop());
  }
  if (outcome != Outcome::done) {
    bool granted;
    {
      const std::lock_guard lock(tree.mutex);
      granted = waiter->granted;
      if (!granted) {
        tree.remove(self.get(), waiter.get());
        tree.serve(batch);  // those behind may fit where this one did not
      }
    }
    batch.flush();
    if (!granted) co_return fail(context.over(false));
  }
  co_return Lease(std::move(self), n);
}

void ByteBudget::Lease::release() noexcept {
  if (budget_ == nullptr) return;
  const std::shared_ptr<ByteBudget> budget = std::move(budget_);
  const std::size_t n = std::exchange(bytes_, 0);
  Tree& tree = *budget->tree_;
  CompletionBatch batch;
  const std::lock_guard lock(tree.mutex);
  tree.give_back(budget.get(), n);
  if (!tree.heads.empty()) tree.serve(batch);
}

std::size_t ByteBudget::used() const {
  const std::lock_guard lock(tree_->mutex);
  return used_;
}

std::size_t ByteBudget::waiting() const {
  const std::lock_guard lock(tree_->mutex);
  return queue_.size();
}

}  // namespace prism
