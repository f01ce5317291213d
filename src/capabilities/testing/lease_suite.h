// Conformance of Lease. Include it in one test file of a backend and instantiate LeaseSuite there.
// proves: L-02, L-05, L-24
#pragma once

#include <gmock/gmock.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "capabilities/lease.h"
#include "runtime/scope.h"

namespace prism {

// No lease is held; destroyed at the end of a test.
class LeaseBed {
 public:
  virtual ~LeaseBed() = default;
  virtual Lease& lease() = 0;
  virtual Lease& other() = 0;           // the same leases through another client, as another process would have it
  virtual SqlDatabase* database() = 0;  // where guards run; null: this backend has no guards
  virtual void restart() = 0;           // closes every client and opens them again on the same data
};

struct LeaseParam {
  std::string name;
  std::function<std::unique_ptr<LeaseBed>()> make;
  friend void PrintTo(const LeaseParam& p, std::ostream* out) { *out << p.name; }
};

class LeaseSuite : public ::testing::TestWithParam<LeaseParam> {
 protected:
  static constexpr auto kLong = std::chrono::hours(1);
  static constexpr auto kShort = std::chrono::milliseconds(40);

  void SetUp() override { bed_ = GetParam().make(); }
  Lease& lease() { return bed_->lease(); }
  Lease& other() { return bed_->other(); }
  static Context soon() { return Context().with_timeout(std::chrono::seconds(60)); }

  static std::optional<Grant> acquire(Lease& l, std::string name, std::string holder, Clock::duration ttl) {
    auto out = run_blocking(l.acquire(soon(), std::move(name), std::move(holder), ttl));
    EXPECT_TRUE(out) << out.error().describe();
    return out ? *out : std::nullopt;
  }
  // Tries until the lease is free. None: not within a minute.
  static std::optional<Grant> take_over(Lease& l, const std::string& name, const std::string& holder) {
    const auto end = Clock::now() + std::chrono::minutes(1);
    while (Clock::now() < end) {
      if (auto grant = acquire(l, name, holder, kLong)) return grant;
    }
    return std::nullopt;
  }
  static std::string renew(Lease& l, const Grant& grant, Clock::duration ttl = kLong) {
    const auto out = run_blocking(l.renew(soon(), grant, ttl));
    return out ? "ok" : out.error().reason;
  }
  static void release(Lease& l, const Grant& grant) { run_blocking(l.release(soon(), grant)); }

  std::unique_ptr<LeaseBed> bed_;
};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(LeaseSuite);

TEST_P(LeaseSuite, OneHolderAtATime) {
  const auto a = acquire(lease(), "job", "a", kLong);
  ASSERT_TRUE(a);
  EXPECT_EQ(a->name, "job");
  EXPECT_EQ(a->holder, "a");
  EXPECT_GT(a->fence, 0U);
  EXPECT_FALSE(acquire(lease(), "job", "b", kLong));
  EXPECT_FALSE(acquire(other(), "job", "b", kLong));
  EXPECT_TRUE(acquire(other(), "another job", "b", kLong));
}

TEST_P(LeaseSuite, TheSameHolderMayAcquireAgain) {
  const auto a = acquire(lease(), "job", "a", kLong);
  const auto again = acquire(other(), "job", "a", kLong);
  ASSERT_TRUE(a && again);
  EXPECT_EQ(again->fence, a->fence);
}

TEST_P(LeaseSuite, SafeUntilCountsFromBeforeTheRequest) {
  const auto before = Clock::now();
  const auto a = acquire(lease(), "job", "a", std::chrono::seconds(10));
  const auto after = Clock::now();
  ASSERT_TRUE(a);
  EXPECT_LE(a->safe_until, after + std::chrono::seconds(10));
  EXPECT_GT(a->safe_until, before + std::chrono::seconds(5));
  const auto renewed = run_blocking(lease().renew(soon(), *a, std::chrono::hours(2)));
  ASSERT_TRUE(renewed);
  EXPECT_EQ(renewed->fence, a->fence);
  EXPECT_GT(renewed->safe_until, a->safe_until + std::chrono::hours(1));
}

TEST_P(LeaseSuite, AReleasedLeaseIsFreeAtOnceWithAGreaterFence) {
  const auto a = acquire(lease(), "job", "a", kLong);
  ASSERT_TRUE(a);
  release(lease(), *a);
  const auto b = acquire(other(), "job", "b", kLong);
  ASSERT_TRUE(b);
  EXPECT_GT(b->fence, a->fence);
  EXPECT_EQ(renew(lease(), *a), "LEASE_LOST");
  release(lease(), *a);  // too late: it is b's
  EXPECT_FALSE(acquire(lease(), "job", "a", kLong));
  EXPECT_EQ(renew(other(), *b), "ok");
}

TEST_P(LeaseSuite, AHolderThatReleasedGetsAGreaterFenceToo) {
  const auto first = acquire(lease(), "job", "a", kLong);
  ASSERT_TRUE(first);
  release(lease(), *first);
  const auto second = acquire(lease(), "job", "a", kLong);
  ASSERT_TRUE(second);
  EXPECT_GT(second->fence, first->fence);
  EXPECT_EQ(renew(lease(), *first), "LEASE_LOST");
  release(lease(), *first);  // an old grant of the same holder takes nothing away
  EXPECT_EQ(renew(lease(), *second), "ok");
}

TEST_P(LeaseSuite, AnExpiredLeaseGoesToAnother) {
  const auto a = acquire(lease(), "job", "a", kShort);
  ASSERT_TRUE(a);
  const auto b = take_over(other(), "job", "b");
  ASSERT_TRUE(b);
  EXPECT_GE(Clock::now(), a->safe_until);  // never while the holder may believe that it has it
  EXPECT_GT(b->fence, a->fence);
  EXPECT_EQ(renew(lease(), *a), "LEASE_LOST");
  EXPECT_FALSE(acquire(lease(), "job", "a", kLong));
}

TEST_P(LeaseSuite, ARenewedLeaseStays) {
  const auto a = acquire(lease(), "job", "a", std::chrono::seconds(30));
  ASSERT_TRUE(a);
  EXPECT_EQ(renew(lease(), *a), "ok");
  EXPECT_FALSE(acquire(other(), "job", "b", kShort));
}

TEST_P(LeaseSuite, FencesSurviveARestart) {
  const auto a = acquire(lease(), "job", "a", kLong);
  ASSERT_TRUE(a);
  bed_->restart();
  EXPECT_FALSE(acquire(lease(), "job", "b", kLong));
  EXPECT_EQ(renew(lease(), *a), "ok");
  release(lease(), *a);
  bed_->restart();
  const auto b = acquire(lease(), "job", "b", kLong);
  ASSERT_TRUE(b);
  EXPECT_GT(b->fence, a->fence);
}

TEST_P(LeaseSuite, OneOfManyGetsIt) {
  for (int round = 0; round < 10; ++round) {
    std::vector<Task<Result<std::optional<Grant>>>> tasks;
    for (int i = 0; i < 8; ++i) {
      tasks.push_back(
          (i % 2 == 0 ? lease() : other()).acquire(soon(), "job" + std::to_string(round), std::to_string(i), kLong));
    }
    int winners = 0;
    for (const auto& r : run_blocking(when_all(std::move(tasks)))) {
      ASSERT_TRUE(r) << r.error().describe();
      winners += r->has_value() ? 1 : 0;
    }
    EXPECT_EQ(winners, 1);
  }
}

TEST_P(LeaseSuite, SenselessRequestsAreRefused) {
  const auto code = [&](std::string name, std::string holder, Clock::duration ttl) {
    const auto out = run_blocking(lease().acquire(soon(), std::move(name), std::move(holder), ttl));
    return out ? std::string("ok") : out.error().reason;
  };
  EXPECT_EQ(code("", "a", kLong), "INVALID_LEASE");
  EXPECT_EQ(code("job", "", kLong), "INVALID_LEASE");
  EXPECT_EQ(code("job", "a", Clock::duration(0)), "INVALID_LEASE");
}

TEST_P(LeaseSuite, AStoppedCallTakesNothing) {
  std::stop_source stop;
  stop.request_stop();
  const auto out = run_blocking(lease().acquire(Context().with_stop(stop.get_token()), "job", "a", kLong));
  ASSERT_FALSE(out);
  EXPECT_EQ(out.error().reason, "CANCELLED");
  EXPECT_TRUE(acquire(other(), "job", "b", kLong));
}

TEST_P(LeaseSuite, AGuardFailsTheTransactionOfALostLease) {
  RecordProperty("feature.guards", bed_->database() == nullptr ? "no" : "yes");
  if (bed_->database() == nullptr) {
    EXPECT_FALSE(lease().guard(Grant{.name = "job", .holder = "a", .fence = 1}));
    GTEST_SKIP() << "this backend has no guards";
  }
  SqlDatabase& db = *bed_->database();
  ASSERT_TRUE(run_blocking(
      db.create_table(soon(), {.name = "work", .columns = {{"id", ColumnType::id}, {"v", ColumnType::text}}})));
  const auto count = [&] {
    const auto rows = run_blocking(db.query(soon(), {"SELECT count(*) FROM work", {}}, 1));
    return rows ? std::get<std::int64_t>(rows->rows.at(0).at(0)) : -1;
  };
  const auto work = [&](const Grant& grant) {
    Batch<Statement> batch;
    batch.push_back({"INSERT INTO work (v) VALUES ($1)", {std::string("before")}});
    batch.push_back(*lease().guard(grant));
    batch.push_back({"INSERT INTO work (v) VALUES ($1)", {std::string("after")}});
    const auto out = run_blocking(db.atomically(soon(), std::move(batch)));
    return out ? std::string("ok") : out.error().reason;
  };
  const auto a = acquire(lease(), "job", "a", kLong);
  ASSERT_TRUE(a);
  EXPECT_EQ(work(*a), "ok");
  EXPECT_EQ(count(), 2);
  release(lease(), *a);
  EXPECT_EQ(work(*a), "LEASE_LOST");
  EXPECT_EQ(count(), 2);
  const auto b = acquire(other(), "job", "b", kLong);
  ASSERT_TRUE(b);
  EXPECT_EQ(work(*a), "LEASE_LOST");
  EXPECT_EQ(work(*b), "ok");
  EXPECT_EQ(count(), 4);
  EXPECT_EQ(work({.name = "never", .holder = "a", .fence = 1}), "LEASE_LOST");

  // In an interactive transaction the same.
  auto tx = run_blocking(db.begin(soon(), {}));
  ASSERT_TRUE(tx) << tx.error().describe();
  Batch<Statement> guarded;
  guarded.push_back({"INSERT INTO work (v) VALUES ('x')", {}});
  guarded.push_back(*lease().guard(*a));
  const auto failed = run_blocking((*tx)->execute(soon(), std::move(guarded)));
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().reason, "LEASE_LOST");
  EXPECT_FALSE(run_blocking((*tx)->commit(soon())));
  EXPECT_EQ(count(), 4);
}

}  // namespace prism
