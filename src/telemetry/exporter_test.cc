#include "telemetry/exporter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <semaphore>

namespace prism::trace {
namespace {

using ::testing::HasSubstr;
using namespace std::chrono_literals;

// What the exporter under test does and has got.
struct Received {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::vector<std::string>> batches;  // names
  int failures = 0;                               // of the next sends
  std::counting_semaphore<1000> allowed{0};
  bool blocks = false;

  std::size_t wait_for(std::size_t batches_wanted) {
    std::unique_lock lock(mutex);
    changed.wait_for(lock, 20s, [&] { return batches.size() >= batches_wanted; });
    return batches.size();
  }
};

class FakeExporter final : public Exporter {
 public:
  explicit FakeExporter(Received& received) : received_(received) {}
  std::string send(const std::vector<Finished>& spans) noexcept override {
    if (received_.blocks) received_.allowed.acquire();
    const std::lock_guard lock(received_.mutex);
    if (received_.failures > 0) {
      --received_.failures;
      return "no receiver";
    }
    std::vector<std::string> names;
    for (const auto& span : spans) names.push_back(span.name);
    received_.batches.push_back(std::move(names));
    received_.changed.notify_all();
    return {};
  }

 private:
  Received& received_;
};

Finished span(std::string name) {
  Finished out;
  out.name = std::move(name);
  return out;
}

Batcher::Options quick() {
  return {.queue = 10, .batch = 4, .delay = 1ms, .first_backoff = 1ms, .attempts = 3, .url = "u"};
}

// proves: M-24
TEST(Batcher, SendsWhatCame) {
  Received received;
  Metrics metrics;
  {
    Batcher batcher(std::make_unique<FakeExporter>(received), metrics, quick());
    for (int i = 0; i < 4; ++i) batcher.take(span(std::to_string(i)));
    EXPECT_GE(received.wait_for(1), 1);
  }
  std::size_t n = 0;
  for (const auto& batch : received.batches) n += batch.size();
  EXPECT_EQ(n, 4);
  EXPECT_THAT(metrics.expose(), HasSubstr("prism_trace_spans_exported_total 4"));
}

TEST(Batcher, TheEndSendsWhatIsLeft) {
  Received received;
  Metrics metrics;
  {
    auto options = quick();
    options.delay = 1h;
    Batcher batcher(std::make_unique<FakeExporter>(received), metrics, options);
    batcher.take(span("last"));
  }
  ASSERT_EQ(received.batches.size(), 1);
  EXPECT_THAT(received.batches[0], ::testing::ElementsAre("last"));
}

TEST(Batcher, AFullQueueDropsAndCountsAndNobodyWaits) {
  Received received;
  received.blocks = true;
  Metrics metrics;
  {
    Batcher batcher(std::make_unique<FakeExporter>(received), metrics, quick());
    // At most one batch is with the exporter, ten wait.
    for (int i = 0; i < 100; ++i) batcher.take(span("x"));
    received.allowed.release(1000);
  }
  std::size_t sent = 0;
  for (const auto& batch : received.batches) sent += batch.size();
  EXPECT_GE(sent, 10);
  EXPECT_LE(sent, 14);
  EXPECT_THAT(metrics.expose(),
              HasSubstr("prism_trace_spans_dropped_total{reason=\"queue_full\"} " + std::to_string(100 - sent)));
}

TEST(Batcher, AReceiverThatComesBackGetsWhatWaited) {
  Received received;
  received.failures = 2;
  Metrics metrics;
  Batcher batcher(std::make_unique<FakeExporter>(received), metrics, quick());
  batcher.take(span("kept"));
  ASSERT_EQ(received.wait_for(1), 1);
  EXPECT_THAT(received.batches[0], ::testing::ElementsAre("kept"));
}

TEST(Batcher, WhatCannotBeSentIsDroppedAndCounted) {
  Received received;
  received.failures = 3;
  Metrics metrics;
  Batcher batcher(std::make_unique<FakeExporter>(received), metrics, quick());
  batcher.take(span("lost"));
  for (int i = 0; i < 2000 && metrics.expose().find("{reason=\"export_failed\"} 1") == std::string::npos; ++i)
    std::this_thread::sleep_for(1ms);
  EXPECT_THAT(metrics.expose(), HasSubstr("prism_trace_spans_dropped_total{reason=\"export_failed\"} 1"));
  batcher.take(span("next"));
  ASSERT_EQ(received.wait_for(1), 1);
  EXPECT_THAT(received.batches[0], ::testing::ElementsAre("next"));
}

TEST(Batcher, AReceiverThatIsDownHoldsUpTheEndForAMomentOnly) {
  Received received;
  received.failures = 1000;
  Metrics metrics;
  const auto begun = std::chrono::steady_clock::now();
  {
    auto options = quick();
    options.first_backoff = 1h;
    Batcher batcher(std::make_unique<FakeExporter>(received), metrics, options);
    batcher.take(span("lost"));
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begun, 10s);
}

TEST(Otlp, AMissingModuleIsAnErrorWithAWayOut) {
  // The test's folder has no module.
  const auto exporter = load_otlp_exporter({});
  ASSERT_FALSE(exporter);
  EXPECT_EQ(exporter.error().reason, "OTLP_NOT_AVAILABLE");
}

}  // namespace
}  // namespace prism::trace
