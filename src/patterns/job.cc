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

}  // namespace

std::string_view to_string(JobState state) noexcept {
  switch (state) {
    case JobState::waiting: return "waiting";
    case JobState::running: return "running";
    case JobState::idle: return "idle";
    case JobState::paused: return "paused";
    case JobState::failing: return "failing";
    case JobState::stopped: return "stopped";
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

  std::mutex mutex;
  JobState state = JobState::waiting;  // the rest is guarded by mutex
  std::uint64_t rounds = 0;
  std::uint64_t items = 0;
  std::uint64_t errors = 0;
  std::string last_error;
  Grant grant;

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
    if (news) log::warn("job failed, will be tried again", {{"job", job->info().name}, {"reason", error.reason}, {"error", error.message}});
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
    auto grant = co_await lease_->acquire(context.with_timeout(options_.lease_ttl), lease_name, options_.holder, options_.lease_ttl);
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

Task<void> JobKeeper::renew(std::shared_ptr<Shard> shard, std::shared_ptr<std::stop_source> lost, Grant grant) {
  const Context context = Context::background(lost->get_token());
  while (co_await sleep_for(loop_, context, options_.lease_ttl / 3)) {
    auto renewed = co_await lease_->renew(context.with_timeout(options_.lease_ttl / 3), grant, options_.lease_ttl);
    if (lost->stop_requested()) break;
    if (renewed) {
      grant = std::move(*renewed);
      const std::lock_guard lock(shard->mutex);
      shard->grant = grant;
      continue;
    }
    // Another has it, or it cannot be renewed in time: stop while it is still safe.
    if (renewed.error().reason == "LEASE_LOST" || Clock::now() + options_.lease_ttl / 3 > grant.safe_until) {
      log::warn("lease lost", {{"job", shard->job->info().name}, {"reason", renewed.error().reason}});
      break;
    }
  }
  lost->request_stop();
}

Task<void> JobKeeper::hold(std::shared_ptr<Shard> shard, Grant grant) {
  const auto stop = scope_.stop_token();
  auto lost = std::make_shared<std::stop_source>();
  {
    const std::lock_guard lock(shard->mutex);
    shard->grant = grant;
  }
  Scope renewing;
  renewing.spawn(renew(shard, lost, grant));

  // A shutdown lets the present round finish; a lost lease stops it.
  const Context round_context = Context::background(lost->get_token());
  const Context wait_context = Context::background(stop);
  Clock::duration backoff = kFirstBackoff;
  while (!stop.stop_requested() && !lost->stop_requested() && !shard->paused) {
    Grant present;
    {
      const std::lock_guard lock(shard->mutex);
      present = shard->grant;
      if (shard->state != JobState::failing) shard->state = JobState::running;
    }
    if (Clock::now() >= present.safe_until) break;  // this process was stopped for longer than the lease lasts
    auto round = co_await shard->job->round(round_context.with_timeout(kRoundTimeout), shard->shard, std::move(present));
    if (!round) {
      if (lost->stop_requested()) break;
      shard->fail(round.error());
      co_await sleep_for(loop_, wait_context, backoff);
      backoff = std::min(2 * backoff, kLongestBackoff);
      continue;
    }
    backoff = kFirstBackoff;
    {
      const std::lock_guard lock(shard->mutex);
      ++shard->rounds;
      shard->items += round->items;
      shard->last_error.clear();
      shard->state = JobState::idle;
    }
    if (!round->more) co_await shard->job->wait(wait_context, loop_, shard->job->info().interval);
  }
  const bool still_ours = !lost->stop_requested();
  lost->request_stop();
  co_await renewing.join();
  co_await resume_on(loop_);
  if (still_ours) {
    Grant present;
    {
      const std::lock_guard lock(shard->mutex);
      present = shard->grant;
    }
    co_await lease_->release(round_context.shielded(kReleaseGrace), std::move(present));
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
    out.push_back({info.name, shard->shard, shard->state, shard->rounds, shard->items, shard->errors, shard->last_error, info.harmless});
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
  }
  if (!found) return fail(Code::not_found, "JOB_NOT_FOUND", "there is no job named " + std::string(name), "list the jobs first");
  return {};
}

Result<void> JobKeeper::pause(std::string_view name) { return set_paused(name, true); }
Result<void> JobKeeper::resume(std::string_view name) { return set_paused(name, false); }

Task<void> JobKeeper::close(Context /*context*/) {
  scope_.request_stop();
  co_await scope_.join();
}

}  // namespace prism
