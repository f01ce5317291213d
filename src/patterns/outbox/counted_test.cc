// proves: M-10
#include "patterns/outbox/counted.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace prism::outbox {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using testing::Not;

TEST(Counted, TheLatencyIsTheMedianOfTheLastRows) {
  Metrics metrics;
  Counted counted(PatternMetrics(metrics, "orders", true));
  EXPECT_THAT(metrics.expose(), Not(HasSubstr("prism_outbox_publish_latency_ms")));
  counted.took({});
  counted.show_median();
  EXPECT_THAT(metrics.expose(), Not(HasSubstr("prism_outbox_publish_latency_ms")));
  counted.took({10ms, 30ms, 5s});
  counted.show_median();
  EXPECT_THAT(metrics.expose(), HasSubstr("prism_outbox_publish_latency_ms{namespace=\"orders\"} 30\n"));
  counted.took(std::vector<Clock::duration>(1000, 2ms));
  counted.show_median();
  EXPECT_THAT(metrics.expose(), HasSubstr("prism_outbox_publish_latency_ms{namespace=\"orders\"} 2\n"));
  EXPECT_THAT(metrics.expose(),
              HasSubstr("prism_pattern_outbox_publish_latency_seconds_count{namespace=\"orders\"} 1003\n"));
}

TEST(Counted, WhatWaitsIsNotShownUntilItIsKnownAndStaysKnownInTheNextAssembly) {
  Metrics metrics;
  const PatternMetrics shown(metrics, "orders", true);
  auto first = std::make_unique<Counted>(shown);
  EXPECT_THAT(metrics.expose(), Not(HasSubstr("prism_pattern_outbox_pending_count")));
  first->pending->set(3);
  const Counted second(shown);
  EXPECT_THAT(metrics.expose(), HasSubstr("prism_pattern_outbox_pending_count{namespace=\"orders\"} 3\n"));
  first.reset();
  EXPECT_THAT(metrics.expose(), HasSubstr("prism_outbox_unpublished_count{namespace=\"orders\"} 3\n"));
}

}  // namespace
}  // namespace prism::outbox
