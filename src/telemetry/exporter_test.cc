#include "telemetry/exporter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <numeric>
#include <semaphore>

namespace prism::trace {
namespace {

using ::testing::ElementsAre;
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

  // The first batch, once there is one; empty where none comes.
  std::vector<std::string> first() {
    std::unique_lock lock(mutex);
    changed.wait_for(lock, 60s, [&] { return !batches.empty(); });
    return batches.empty() ? std::vector<std::string>() : batches.front();
  }
  // Spans in all batches; once no batcher uses it.
  std::size_t spans() const {
    return std::transform_reduce(batches.begin(), batches.end(), std::size_t{0}, std::plus<>(),
                                 [](const auto& batch) { return batch.size(); });
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

struct BatcherTest : testing::Test {
  Received received;
  Metrics metrics;
  Batcher::Options options{.queue = 10, .batch = 4, .delay = 1ms, .first_backoff = 1ms, .attempts = 3, .url = "u"};

  std::unique_ptr<Batcher> start() {
    return std::make_unique<Batcher>(std::make_unique<FakeExporter>(received), metrics, options);
  }
};

// proves: M-24
TEST_F(BatcherTest, SendsWhatCame) {
  auto batcher = start();
  for (int i = 0; i < 4; ++i) batcher->take(span(std::to_string(i)));
  EXPECT_FALSE(received.first().empty());
  batcher.reset();
  EXPECT_EQ(received.spans(), 4);
  EXPECT_THAT(metrics.expose(), HasSubstr("prism_trace_spans_exported_total 4"));
}

TEST_F(BatcherTest, AFullBatchDoesNotWaitForItsTime) {
  options.delay = 1h;
  const auto batcher = start();
  for (int i = 0; i < 4; ++i) batcher->take(span("x"));
  EXPECT_EQ(received.first().size(), 4);
}

TEST_F(BatcherTest, TheEndSendsWhatIsLeft) {
  options.delay = 1h;
  start()->take(span("last"));
  EXPECT_THAT(received.batches, ElementsAre(ElementsAre("last")));
}

TEST_F(BatcherTest, AFullQueueDropsAndCountsAndNobodyWaits) {
  received.blocks = true;
  auto batcher = start();
  // At most one batch is with the exporter, ten wait.
  for (int i = 0; i < 100; ++i) batcher->take(span("x"));
  received.allowed.release(1000);
  batcher.reset();
  EXPECT_GE(received.spans(), 10);
  EXPECT_LE(received.spans(), 14);
  EXPECT_THAT(metrics.expose(), HasSubstr("prism_trace_spans_dropped_total{reason=\"queue_full\"} " +
                                          std::to_string(100 - received.spans())));
}

TEST_F(BatcherTest, AReceiverThatComesBackGetsWhatWaited) {
  received.failures = 2;
  const auto batcher = start();
  batcher->take(span("kept"));
  EXPECT_THAT(received.first(), ElementsAre("kept"));
}

TEST_F(BatcherTest, WhatCannotBeSentIsDroppedAndCounted) {
  received.failures = 3;
  options.batch = 1;
  const auto batcher = start();
  batcher->take(span("lost"));
  batcher->take(span("next"));
  EXPECT_THAT(received.first(), ElementsAre("next")) << "only once the first one was given up";
  EXPECT_THAT(metrics.expose(), HasSubstr("prism_trace_spans_dropped_total{reason=\"export_failed\"} 1"));
}

TEST_F(BatcherTest, AReceiverThatIsDownHoldsUpTheEndForAMomentOnly) {
  received.failures = 1000;
  options.first_backoff = 1h;
  const auto begun = std::chrono::steady_clock::now();
  start()->take(span("lost"));
  EXPECT_LT(std::chrono::steady_clock::now() - begun, 1min);
  EXPECT_THAT(metrics.expose(), HasSubstr("prism_trace_spans_dropped_total{reason=\"export_failed\"} 1"));
}

TEST(Otlp, AMissingModuleIsAnErrorWithAWayOut) {
  // The test's folder has no module.
  const auto exporter = load_otlp_exporter({});
  ASSERT_FALSE(exporter);
  EXPECT_EQ(exporter.error().reason, "OTLP_NOT_AVAILABLE");
}

}  // namespace
}  // namespace prism::trace
