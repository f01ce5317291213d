// proves: M-20
#include "telemetry/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <limits>
#include <thread>

#include "telemetry/runtime_metrics.h"

namespace prism {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(Metrics, ExposeTheTextFormat) {
  Metrics metrics;
  metrics.counter("prism_requests_total", "Requests.", {"service", "code"}).with({"PubSub", "OK"}).add(3);
  metrics.gauge("prism_lag_seconds", "Lag.").with().set(1.5);
  auto& histogram = metrics.histogram("prism_request_duration_seconds", "Duration.", {}, {0.1, 1}).with();
  histogram.observe(0.1);  // bounds are inclusive
  histogram.observe(0.5);
  histogram.observe(std::chrono::seconds(2));
  EXPECT_EQ(metrics.expose(),
            "# HELP prism_lag_seconds Lag.\n"
            "# TYPE prism_lag_seconds gauge\n"
            "prism_lag_seconds 1.5\n"
            "# HELP prism_request_duration_seconds Duration.\n"
            "# TYPE prism_request_duration_seconds histogram\n"
            "prism_request_duration_seconds_count 3\n"
            "prism_request_duration_seconds_sum 2.6\n"
            "prism_request_duration_seconds_bucket{le=\"0.1\"} 1\n"
            "prism_request_duration_seconds_bucket{le=\"1\"} 2\n"
            "prism_request_duration_seconds_bucket{le=\"+Inf\"} 3\n"
            "# HELP prism_requests_total Requests.\n"
            "# TYPE prism_requests_total counter\n"
            "prism_requests_total{service=\"PubSub\",code=\"OK\"} 3\n");
}

TEST(Metrics, TheSameDeclarationIsTheSameFamily) {
  Metrics metrics;
  auto& a = metrics.counter("c_total", "Help.", {"l"}).with({"x"});
  auto& b = metrics.counter("c_total", "Help.", {"l"}).with({"x"});
  EXPECT_EQ(&a, &b);
}

TEST(MetricsDeathTest, MistakesEndTheProgram) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  Metrics metrics;
  auto family = metrics.counter("c_total", "Help.", {"l"});
  EXPECT_DEATH(metrics.gauge("c_total", "Help.", {"l"}), "declared twice");
  EXPECT_DEATH(metrics.counter("c_total", "Help.", {"m"}), "declared twice");
  EXPECT_DEATH(metrics.counter("1c", "Help."), "legal name");
  EXPECT_DEATH(metrics.counter("d_total", "Help.", {"a-b"}), "legal name");
  EXPECT_DEATH(metrics.counter("d_total", ""), "help");
  EXPECT_DEATH(metrics.histogram("h", "Help.", {}, {1, 1}), "ascend");
  EXPECT_DEATH(family.with({}), "number of label values");
}

TEST(Metrics, LabelSetsAreBounded) {
  Metrics metrics;
  auto family = metrics.counter("c_total", "Help.", {"l"}, 3);
  for (int i = 0; i < 10; ++i) family.with({std::to_string(i)}).add();
  const std::string text = metrics.expose();
  EXPECT_THAT(text, HasSubstr("c_total{l=\"2\"} 1\n"));
  EXPECT_THAT(text, Not(HasSubstr("c_total{l=\"3\"}")));
  EXPECT_THAT(text, HasSubstr("c_total{l=\"_other\"} 7\n"));
  EXPECT_EQ(&family.with({"0"}), &family.with({"0"}));
}

TEST(Metrics, LabelValuesAreEscaped) {
  Metrics metrics;
  metrics.gauge("g", "Help.", {"l"}).with({"a\"b\\c\nd\xff\xc3\xa4"}).set(1);
  EXPECT_THAT(metrics.expose(), HasSubstr("g{l=\"a\\\"b\\\\c\\nd?\xc3\xa4\"} 1\n"));
}

TEST(Metrics, CallbacksAreAskedWhenExposed) {
  double value = 1;
  MetricCallback outlives;
  {
    Metrics metrics;
    auto family = metrics.gauge("g", "Help.", {"ns"});
    auto first = family.callback({"a"}, [&] { return value; });
    EXPECT_THAT(metrics.expose(), HasSubstr("g{ns=\"a\"} 1\n"));
    value = 2;
    EXPECT_THAT(metrics.expose(), HasSubstr("g{ns=\"a\"} 2\n"));
    {
      // A namespace is built anew while the old one is still there: the new one counts.
      const auto second = family.callback({"a"}, [] { return 7.0; });
      EXPECT_THAT(metrics.expose(), HasSubstr("g{ns=\"a\"} 7\n"));
    }
    EXPECT_THAT(metrics.expose(), HasSubstr("g{ns=\"a\"} 2\n"));
    outlives = std::exchange(first, {});
    EXPECT_THAT(metrics.expose(), HasSubstr("g{ns=\"a\"} 2\n"));
    outlives.reset();
    EXPECT_THAT(metrics.expose(), Not(HasSubstr("ns=\"a\"")));
    outlives = metrics.counter("c_total", "Help.").callback({}, [] { return 0.25; });
    EXPECT_THAT(metrics.expose(), HasSubstr("c_total 0.25\n"));
  }
}

TEST(Metrics, AHeldSeriesIsShownAsLongAsItIsHeldAndSharedByThoseWhoAsk) {
  Metrics metrics;
  auto family = metrics.counter("c_total", "Help.", {"ns"}, 2);
  auto first = family.held({"a"});
  first->add(2);
  {
    // A namespace is assembled anew while the old assembly is still there: it goes on counting.
    const auto second = family.held({"a"});
    EXPECT_EQ(first.get(), second.get());
    first.reset();
    second->add();
    EXPECT_THAT(metrics.expose(), HasSubstr("c_total{ns=\"a\"} 3\n"));
  }
  EXPECT_THAT(metrics.expose(), Not(HasSubstr("c_total")));
  // What is gone takes no room.
  for (int i = 0; i < 10; ++i) family.held({std::to_string(i)})->add();
  const auto again = family.held({"a"});
  EXPECT_THAT(metrics.expose(), HasSubstr("c_total{ns=\"a\"} 0\n"));
  family.with({"a"}).add(5);
  EXPECT_EQ(again->value(), 5U) << "held or kept, it is the same series";
}

// proves: M-05, M-11
TEST(Metrics, AnAliasShowsTheSameMeasurements) {
  Metrics metrics;
  auto family = metrics.counter("prism_pattern_claim_check_stored_total", "Payloads.", {"namespace"});
  metrics.alias("prism_pattern_claim_check_stored_total", "prism_claim_check_stored_count", "The same.");
  metrics.alias("prism_pattern_claim_check_stored_total", "prism_claim_check_stored_count", "The same.");
  family.with({"media"}).add(3);
  EXPECT_EQ(metrics.expose(),
            "# HELP prism_claim_check_stored_count The same.\n"
            "# TYPE prism_claim_check_stored_count counter\n"
            "prism_claim_check_stored_count{namespace=\"media\"} 3\n"
            "# HELP prism_pattern_claim_check_stored_total Payloads.\n"
            "# TYPE prism_pattern_claim_check_stored_total counter\n"
            "prism_pattern_claim_check_stored_total{namespace=\"media\"} 3\n");
}

TEST(Metrics, WhatIsNotKnownIsNotShown) {
  Metrics metrics;
  auto gauge = metrics.gauge("g", "Help.", {"l"});
  gauge.with({"a"}).set(std::numeric_limits<double>::quiet_NaN());
  const auto callback = gauge.callback({"b"}, [] { return std::numeric_limits<double>::quiet_NaN(); });
  EXPECT_EQ(metrics.expose(), "");
  gauge.with({"a"}).set(0);
  EXPECT_THAT(metrics.expose(), HasSubstr("g{l=\"a\"} 0\n"));
}

TEST(Metrics, ShowsAHistogramThatSomebodyElseKeeps) {
  Metrics metrics;
  const Histogram none({1});
  Histogram kept({1, 2});
  kept.observe(1.5);
  {
    const auto shown = metrics.histogram("h", "Help.", {"loop"}, {1, 2}).show({"a"}, kept);
    EXPECT_THAT(metrics.expose(), HasSubstr("h_bucket{loop=\"a\",le=\"2\"} 1\n"));
  }
  EXPECT_EQ(metrics.expose(), "");
}

TEST(Metrics, TheRuntimeIsMeasured) {
  std::atomic<bool> go = false;  // outlives the threads that wait for it
  Runtime runtime({.loops = 2, .file_threads = 3, .cpu_threads = 1, .budget_bytes = 1000});
  Metrics metrics;
  const RuntimeMetrics shown(metrics, runtime);
  for (int i = 0; i < 5; ++i) {
    runtime.files().submit([&go] { go.wait(false); });
  }
  // Three at work, two waiting; bounded since no thread does anything else.
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (runtime.files().busy() < 3 && std::chrono::steady_clock::now() < until) std::this_thread::yield();
  const std::string text = metrics.expose();
  EXPECT_THAT(text, HasSubstr("prism_offload_busy_threads{pool=\"files\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("prism_offload_queued{pool=\"files\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("prism_offload_threads{pool=\"files\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("prism_payload_budget_bytes 1000\n"));
  EXPECT_THAT(text, HasSubstr("prism_loop_lag_seconds_count{loop=\"loop-1\"}"));
  EXPECT_THAT(text, HasSubstr("prism_stalls_total 0\n"));
  go = true;
  go.notify_all();
}

TEST(Metrics, NothingIsLostAmongThreads) {
  Metrics metrics;
  auto family = metrics.counter("c_total", "Help.", {"l"});
  auto gauge = metrics.gauge("g", "Help.");
  auto histogram = metrics.histogram("h", "Help.", {}, {1, 2});
  constexpr int kEach = 20'000;
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        Counter& mine = family.with({std::to_string(t % 2)});
        for (int i = 0; i < kEach; ++i) {
          mine.add();
          gauge.with().add(t % 2 == 0 ? 1 : -1);
          histogram.with().observe(static_cast<double>(i % 4));
          if (i % 5000 == 0) {
            const auto callback = family.callback({"callback"}, [] { return 1.0; });
            EXPECT_FALSE(metrics.expose().empty());
          }
        }
      });
    }
  }
  EXPECT_EQ(family.with({"0"}).value(), 2U * kEach);
  EXPECT_EQ(gauge.with().value(), 0);
  EXPECT_EQ(histogram.with().count(), 4U * kEach);
  EXPECT_EQ(histogram.with().sum(), 4 * kEach * 1.5);
}

double value_of(const std::string& text, const std::string& name) {
  const std::size_t at = text.find("\n" + name + " ");
  return at == std::string::npos ? -1 : std::stod(text.substr(at + name.size() + 2));
}

TEST(Metrics, TheProcessIsMeasured) {
  Metrics metrics;
  const ProcessMetrics process(metrics);
  const std::string text = metrics.expose();
  EXPECT_THAT(text, HasSubstr("prism_build_info{version=\"" PRISM_VERSION "\"} 1\n"));
  EXPECT_GT(value_of(text, "process_resident_memory_bytes"), 1 << 20);
  EXPECT_GE(value_of(text, "process_cpu_seconds_total"), 0);
  EXPECT_GE(value_of(text, "process_open_fds"), 3);
  EXPECT_GT(value_of(text, "process_max_fds"), 3);
  EXPECT_GE(value_of(text, "process_threads"), 1);
  EXPECT_GE(value_of(text, "prism_uptime_seconds"), 0);
  const double now = std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  EXPECT_NEAR(value_of(text, "process_start_time_seconds"), now, 3600);
}

}  // namespace
}  // namespace prism
