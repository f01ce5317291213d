#include "patterns/job.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <random>

#include "base/text.h"
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

namespace {

// What all shards of a job count together.
struct Counted {
  std::shared_ptr<Counter> rounds = std::make_shared<Counter>();
  std::shared_ptr<Counter> items = std::make_shared<Counter>();
  std::shared_ptr<Counter> errors = std::make_shared<Counter>();
  std::shared_ptr<Histogram> duration = std::make_shared<Histogram>(Histogram::seconds());
};

// "media/outbox/relay" -> {"media", "outbox/relay"}
LabelValues labels_of(const JobInfo& info) {
  const auto slash = info.name.find('/');
  if (slash == std::string::npos) return {"", info.name};
  return {info.name.substr(0, slash), info.name.substr(slash + 1)};
}

Counted counted_by(Metrics& metrics, const JobInfo& info) {
  const std::vector<std::string> names{"namespace", "name"};
  const LabelValues labels = labels_of(info);
  return {
      .rounds =
          metrics.counter("prism_job_rounds_total", "Rounds of a background job without an error.", names).held(labels),
      .items =
          metrics.counter("prism_job_items_total", "Items that a background job has dealt with.", names).held(labels),
      .errors = metrics
                    .counter("prism_job_errors_total",
                             "Rounds of a background job that failed, or failed in part for a new reason.", names)
                    .held(labels),
      .duration =
          metrics.histogram("prism_job_round_duration_seconds", "How long a round of a background job took.", names)
              .held(labels)};
}

}  // namespace

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
  Clock::time_point caught_up = Clock::now();  // when it had nothing left to do, as far as is known
  bool is_caught_up = false;                   // and no round has begun since
  std::optional<WallTime> last_success;
  Counted counted;

  void begin_hold(const Grant& g) {
    const std::lock_guard lock(mutex);
    grant = g;
    lost = false;
    caught_up = Clock::now();
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
      is_caught_up = !round.more && round.note.empty();
      if (is_caught_up) caught_up = Clock::now();
      last_success = wall_now();
      counted.rounds->add();
      counted.items->add(round.items);
      news = !round.note.empty() && last_error != round.note;
      if (news) {
        ++errors;
        counted.errors->add();
      }
      last_error = round.note;
      state = round.note.empty() ? JobState::idle : JobState::failing;
    }
    if (news) log::warn("job failed in part, will be tried again", {{"job", job->info().name}, {"error", round.note}});
  }
  // Seconds for which it has had work that is not done, or may have had; none: it is another process's business.
  std::optional<double> lag() {
    const std::lock_guard lock(mutex);
    if (state == JobState::waiting || state == JobState::stopped) return std::nullopt;
    if (is_caught_up && state != JobState::paused) return 0;
    return std::chrono::duration<double>(Clock::now() - caught_up).count();
  }
  // When a round last ended without an error, in seconds since 1970; none: not yet, or it runs elsewhere.
  std::optional<double> succeeded_at() {
    const std::lock_guard lock(mutex);
    if (!last_success || state == JobState::waiting) return std::nullopt;
    return std::chrono::duration<double>(last_success->time_since_epoch()).count();
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
      counted.errors->add();
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

void JobKeeper::add(std::shared_ptr<Job> job, bool paused) {
  const Counted counted = options_.metrics != nullptr ? counted_by(*options_.metrics, job->info()) : Counted();
  std::vector<std::shared_ptr<Shard>> shards;
  for (std::uint32_t n = 0; n < job->info().shards; ++n) {
    auto& shard = shards.emplace_back(std::make_shared<Shard>(job, n, loop_));
    shard->paused = paused;
    shard->counted = counted;
  }
  {
    const std::lock_guard lock(mutex_);
    shards_.insert(shards_.end(), shards.begin(), shards.end());
    if (options_.metrics != nullptr) show(shards);
  }
  for (auto& shard : shards) scope_.spawn(run(std::move(shard)));
}

void JobKeeper::show(const std::vector<std::shared_ptr<Shard>>& shards) {  // with mutex_
  if (shards.empty()) return;
  Metrics& metrics = *options_.metrics;
  const LabelValues labels = labels_of(shards.front()->job->info());
  const auto states = metrics.gauge("prism_job_shards", "Shards of a background job in this process, by state.",
                                    {"namespace", "name", "state"});
  for (int i = 0; i <= static_cast<int>(JobState::stopped); ++i) {
    const auto state = static_cast<JobState>(i);
    auto with_state = labels;
    with_state.emplace_back(to_string(state));
    shown_.push_back(states.callback(std::move(with_state), [shards, state] {
      double n = 0;
      for (const auto& shard : shards) {
        const std::lock_guard lock(shard->mutex);
        n += shard->state == state ? 1 : 0;
      }
      return n;
    }));
  }
  // Of what the shards say the worst; not shown where none says anything.
  const auto show_worst = [&](std::string name, std::string help, auto value, auto worse) {
    shown_.push_back(
        metrics.gauge(std::move(name), std::move(help), {"namespace", "name"}).callback(labels, [shards, value, worse] {
          std::optional<double> worst;
          for (const auto& shard : shards) {
            const std::optional<double> one = value(*shard);
            if (one && (!worst || worse(*one, *worst))) worst = one;
          }
          return worst.value_or(std::numeric_limits<double>::quiet_NaN());
        }));
  };
  show_worst(
      "prism_job_lag_seconds",
      "For how long a background job has had work that is not done; 0: it has caught up. Of the shards that run in "
      "this process the worst.",
      [](Shard& shard) { return shard.lag(); }, std::greater<>());
  show_worst(
      "prism_job_last_success_timestamp_seconds",
      "When a round of a background job last ended without an error, in seconds since 1970. Of the shards that run in "
      "this process the earliest.",
      [](Shard& shard) { return shard.succeeded_at(); }, std::less<>());
}

Task<void> JobKeeper::run(std::shared_ptr<Shard> shard) {
  co_await resume_on(loop_);
  const auto stop = scope_.stop_token();
  const Context context = Context::background(stop);
  const std::string lease_name = "job/" + shard->job->info().name + "/" + std::to_string(shard->shard);
  while (!stop.stop_requested()) {
    const auto seen = shard->pause_changed.version();
    if (shard->paused) {
      shard->set(JobState::paused);
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
    const std::chrono::milliseconds later(quarter / 2 + random() % std::max<long>(1, quarter));
    co_await shard->pause_changed.wait(context, seen, later);
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
      shard->is_caught_up = false;
      // Somebody has woken it: what for is seen below, or is past (paused, and resumed during the round).
      if (shard->wait_stop.stop_requested()) shard->wait_stop = std::stop_source();
      round_context = Context::background(shard->round_stop.get_token());
      wait_context = Context::background(shard->wait_stop.get_token());
    }
    if (stop.stop_requested() || shard->lost || shard->paused) break;
    if (Clock::now() >= present.safe_until) {  // this process was stopped for longer than the lease lasts
      shard->lost = true;
      break;
    }
    const auto begun = Clock::now();
    auto round =
        co_await shard->job->round(round_context.with_timeout(kRoundTimeout), shard->shard, std::move(present));
    shard->counted.duration->observe(Clock::now() - begun);
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
    return fail(Code::not_found, "JOB_NOT_FOUND", "there is no job named \"" + shown(name) + "\"",
                "list the jobs first");
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
