// What measuring costs: nanoseconds of processor time for each call, and for everything that one publish through two
// patterns measures, against the same without. Prints a table; `bench_metrics [THREADS]` (default 1) runs it on several
// threads at once.
#include "telemetry/metrics.h"

#include <fmt/format.h>
#include <time.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "capabilities/measured.h"
#include "cli/call_metrics.h"
#include "patterns/measured.h"
#include "runtime/scope.h"

namespace {

using namespace prism;

constexpr int kRounds = 400'000;

class End final : public Publisher {
 public:
  explicit End(std::shared_ptr<KeyValueStore> store) : store_(std::move(store)) {}
  Task<Batch<Result<Appended>>> publish(Context context, Batch<Message> messages) override {
    co_await store_->apply(context, {});
    Batch<Result<Appended>> out;
    out.reserve(messages.size());
    for (std::size_t i = 0; i < messages.size(); ++i) out.emplace_back(Appended{});
    co_return out;
  }

 private:
  std::shared_ptr<KeyValueStore> store_;
};

class Through final : public Publisher {
 public:
  explicit Through(std::unique_ptr<Publisher> next) : next_(std::move(next)) {}
  Task<Batch<Result<Appended>>> publish(Context context, Batch<Message> messages) override {
    return next_->publish(std::move(context), std::move(messages));
  }

 private:
  std::unique_ptr<Publisher> next_;
};

class Instant final : public KeyValueStore {
 public:
  const KeyValueFeatures& features() const noexcept override { return features_; }
  Task<Batch<Result<std::optional<Entry>>>> get(Context, Batch<std::string>, Position) override { co_return {}; }
  Task<Batch<Result<Written>>> apply(Context, Batch<Mutation>) override { co_return {}; }
  Task<Result<KeyPage>> scan(Context, std::string, std::string, std::size_t, std::size_t) override {
    co_return KeyPage();
  }
  Task<void> close(Context) override { co_return; }

 private:
  KeyValueFeatures features_;
};

Task<void> publish(Publisher* chain, Context context) {
  for (int i = 0; i < kRounds; ++i) co_await chain->publish(context, Batch<Message>(1));
}

// Of the process, so that what else the machine does is not counted.
double cpu_nanoseconds() {
  timespec now{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
}

template <class F>
double measure(int threads, F work) {
  work();  // warm
  const double begun = cpu_nanoseconds();
  {
    std::vector<std::jthread> all;
    for (int t = 0; t < threads; ++t) all.emplace_back(work);
  }
  return (cpu_nanoseconds() - begun) / (static_cast<double>(kRounds) * threads);
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::max(1, std::atoi(argv[1])) : 1;
  Metrics metrics;
  auto& counter = metrics.counter("c_total", "Help.").with();
  auto& gauge = metrics.gauge("g", "Help.").with();
  auto& histogram = metrics.histogram("h_seconds", "Help.").with();
  const auto row = [](const char* what, double ns) { fmt::print("{:<58} {:8.1f} ns\n", what, ns); };
  fmt::print("{} thread{}\n", threads, threads == 1 ? "" : "s");
  row("counter", measure(threads, [&] {
        for (int i = 0; i < kRounds; ++i) counter.add();
      }));
  row("gauge", measure(threads, [&] {
        for (int i = 0; i < kRounds; ++i) gauge.add(1);
      }));
  row("histogram", measure(threads, [&] {
        for (int i = 0; i < kRounds; ++i) histogram.observe(1e-3 * (i % 100));
      }));
  row("clock", measure(threads, [] {
        for (int i = 0; i < kRounds; ++i) (void)std::chrono::steady_clock::now();
      }));

  cli::PrometheusCallMetrics calls(metrics);
  const double request = measure(threads, [&] {
    for (int i = 0; i < kRounds; ++i) {
      api::MeasuredCall call(calls, api::kMethods[0]);
      call.in("media");
      call.published(1, 100);
      call.finish(grpc::StatusCode::OK, {});
    }
  });
  row("a request: count, latency, bytes, in flight", request);

  const auto instant = std::make_shared<Instant>();
  const Ports bare{.publish = std::make_unique<Through>(std::make_unique<Through>(std::make_unique<End>(instant))),
                   .subscribe = nullptr};
  const ChainMetrics chain(metrics, "media", true);
  const BackendUser user{&metrics, "kafka", "media", "log"};
  auto inner = chain.step(std::make_unique<End>(measured(std::shared_ptr<KeyValueStore>(instant), user)), 0, {});
  auto outbox = chain.step(std::make_unique<Through>(std::move(inner)), 1, "outbox");
  auto claim_check = chain.step(std::make_unique<Through>(std::move(outbox)), 2, "claim-check");
  const Ports measured_ports = chain.chain({.publish = std::move(claim_check), .subscribe = nullptr}, 3);
  const auto run = [&](Publisher& publisher) {
    return measure(threads, [&] { run_blocking(publish(&publisher, Context())); });
  };
  const double without = run(*bare.publish);
  const double with = run(*measured_ports.publish);
  row("a publish through two empty patterns", without);
  row("the same measured: chain, patterns, one backend operation", with);
  row("all of it, of one publish", request + with - without);
  return 0;
}
