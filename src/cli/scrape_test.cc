#include "cli/scrape.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "telemetry/metrics.h"

namespace prism::cli {
namespace {

using testing::ElementsAre;

Scrape parse(std::string_view text) {
  auto scrape = Scrape::parse(text);
  EXPECT_TRUE(scrape) << scrape.error().message;
  return scrape ? *scrape : Scrape();
}

TEST(Scrape, ReadsWhatMetricsWrites) {
  Metrics metrics;
  metrics.counter("c_total", "Help.", {"a", "b"}).with({"x\"y\\z\n", ""}).add(3);
  metrics.gauge("g", "Help.").with().set(-1.5);
  metrics.histogram("h_seconds", "Help.", {"a"}, {1, 2}).with({"p"}).observe(1.5);
  const Scrape scrape = parse(metrics.expose());
  EXPECT_EQ(scrape.sum("c_total", {{"a", "x\"y\\z\n"}, {"b", ""}}), 3);
  EXPECT_EQ(scrape.sum("g"), -1.5);
  EXPECT_EQ(scrape.sum("h_seconds_bucket", {{"le", "+Inf"}}), 1);
  EXPECT_EQ(scrape.sum("nothing"), 0);
}

TEST(Scrape, RefusesWhatIsSomethingElse) {
  for (const auto* text : {"<html>", "a{b=\"c\" 1\n", "a{b} 1\n", "a nonsense\n", "a{b=\"c\n"}) {
    const auto scrape = Scrape::parse(text);
    ASSERT_FALSE(scrape) << text;
    EXPECT_EQ(scrape.error().reason, "METRICS_UNREADABLE");
  }
}

TEST(Change, CountersThatBeganAnewCountFromZero) {
  const Change change(parse("c_total{n=\"a\"} 10\nc_total{n=\"b\"} 5\n"),
                      parse("c_total{n=\"a\"} 12\nc_total{n=\"b\"} 3\nc_total{n=\"c\"} 1\n"));
  EXPECT_EQ(change.of("c_total", {{"n", "a"}}), 2);
  EXPECT_EQ(change.of("c_total", {{"n", "b"}}), 3);
  EXPECT_EQ(change.of("c_total"), 6);
  EXPECT_THAT(change.values("c_total", "n"), ElementsAre("a", "b", "c"));
}

TEST(Change, QuantilesAreReadOffTheBuckets) {
  const auto buckets = [](int a, int b, int c) {
    return parse("h_bucket{le=\"1\"} " + std::to_string(a) + "\nh_bucket{le=\"2\"} " + std::to_string(b) +
                 "\nh_bucket{le=\"+Inf\"} " + std::to_string(c) + "\nh_count " + std::to_string(c) + "\n");
  };
  const Change change(buckets(100, 100, 100), buckets(110, 120, 120));
  EXPECT_EQ(change.count("h", {}), 20);
  EXPECT_DOUBLE_EQ(change.quantile("h", {}, 0.25), 0.5);
  EXPECT_DOUBLE_EQ(change.quantile("h", {}, 0.5), 1);
  EXPECT_DOUBLE_EQ(change.quantile("h", {}, 0.75), 1.5);
  EXPECT_DOUBLE_EQ(Change(buckets(0, 0, 0), buckets(0, 0, 4)).quantile("h", {}, 0.5), 2) << "at least";
  EXPECT_EQ(Change(buckets(3, 4, 5), buckets(3, 4, 5)).quantile("h", {}, 0.5), 0);
}

}  // namespace
}  // namespace prism::cli
