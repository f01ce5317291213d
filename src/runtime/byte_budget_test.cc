#include "runtime/byte_budget.h"

#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <thread>

#include "runtime/loop.h"
#include "runtime/scope.h"

namespace prism {
namespace {

using Lease = ByteBudget::Lease;

class ByteBudgetTest : public testing::Test {
 protected:
  Runtime runtime;
  EventLoop& loop = runtime.next_loop();
};

// Acquires, notes its number, and keeps the lease.
Task<void> take(std::shared_ptr<ByteBudget> budget, Context context, std::size_t n, int number, std::vector<int>* order,
                std::vector<Lease>* kept, std::vector<Error>* errors) {
  auto lease = co_await budget->acquire(std::move(context), n);
  if (lease) {
    order->push_back(number);
    kept->push_back(std::move(*lease));
  } else {
    errors->push_back(std::move(lease).error());
  }
}

// The results are written on the loop's thread: this is reached after what was posted before.
Task<void> reach(EventLoop& loop) { co_await resume_on(loop); }

TEST_F(ByteBudgetTest, CountsLeases) {
  const auto budget = ByteBudget::make(loop, 10);
  auto a = run_blocking(budget->acquire({}, 6));
  ASSERT_TRUE(a);
  EXPECT_EQ(a->bytes(), 6U);
  EXPECT_EQ(budget->used(), 6U);
  EXPECT_FALSE(budget->try_acquire(5));
  auto b = budget->try_acquire(4);
  ASSERT_TRUE(b);
  EXPECT_EQ(budget->used(), 10U);
  Lease moved = std::move(*a);
  a->release();  // empty by now
  EXPECT_EQ(budget->used(), 10U);
  moved = std::move(*b);  // gives back the six
  EXPECT_EQ(budget->used(), 4U);
  moved.release();
  moved.release();
  EXPECT_EQ(budget->used(), 0U);
  EXPECT_TRUE(budget->try_acquire(0));
}

TEST_F(ByteBudgetTest, ServesInOrderOfArrival) {
  const auto budget = ByteBudget::make(loop, 10);
  auto first = budget->try_acquire(8);
  std::vector<int> order;
  std::vector<Lease> kept;
  std::vector<Error> errors;
  Scope scope;
  scope.spawn(take(budget, {}, 9, 1, &order, &kept, &errors));
  scope.spawn(take(budget, {}, 1, 2, &order, &kept, &errors));  // would fit, but somebody waits before it
  EXPECT_EQ(budget->waiting(), 2U);
  EXPECT_FALSE(budget->try_acquire(1));
  first->release();
  scope.join_blocking();
  run_blocking(reach(loop));
  EXPECT_EQ(order, (std::vector{1, 2}));
  EXPECT_EQ(budget->used(), 10U);
  EXPECT_TRUE(errors.empty());
}

TEST_F(ByteBudgetTest, MoreThanTheLimitIsGivenAlone) {
  const auto budget = ByteBudget::make(loop, 10);
  auto small = budget->try_acquire(1);
  EXPECT_FALSE(budget->try_acquire(11));
  small->release();
  auto big = budget->try_acquire(11);
  ASSERT_TRUE(big);
  EXPECT_FALSE(budget->try_acquire(1));
}

TEST_F(ByteBudgetTest, AShareIsBoundedByItselfAndByTheBudgetsAbove) {
  const auto root = ByteBudget::make(loop, 10);
  const auto a = root->share(4);
  const auto b = root->share(8);
  auto in_a = a->try_acquire(4);
  ASSERT_TRUE(in_a);
  EXPECT_FALSE(a->try_acquire(1));
  EXPECT_FALSE(b->try_acquire(7));  // the root has 6 left
  auto in_b = b->try_acquire(6);
  ASSERT_TRUE(in_b);
  EXPECT_EQ(root->used(), 10U);
  EXPECT_EQ(b->used(), 6U);
}

TEST_F(ByteBudgetTest, AUsedUpShareHoldsUpItsOwnOnly) {
  const auto root = ByteBudget::make(loop, 10);
  const auto a = root->share(4);
  const auto b = root->share(8);
  auto in_a = a->try_acquire(4);
  std::vector<int> order;
  std::vector<Lease> kept;
  std::vector<Error> errors;
  Scope scope;
  scope.spawn(take(a, {}, 2, 1, &order, &kept, &errors));
  EXPECT_EQ(a->waiting(), 1U);
  EXPECT_TRUE(b->try_acquire(6));  // given and taken back
  EXPECT_TRUE(root->try_acquire(1));
  EXPECT_FALSE(a->try_acquire(1));
  in_a->release();
  scope.join_blocking();
  EXPECT_EQ(order, std::vector{1});
}

TEST_F(ByteBudgetTest, StopAndDeadlineEndTheWaitAndLetTheNextOnePass) {
  const auto budget = ByteBudget::make(loop, 10);
  auto first = budget->try_acquire(8);
  std::vector<int> order;
  std::vector<Lease> kept;
  std::vector<Error> errors;
  std::stop_source stop;
  Scope scope;
  scope.spawn(take(budget, Context::background(stop.get_token()), 9, 1, &order, &kept, &errors));
  scope.spawn(take(budget, {}, 2, 2, &order, &kept, &errors));
  stop.request_stop();  // the second fits once the first is gone
  scope.join_blocking();
  run_blocking(reach(loop));
  EXPECT_EQ(order, std::vector{2});
  ASSERT_EQ(errors.size(), 1U);
  EXPECT_EQ(errors[0].reason, "CANCELLED");
  EXPECT_EQ(errors[0].retry, Retry::safe);
  EXPECT_EQ(budget->used(), 10U);
  const auto late = run_blocking(budget->acquire(Context().with_timeout(std::chrono::milliseconds(1)), 1));
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().reason, "DEADLINE_EXCEEDED");
  EXPECT_EQ(budget->waiting(), 0U);
}

struct Shared {
  std::atomic<std::size_t> held{0};
  std::atomic<std::size_t> most{0};
  std::atomic<int> given{0};
  std::atomic<int> refused{0};
};

Task<void> worker(EventLoop& loop, std::shared_ptr<ByteBudget> budget, Context context, std::size_t n, Shared* shared) {
  auto lease = co_await budget->acquire(std::move(context), n);
  if (!lease) {
    ++shared->refused;
    co_return;
  }
  ++shared->given;
  const std::size_t held = shared->held += n;
  std::size_t most = shared->most.load();
  while (held > most && !shared->most.compare_exchange_weak(most, held)) {
  }
  co_await sleep_for(loop, {}, std::chrono::microseconds(n % 7));
  auto more = budget->try_acquire(n);  // the second part, if there is room
  if (more) shared->held += n;
  co_await sleep_for(loop, {}, std::chrono::microseconds(1));
  shared->held -= more ? 2 * n : n;
}

// Waiting, granting, stopping and the deadline race with each other on several threads; nothing is lost and nothing is
// kept.
TEST_F(ByteBudgetTest, RacesLeaveNothingBehind) {
  Runtime many({.loops = 2});
  constexpr std::size_t kLimit = 100;
  const auto root = ByteBudget::make(many.next_loop(), kLimit);
  const std::vector<std::shared_ptr<ByteBudget>> budgets{root, root->share(60), root->share(30)};
  Shared shared;
  constexpr int kThreads = 4;
  constexpr int kEach = 1500;
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        std::mt19937 random(static_cast<unsigned>(t));
        std::stop_source stop;
        Scope scope;
        for (int i = 0; i < kEach; ++i) {
          Context context = Context::background(stop.get_token());
          if (random() % 8 == 0) context = context.with_timeout(std::chrono::microseconds(random() % 300));
          scope.spawn(
              worker(many.next_loop(), budgets[random() % budgets.size()], context, 1 + random() % 25, &shared));
          if (random() % 50 == 0) {
            stop.request_stop();
            stop = std::stop_source();
          }
        }
        scope.join_blocking();
      });
    }
  }
  EXPECT_EQ(shared.given + shared.refused, kThreads * kEach);
  EXPECT_GT(shared.given, 0);
  EXPECT_LE(shared.most, kLimit);
  for (const auto& budget : budgets) {
    EXPECT_EQ(budget->used(), 0U);
    EXPECT_EQ(budget->waiting(), 0U);
  }
}

}  // namespace
}  // namespace prism
