#include "patterns/job.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <map>

namespace prism {
namespace {

using namespace std::chrono_literals;

// Leases in memory; a test can take one away.
class MemoryLease final : public Lease {
 public:
  Task<Result<std::optional<Grant>>> acquire(Context /*c*/, std::string name, std::string holder,
                                             Clock::duration ttl) override {
    const std::lock_guard lock(mutex);
    auto& h = held[name];
    if (!h.empty() && h != holder) co_return std::nullopt;
    h = holder;
    co_return Grant{name, holder, ++fence, Clock::now() + ttl};
  }
  Task<Result<Grant>> renew(Context /*c*/, Grant grant, Clock::duration ttl) override {
    const std::lock_guard lock(mutex);
    if (held[grant.name] != grant.holder) co_return fail(Code::aborted, "LEASE_LOST", "taken");
    grant.safe_until = Clock::now() + ttl;
    co_return grant;
  }
  Task<void> release(Context /*c*/, Grant grant) override {
    const std::lock_guard lock(mutex);
    if (held[grant.name] == grant.holder) held.erase(grant.name);
    co_return;
  }
  std::optional<Statement> guard(const Grant& /*grant*/) const override { return std::nullopt; }

  std::mutex mutex;
  std::map<std::string, std::string> held;
  std::uint64_t fence = 0;
};

// Counts its rounds and lets a test wait for them; fails as often as told.
class CountingJob final : public Job {
 public:
  explicit CountingJob(std::uint32_t shards = 1)
      : info_{.name = "ns/test/count", .shards = shards, .interval = 1ms, .harmless = "it only counts"} {}
  const JobInfo& info() const noexcept override { return info_; }
  Task<Result<Round>> round(Context context, std::uint32_t /*shard*/, Grant grant) override {
    EXPECT_GT(grant.fence, 0U);
    std::unique_lock lock(mutex);
    ++rounds;
    changed.notify_all();
    changed.wait(lock, [this] { return !held; });
    if (failures > 0) {
      --failures;
      co_return fail(Code::unavailable, "DOWN", "the destination is down", {}, Retry::safe);
    }
    co_return Round{.items = 2};
  }
  Task<void> wait(Context context, EventLoop& loop, Clock::duration at_most) override {
    {
      const std::lock_guard lock(mutex);
      if (context.stopped()) ++waits_cut_short;
    }
    co_await Job::wait(std::move(context), loop, at_most);
  }
  void wait_for_rounds(int n) {
    std::unique_lock lock(mutex);
    const int until = rounds + n;
    changed.wait(lock, [&] { return rounds >= until; });
  }
  void wait_for_a_round() {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return rounds > 0; });
  }
  void hold(bool whether) {
    const std::lock_guard lock(mutex);
    held = whether;
    changed.notify_all();
  }
  void set_failures(int n) {
    const std::lock_guard lock(mutex);
    failures = n;
  }
  std::mutex mutex;
  std::condition_variable changed;
  int rounds = 0;
  int failures = 0;
  int waits_cut_short = 0;  // those that began when it was too late to wait
  bool held = false;        // rounds do not end

 private:
  JobInfo info_;
};

struct JobTest : testing::Test {
  Runtime runtime;
  std::shared_ptr<MemoryLease> lease = std::make_shared<MemoryLease>();
  std::shared_ptr<CountingJob> job = std::make_shared<CountingJob>();
  JobKeeper keeper{runtime.next_loop(), lease, {.lease_ttl = 1min, .holder = "me"}};
  JobKeeper impatient{runtime.next_loop(), lease, {.lease_ttl = 60ms, .holder = "me"}};  // looks at its lease often

  void TearDown() override {
    run_blocking(keeper.close(Context()));
    run_blocking(impatient.close(Context()));
  }
};

TEST_F(JobTest, RunsRoundsAndReleasesItsLeaseOnClose) {
  keeper.add(job);
  job->wait_for_rounds(3);
  run_blocking(keeper.close(Context()));
  EXPECT_TRUE(lease->held.empty());
  const auto status = keeper.status().front();
  EXPECT_EQ(status.state, JobState::stopped);
  EXPECT_EQ(status.items, 2 * status.rounds);
  EXPECT_EQ(status.harmless, "it only counts");
}

TEST_F(JobTest, AnErrorIsShownAndTheRoundRepeated) {
  job->failures = 1;
  keeper.add(job);
  job->wait_for_rounds(1);
  job->wait_for_rounds(2);  // goes on after its back-off
  run_blocking(keeper.close(Context()));
  const auto status = keeper.status().front();
  EXPECT_EQ(status.errors, 1U);
  EXPECT_TRUE(status.last_error.empty()) << "a good round clears it";
}

TEST_F(JobTest, IsMeasured) {
  Metrics metrics;
  JobKeeper measured(runtime.next_loop(), lease, {.lease_ttl = 1min, .holder = "me", .metrics = &metrics});
  const auto value = [&](const std::string& series) {
    const std::string text = metrics.expose();
    const auto at = text.find("\n" + series + " ");
    return at == std::string::npos ? -1.0 : std::stod(text.substr(at + series.size() + 2));
  };
  const std::string labels = R"({namespace="ns",name="test/count"})";
  job->set_failures(1'000'000);
  measured.add(job);
  job->wait_for_a_round();
  EXPECT_GT(value("prism_job_lag_seconds" + labels), 0) << "it has not caught up yet";
  job->set_failures(0);
  job->wait_for_rounds(4);
  run_blocking(measured.close(Context()));
  const auto status = measured.status().front();
  EXPECT_EQ(value("prism_job_rounds_total" + labels), static_cast<double>(status.rounds));
  EXPECT_EQ(value("prism_job_items_total" + labels), static_cast<double>(status.items));
  EXPECT_GE(status.errors, 1U);
  EXPECT_EQ(value("prism_job_errors_total" + labels), static_cast<double>(status.errors));
  EXPECT_EQ(value("prism_job_round_duration_seconds_count" + labels),
            static_cast<double>(status.rounds + status.errors));
  EXPECT_EQ(value(R"(prism_job_shards{namespace="ns",name="test/count",state="stopped"})"), 1);
  EXPECT_GT(value("prism_job_last_success_timestamp_seconds" + labels), 1e9);
  EXPECT_EQ(value("prism_job_lag_seconds" + labels), -1) << "it does not run here";
}

TEST_F(JobTest, WaitsWhileAnotherHoldsTheLease) {
  {
    const std::lock_guard lock(lease->mutex);
    lease->held["job/ns/test/count/0"] = "other";
  }
  impatient.add(job);
  while (impatient.status().front().state != JobState::waiting) std::this_thread::yield();
  EXPECT_EQ(job->rounds, 0);
  {
    const std::lock_guard lock(lease->mutex);
    lease->held.clear();
  }
  job->wait_for_rounds(1);
}

TEST_F(JobTest, StopsWhenItsLeaseIsTakenAway) {
  impatient.add(job);
  job->wait_for_rounds(1);
  {
    const std::lock_guard lock(lease->mutex);
    lease->held["job/ns/test/count/0"] = "other";
  }
  while (impatient.status().front().state != JobState::waiting) std::this_thread::yield();
  const std::lock_guard lock(lease->mutex);
  EXPECT_EQ(lease->held["job/ns/test/count/0"], "other") << "what is another's is not released";
}

TEST_F(JobTest, PausesAndResumes) {
  keeper.add(job);
  job->wait_for_rounds(1);
  ASSERT_TRUE(keeper.pause("ns/test/count"));
  while (keeper.status().front().state != JobState::paused) std::this_thread::yield();
  EXPECT_TRUE(lease->held.empty()) << "a paused job leaves its lease to nobody in particular";
  ASSERT_TRUE(keeper.resume("ns/test/count"));
  job->wait_for_rounds(1);
  EXPECT_EQ(keeper.pause("nonsense").error().reason, "JOB_NOT_FOUND");
}

TEST_F(JobTest, WaitsBetweenRoundsAlsoAfterAPauseThatWasOverBeforeTheRoundWas) {
  job->hold(true);
  keeper.add(job);
  job->wait_for_a_round();
  ASSERT_TRUE(keeper.pause("ns/test/count"));
  ASSERT_TRUE(keeper.resume("ns/test/count"));
  job->hold(false);
  job->wait_for_rounds(5);
  const std::lock_guard lock(job->mutex);
  EXPECT_LE(job->waits_cut_short, 1) << "only the one that was to be interrupted";
}

TEST_F(JobTest, IsPausedAtOnceWhileAnotherHoldsTheLease) {
  {
    const std::lock_guard lock(lease->mutex);
    lease->held["job/ns/test/count/0"] = "other";
  }
  keeper.add(job);  // asks again after seconds
  while (keeper.status().front().state != JobState::waiting) std::this_thread::yield();
  ASSERT_TRUE(keeper.pause("ns/test/count"));
  const auto begun = Clock::now();
  while (keeper.status().front().state != JobState::paused) std::this_thread::yield();
  EXPECT_LT(Clock::now() - begun, 5s);
}

TEST_F(JobTest, EveryShardHasItsOwnLease) {
  auto sharded = std::make_shared<CountingJob>(3);
  keeper.add(sharded);
  sharded->wait_for_rounds(9);
  while (true) {
    const std::lock_guard lock(lease->mutex);
    if (lease->held.size() == 3) break;
  }
  EXPECT_EQ(keeper.status().size(), 3U);
}

}  // namespace
}  // namespace prism
