// ByteBudget: how many bytes of payloads the process, or one part of it, may hold at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <utility>

#include "runtime/context.h"
#include "runtime/task.h"

namespace prism {

class EventLoop;

// A tree: the root is the process's budget; a share (of a namespace, of a purpose) has a limit of its own and counts in
// all budgets above it too. Whoever waits is served in the order of arrival: nobody overtakes a request that waits for
// a budget that both need, but a share that is used up holds up only those who ask for it.
//
// Every holder is sure of one part: wait (acquire) only while holding nothing of the same tree, and take what would
// merely be faster with try_acquire(). Then whoever waits holds nothing, whoever holds can go on, and nobody waits for
// ever.
//
// Thread-safe. Leases keep their budget alive; the loop must outlive all of them.
class ByteBudget : public std::enable_shared_from_this<ByteBudget> {
 public:
  // Gives its bytes back when it is destroyed. Move-only; empty after a move.
  class Lease {
   public:
    Lease() noexcept = default;
    Lease(Lease&& other) noexcept : budget_(std::move(other.budget_)), bytes_(std::exchange(other.bytes_, 0)) {}
    Lease& operator=(Lease&& other) noexcept {
      if (this != &other) {
        release();
        budget_ = std::move(other.budget_);
        bytes_ = std::exchange(other.bytes_, 0);
      }
      return *this;
    }
    ~Lease() { release(); }
    std::size_t bytes() const noexcept { return bytes_; }
    void release() noexcept;

   private:
    friend class ByteBudget;
    Lease(std::shared_ptr<ByteBudget> budget, std::size_t bytes) noexcept : budget_(std::move(budget)), bytes_(bytes) {}
    std::shared_ptr<ByteBudget> budget_;
    std::size_t bytes_ = 0;
  };

  // A root of `limit` bytes. Those who wait are resumed on the loop.
  static std::shared_ptr<ByteBudget> make(EventLoop& loop, std::size_t limit);
  // A share of this budget: at most `limit` bytes of it.
  std::shared_ptr<ByteBudget> share(std::size_t limit);
  ~ByteBudget();
  ByteBudget(const ByteBudget&) = delete;
  ByteBudget& operator=(const ByteBudget&) = delete;

  // Waits until n bytes are free here and in every budget above. More than a limit is given once that budget is
  // otherwise unused, so that a small budget makes things slow and never impossible. CANCELLED, DEADLINE_EXCEEDED
  // (retry: safe).
  Task<Result<Lease>> acquire(Context context, std::size_t n);
  // None: not free now, or somebody waits for it.
  std::optional<Lease> try_acquire(std::size_t n);

  std::size_t limit() const noexcept { return limit_; }
  std::size_t used() const;     // bytes leased here and in the shares below
  std::size_t waiting() const;  // requests that wait here (not in the shares below)

 private:
  struct Tree;
  struct Waiter;
  ByteBudget(std::shared_ptr<Tree> tree, std::shared_ptr<ByteBudget> parent, std::size_t limit) noexcept;
  static Task<Result<Lease>> wait(std::shared_ptr<ByteBudget> self, Context context, std::size_t n);

  // All of these under the tree's mutex.
  ByteBudget* short_of(std::size_t n) noexcept;  // the lowest budget on the way up that cannot give n now; null: none
  void charge(std::size_t n) noexcept;

  const std::shared_ptr<Tree> tree_;
  const std::shared_ptr<ByteBudget> parent_;  // null: the root
  const std::size_t limit_;
  std::size_t used_ = 0;                       // guarded by the tree's mutex, as are the following
  bool contended_ = false;                     // the oldest request of some budget at or below here waits for this one
  std::deque<std::shared_ptr<Waiter>> queue_;  // in the order of arrival
};

}  // namespace prism
