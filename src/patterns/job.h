// Job: background work of a namespace, sharded, run under leases so that any number of processes may serve it.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/types.h"
#include "capabilities/lease.h"
#include "runtime/context.h"
#include "runtime/loop.h"
#include "runtime/scope.h"
#include "runtime/task.h"
#include "telemetry/metrics.h"

namespace prism {

struct JobInfo {
  std::string name;  // unique in the process: "<namespace>/<pattern>/<what>"
  std::uint32_t shards = 1;
  Clock::duration interval = std::chrono::milliseconds(100);  // between rounds that found nothing to do
  std::string harmless;                                       // what makes a second runner harmless, in words
};

// What one round of a job has done.
struct Round {
  std::uint64_t items = 0;
  bool more = false;  // begin the next round at once
  std::string note;   // what went wrong with a part of it, shown as the job's last error; empty: nothing
};

class Job {
 public:
  virtual ~Job() = default;
  virtual const JobInfo& info() const noexcept = 0;
  // One bounded round of one shard, run under the grant; checkpoints only after the downstream has acknowledged. It
  // ends soon after the context is stopped. An error is shown and the round repeated with back-off.
  virtual Task<Result<Round>> round(Context context, std::uint32_t shard, Grant grant) = 0;
  // Waits until there may be work, at most `at_most` (the default just sleeps that long); ends soon after the context
  // is stopped.
  virtual Task<void> wait(Context context, EventLoop& loop, Clock::duration at_most);
};

enum class JobState : std::uint8_t { waiting /*for the lease*/, running, idle, paused, failing, stopped };
std::string_view to_string(JobState) noexcept;

struct JobStatus {
  std::string name;
  std::uint32_t shard = 0;
  JobState state = JobState::waiting;
  std::uint64_t rounds = 0;  // completed without an error
  std::uint64_t items = 0;
  std::uint64_t errors = 0;
  std::string last_error;  // empty: none since the last good round
  std::string harmless;
};

// Runs the jobs of one process: acquires a lease for each shard, renews it, runs rounds, backs off after errors.
// Thread-safe. close() lets the running rounds end, stops them when half of its context's time is over, and releases
// the leases.
class JobKeeper {
 public:
  struct Options {
    Clock::duration lease_ttl = std::chrono::seconds(10);  // a stopped process's shards go to another after this
    std::string holder;                                    // names this process in leases; unique
    Metrics* metrics = nullptr;  // where the jobs are shown, prism_job_*; outlives this; null: nowhere
  };
  JobKeeper(EventLoop& loop, std::shared_ptr<Lease> lease, Options options);
  ~JobKeeper();

  void add(std::shared_ptr<Job> job, bool paused = false);  // starts it
  std::vector<JobStatus> status() const;
  Result<void> pause(std::string_view name);  // JOB_NOT_FOUND; all shards, after their present round
  Result<void> resume(std::string_view name);
  Task<void> close(Context context);

 private:
  struct Shard;
  void show(const std::vector<std::shared_ptr<Shard>>& shards);
  Result<void> set_paused(std::string_view name, bool paused);
  Task<void> run(std::shared_ptr<Shard> shard);
  Task<void> hold(std::shared_ptr<Shard> shard, Grant grant);
  Task<void> renew(std::shared_ptr<Shard> shard, std::stop_token until, Grant grant);
  Task<void> stop_rounds_after(std::stop_token unless, Clock::duration time);

  EventLoop& loop_;
  std::shared_ptr<Lease> lease_;
  Options options_;
  mutable std::mutex mutex_;
  std::vector<std::shared_ptr<Shard>> shards_;  // guarded by mutex_
  std::vector<MetricCallback> shown_;           // guarded by mutex_
  Scope scope_;
};

}  // namespace prism
