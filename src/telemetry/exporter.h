// Export of finished spans: a bounded queue, one thread that sends batches, and the module that speaks OTLP.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "telemetry/metrics.h"
#include "telemetry/options.h"
#include "telemetry/trace.h"

namespace prism::trace {

// Sends batches of spans somewhere. Used by one thread.
class Exporter {
 public:
  virtual ~Exporter() = default;
  // Blocks until the receiver has them all, or an error; empty: sent. The spans stay as they are.
  virtual std::string send(const std::vector<Finished>& spans) noexcept = 0;
};

// What an exporter needs to know. Headers may be secrets.
struct Receiver {
  telemetry::Protocol protocol = telemetry::Protocol::grpc;
  std::string url;
  std::vector<std::pair<std::string, std::string>> headers;
  std::string certificate;  // a file; empty: the system's authorities
  bool gzip = false;
  std::chrono::milliseconds timeout{10'000};
  std::vector<std::pair<std::string, std::string>> resource;  // attributes of this process
};

// The OTLP exporter is a module of its own, loaded when traces are exported: `prism_otlp.so` beside the program, or in
// ../lib/prism of it (docs/adr/0008). OTLP_NOT_AVAILABLE.
Result<std::unique_ptr<Exporter>> load_otlp_exporter(const Receiver& receiver);
// From what a file says and this process is; `instance` names the process.
Receiver make_receiver(const telemetry::Spec& spec, const std::string& instance);

// Gathers spans and sends them from a thread of its own. Nothing waits for it: what the queue cannot hold is dropped
// and counted (prism_trace_spans_dropped_total), and so is a batch that could not be sent after a few attempts. The
// destructor sends what is there, for at most `patience`.
class Batcher final : public Sink {
 public:
  struct Options {
    std::size_t queue = 8'192;
    std::size_t batch = 512;
    std::chrono::milliseconds delay{1'000};
    std::chrono::milliseconds first_backoff{500};  // doubled after each failure, up to 30 s
    std::size_t attempts = 6;                      // of one batch
    std::chrono::milliseconds patience{3'000};
    std::string url;  // for log lines
  };
  Batcher(std::unique_ptr<Exporter> exporter, Metrics& metrics, Options options);
  ~Batcher() override;
  Batcher(const Batcher&) = delete;
  Batcher& operator=(const Batcher&) = delete;

  void take(Finished span) noexcept override;

 private:
  void run();
  bool send(std::vector<Finished>& batch);

  std::unique_ptr<Exporter> exporter_;
  Options options_;
  Counter& exported_;
  Counter& dropped_full_;
  Counter& dropped_failed_;
  MetricCallback queued_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Finished> waiting_;                   // guarded by mutex_
  bool stopping_ = false;                          // guarded by mutex_
  std::chrono::steady_clock::time_point stop_at_;  // guarded by mutex_
  std::thread thread_;
};

}  // namespace prism::trace
