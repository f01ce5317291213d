#include "patterns/job.h"

#include <algorithm>
#include <random>

#include "telemetry/log.h"

namespace prism {
namespace {

constexpr Clock::duration kFirstBackoff = std::chrono::milliseconds(100);
constexpr Clock::duration kLongestBackoff = std::chrono::seconds(5);
// A round is bounded work; one that takes longer than this hangs in a backend and is given up.
constexpr Clock::duration kRoundTimeout = std::chrono::minutes(2);
constexpr Clock::duration kReleaseGrace = std::chrono::seconds(2);
constexpr Clock::duration kClosePatience = std::chrono::seconds(20);  // where the caller gives no deadline

}  // namespace

std::string_view to_string(JobState state) noexcept {
  switch (state) {
    case JobState::waiting:
      return "waiting";
    case JobState::running:
      return "running";
    case JobState::idle:
      return "idle";
    case JobState::paused:
      return "paused";
    case JobState::failing:
      return "failing";
    case JobState::stopped:
      return "stopped";
  }
  return "stopped";
}

Task<void> Job::wait(Context context, EventLoop& loop, Clock::duration at_most) {
  co_await sleep_for(loop, std::move(context), at_most);
}

struct JobKeeper::Shard {
  Shard(std::shared_ptr<Job> j, std::uint32_t n, EventLoop& loop) : job(std::move(j)), shard(n), pause_changed(loop) {}

  std::shared_ptr<Job> job;
  std::uint32_t shard;
  Notifier pause_changed;
  std::atomic<bool> paused = false;
  std::atomic<bool> lost = false;  // the lease, of the present hold

  std::mutex mutex;
  std::stop_source round_stop;  // the rest is guarded by mutex. Stops the present round
  std::stop_source wait_stop;   // stops the wait between rounds: stop, pause, lease lost
  JobState state = JobState::waiting;
  std::uint64_t rounds = 0;
  std::uint64_t items = 0;
  std::uint64_t errors = 0;
  std::string last_error;
  Grant grant;

  void begin_hold(const Grant& g) {
    const std::lock_guard lock(mutex);
    grant = g;
    lost = false;
    round_stop = std::stop_source();
    wait_stop = std::stop_source();
  }
  // A stop callback only posts to a loop, but may run here: outside of the lock.
  void stop_round() {
    std::unique_lock lock(mutex);
    std::stop_source source = round_stop;
    lock.unlock();
    source.request_stop();
  }
  void wake() {
    std::unique_lock lock(mutex);
    std::stop_source source = wait_stop;
    lock.unlock();
    source.request_stop();
  }
  void succeed(const Round& round) {
    bool news;
    {
      const std::lock_guard lock(mutex);
      ++rounds;
      items += round.items;
      news = !round.note.empty() && last_error != round.note;
      if (news) ++errors;
      last_error = round.note;
      state = round.note.empty() ? JobState::idle : JobState::failing;
    }
    if (news) log::warn("job failed in part, will be tried again", {{"job", job->info().name}, {"error", round.note}});
  }
  void set(JobState s) {
    const std::lock_guard lock(mutex);
    state = s;
  }
  void fail(const Error& error) {
    bool news;
    {
      const std::lock_guard lock(mutex);
      state = JobState::failing;
      ++errors;
      news = last_error != error.describe();
      last_error = error.describe();
    }
    if (news)
      log::warn("job failed, will be tried again",
                {{"job", job->info().name}, {"reason", error.reason}, {"error", error.message}});
  }
};

JobKeeper::JobKeeper(EventLoop& loop, std::shared_ptr<Lease> lease, Options options)
    : loop_(loop), lease_(std::move(lease)), options_(std::move(options)) {}

JobKeeper::~JobKeeper() = default;

void JobKeeper::add(std::shared_ptr<Job> job) {
  for (std::uint32_t n = 0; n < job->info().shards; ++n) {
    auto shard = std::make_shared<Shard>(job, n, loop_);
    {
      const std::lock_guard lock(mutex_);
      shards_.push_back(shard);
    }
    scope_.spawn(run(std::move(shard)));
  }
}

Task<void> JobKeeper::run(std::shared_ptr<Shard> shard) {
  co_await resume_on(loop_);
  const auto stop = scope_.stop_token();
  const Context context = Context::background(stop);
  const std::string lease_name = "job/" + shard->job->info().name + "/" + std::to_string(shard->shard);
  while (!stop.stop_requested()) {
    if (shard->paused) {
      shard->set(JobState::paused);
      const auto seen = shard->pause_changed.version();
      if (shard->paused) co_await shard->pause_changed.wait(context, seen, std::chrono::hours(1));
      continue;
    }
    auto grant = co_await lease_->acquire(context.with_timeout(options_.lease_ttl), lease_name, options_.holder,
                                          options_.lease_ttl);
    if (grant && *grant) {
      co_await hold(shard, **grant);
      continue;
    }
    if (!grant) {
      if (stop.stop_requested()) break;
      shard->fail(grant.error());
    } else {
      shard->set(JobState::waiting);
    }
    // Spread out, so that waiting processes do not ask all at once.
    thread_local std::minstd_rand random{std::random_device{}()};
    const auto quarter = std::chrono::duration_cast<std::chrono::milliseconds>(options_.lease_ttl).count() / 4;
    co_await sleep_for(loop_, context, std::chrono::milliseconds(quarter / 2 + random() % std::max<long>(1, quarter)));
  }
  shard->set(JobState::stopped);
}

Task<void> JobKeeper::renew(std::shared_ptr<Shard> shard, std::stop_token until, Grant grant) {
  const Context context = Context::background(until);
  while (co_await sleep_for(loop_, context, options_.lease_ttl / 3)) {
    auto renewed = co_await lease_->renew(context.with_timeout(options_.lease_ttl / 3), grant, options_.lease_ttl);
    if (until.stop_requested()) co_return;
    if (renewed) {
      grant = std::move(*renewed);
      const std::lock_guard lock(shard->mutex);
      shard->grant = grant;
      continue;
    }
    // Another has it, or it cannot be renewed in time: stop while it is still safe.
    if (renewed.error().reason == "LEASE_LOST" || Clock::now() + options_.lease_ttl / 3 > grant.safe_until) {
      log::warn("lease lost", {{"job", shard->job->info().name}, {"reason", renewed.error().reason}});
      shard->lost = true;
      shard->stop_round();
      shard->wake();
      co_return;
    }
  }
}

Task<void> JobKeeper::hold(std::shared_ptr<Shard> shard, Grant grant) {
  const auto stop = scope_.stop_token();
  std::stop_source until_released;
  shard->begin_hold(grant);
  Scope renewing;
  renewing.spawn(renew(shard, until_released.get_token(), grant));

  Clock::duration backoff = kFirstBackoff;
  while (!stop.stop_requested() && !shard->lost && !shard->paused) {
    Grant present;
    Context round_context;
    Context wait_context;
    {
      const std::lock_guard lock(shard->mutex);
      present = shard->grant;
      if (shard->state != JobState::failing) shard->state = JobState::running;
      round_context = Context::background(shard->round_stop.get_token());
      wait_context = Context::background(shard->wait_stop.get_token());
    }
    if (stop.stop_requested()) break;
    if (Clock::now() >= present.safe_until) {  // this process was stopped for longer than the lease lasts
      shard->lost = true;
      break;
    }
    auto round =
        co_await shard->job->round(round_context.with_timeout(kRoundTimeout), shard->shard, std::move(present));
    if (!round) {
      if (stop.stop_requested() || shard->lost) break;  // it was told to stop
      shard->fail(round.error());
      co_await sleep_for(loop_, wait_context, backoff);
      backoff = std::min(2 * backoff, kLongestBackoff);
      continue;
    }
    backoff = kFirstBackoff;
    shard->succeed(*round);
    if (!round->more) co_await shard->job->wait(wait_context, loop_, shard->job->info().interval);
  }
  until_released.request_stop();
  co_await renewing.join();
  co_await resume_on(loop_);
  if (!shard->lost) {
    Grant present;
    {
      const std::lock_guard lock(shard->mutex);
      present = shard->grant;
    }
    co_await lease_->release(Context().with_timeout(kReleaseGrace), std::move(present));
  }
}

std::vector<JobStatus> JobKeeper::status() const {
  std::vector<std::shared_ptr<Shard>> shards;
  {
    const std::lock_guard lock(mutex_);
    shards = shards_;
  }
  std::vector<JobStatus> out;
  for (const auto& shard : shards) {
    const std::lock_guard lock(shard->mutex);
    const auto& info = shard->job->info();
    out.push_back({info.name, shard->shard, shard->state, shard->rounds, shard->items, shard->errors, shard->last_error,
                   info.harmless});
  }
  return out;
}

Result<void> JobKeeper::set_paused(std::string_view name, bool paused) {
  bool found = false;
  const std::lock_guard lock(mutex_);
  for (const auto& shard : shards_) {
    if (shard->job->info().name != name) continue;
    found = true;
    shard->paused = paused;
    shard->pause_changed.notify();
    if (paused) shard->wake();
  }
  if (!found)
    return fail(Code::not_found, "JOB_NOT_FOUND", "there is no job named " + std::string(name), "list the jobs first");
  return {};
}

Result<void> JobKeeper::pause(std::string_view name) { return set_paused(name, true); }
Result<void> JobKeeper::resume(std::string_view name) { return set_paused(name, false); }

Task<void> JobKeeper::stop_rounds_after(std::stop_token unless, Clock::duration time) {
  if (!co_await sleep_for(loop_, Context::background(std::move(unless)), time)) co_return;
  std::vector<std::shared_ptr<Shard>> shards;
  {
    const std::lock_guard lock(mutex_);
    shards = shards_;
  }
  for (const auto& shard : shards) shard->stop_round();
}

Task<void> JobKeeper::close(Context context) {
  scope_.request_stop();
  std::vector<std::shared_ptr<Shard>> shards;
  {
    const std::lock_guard lock(mutex_);
    shards = shards_;
  }
  for (const auto& shard : shards) shard->wake();
  const auto left = context.deadline() == Clock::time_point::max() ? kClosePatience : context.deadline() - Clock::now();
  Scope patience;
  patience.spawn(
      stop_rounds_after(patience.stop_token(), std::max<Clock::duration>(left / 2, Clock::duration::zero())));
  co_await scope_.join();
  patience.request_stop();
  co_await patience.join();
}

}  // namespace prism
