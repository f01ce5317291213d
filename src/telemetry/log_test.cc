// proves: M-27
#include "telemetry/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <latch>
#include <mutex>
#include <thread>
#include <vector>

namespace prism::log {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using testing::SizeIs;

class LogTest : public testing::Test {
 protected:
  Options options(Format format = Format::json) {
    return {.level = Level::info,
            .format = format,
            .sink = [this](std::string_view line) { lines_.emplace_back(line); },
            .now = [this] { return now_; }};
  }
  void pass(std::chrono::seconds time) { now_ += time; }
  std::vector<std::string> lines(Output& output) {
    output.flush();
    return std::exchange(lines_, {});
  }

 private:
  std::vector<std::string> lines_;
  std::chrono::steady_clock::time_point now_{std::chrono::hours(1)};
};

TEST_F(LogTest, WritesJsonWithExactValues) {
  Output output(options());
  const std::string ns = "orders";
  info("outbox relay recovered", {{"namespace", ns},
                                  {"count", 18446744073709551615ULL},
                                  {"offset", -9223372036854775807LL - 1},
                                  {"value", 0.1},
                                  {"state", true},
                                  {"duration_ms", std::chrono::microseconds(1500)},
                                  {"topic", "a"}});
  const auto out = lines(output);
  ASSERT_THAT(out, SizeIs(1));
  EXPECT_THAT(out[0],
              testing::MatchesRegex(
                  R"(\{"time":"[0-9-]+T[0-9:]+\.[0-9]+Z","level":"info","message":"outbox relay recovered",.*)"));
  EXPECT_THAT(
      out[0],
      HasSubstr(R"("namespace":"orders","count":18446744073709551615,"offset":-9223372036854775808,"value":0.1,)"
                R"("state":true,"duration_ms":1.5,"topic":"a"})"));
}

TEST_F(LogTest, LinesOfARequestHaveItsTraceAndNamespace) {
  Output output(options());
  const auto trace = TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
  const Context context = Context().in_namespace("orders").with_trace(*trace);
  warn(context, "request failed", {{"reason", "LOG_DOWN"}});
  warn(context, "request failed", {{"namespace", "other"}});
  info(Context(), "started");
  const auto out = lines(output);
  ASSERT_THAT(out, SizeIs(3));
  EXPECT_THAT(out[0],
              HasSubstr(R"("reason":"LOG_DOWN","namespace":"orders","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736"})"));
  EXPECT_THAT(out[1], HasSubstr(R"("namespace":"other","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736"})"));
  EXPECT_THAT(out[2], HasSubstr(R"("message":"started"})"));
}

TEST_F(LogTest, RepeatsAreToldByNamespaceWhateverTheTrace) {
  Output output(options());
  for (int i = 0; i < 3; ++i)
    warn(Context().in_namespace("orders").with_trace(TraceContext::make_root()), "request failed",
         {{"reason", "LOG_DOWN"}});
  warn(Context().in_namespace("media").with_trace(TraceContext::make_root()), "request failed",
       {{"reason", "LOG_DOWN"}});
  EXPECT_THAT(lines(output), SizeIs(2));
  pass(std::chrono::seconds(11));
  info("later");
  EXPECT_THAT(lines(output),
              testing::Contains(testing::AllOf(HasSubstr(R"("namespace":"orders")"), HasSubstr(R"("repeated":2)"))));
}

TEST_F(LogTest, LinesAboutDifferentJobsAreNoRepeats) {
  Output output(options());
  for (const std::string_view job : {"a/outbox/relay", "b/outbox/relay", "a/outbox/relay"})
    warn("job failed", {{"job", job}, {"reason", "LOG_DOWN"}});
  EXPECT_THAT(lines(output), SizeIs(2));
  pass(std::chrono::seconds(11));
  info("later");
  EXPECT_THAT(lines(output),
              testing::Contains(HasSubstr(R"("job":"a/outbox/relay","reason":"LOG_DOWN","repeated":1)")));
}

TEST_F(LogTest, EscapesWhatJsonForbids) {
  Output output(options());
  using namespace std::string_literals;
  info("q\"b\\", {{"error", "line\nbreak\ttab\x01\0nul\xff\xc3\xa4\xed\xa0\x80\xf0\x9f\x98\x80\xc3"s}});
  EXPECT_THAT(
      lines(output),
      ElementsAre(HasSubstr("\"message\":\"q\\\"b\\\\\",\"error\":\"line\\nbreak\\ttab\\u0001\\u0000nul\xef\xbf\xbd"
                            "\xc3\xa4\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xf0\x9f\x98\x80\xef\xbf\xbd\"}")));
}

TEST_F(LogTest, WritesForPeople) {
  Output output(options(Format::pretty));
  warn("lease lost", {{"job", "relay"}, {"reason", "LEASE_LOST"}, {"error", "two words"}, {"count", 3}, {"file", ""}});
  EXPECT_THAT(
      lines(output),
      ElementsAre(testing::MatchesRegex(
          R"([0-9:]+\.[0-9]+ warn  lease lost  job=relay  reason=LEASE_LOST  error="two words"  count=3  file="")")));
}

TEST_F(LogTest, KeepsBelowTheLevelOut) {
  Output output(options());
  EXPECT_FALSE(enabled(Level::debug));
  EXPECT_TRUE(enabled(Level::info));
  debug("no");
  trace("no");
  error("yes");
  EXPECT_THAT(lines(output), SizeIs(1));
  EXPECT_EQ(parse_level("warn"), Level::warn);
  EXPECT_EQ(parse_level("loud"), std::nullopt);
}

TEST_F(LogTest, OffIsOff) {
  auto off = options();
  off.level = Level::off;
  Output output(off);
  error("no");
  EXPECT_THAT(lines(output), SizeIs(0));
}

TEST_F(LogTest, RepeatsAreCountedAndWrittenOnceATime) {
  Output output(options());
  const auto fails = [](std::string_view reason, std::string_view ns) {
    warn("publish failed", {{"reason", reason}, {"namespace", ns}, {"count", 1}});
  };
  for (int i = 0; i < 5; ++i) fails("DISK_FULL", "a");
  fails("OTHER", "a");
  fails("DISK_FULL", "b");
  auto out = lines(output);
  ASSERT_THAT(out, SizeIs(3));
  for (const auto& line : out) EXPECT_THAT(line, Not(HasSubstr("repeated")));
  pass(std::chrono::seconds(9));
  fails("DISK_FULL", "a");
  EXPECT_THAT(lines(output), SizeIs(0));
  pass(std::chrono::seconds(2));
  // What did not come again is told with the next line, whatever it is.
  info("something else");
  out = lines(output);
  ASSERT_THAT(out, SizeIs(2));
  EXPECT_THAT(
      out[0],
      HasSubstr(R"("level":"warn","message":"publish failed","reason":"DISK_FULL","namespace":"a","repeated":5})"));
  EXPECT_THAT(out[1], HasSubstr("something else"));
  fails("DISK_FULL", "a");
  EXPECT_THAT(lines(output), ElementsAre(Not(HasSubstr("repeated"))));
}

TEST_F(LogTest, ARepeatThatComesAgainCarriesTheCount) {
  Output output(options());
  error("failed", {{"reason", "X"}});
  error("failed", {{"reason", "X"}});
  pass(std::chrono::seconds(10));
  error("failed", {{"reason", "X"}});
  EXPECT_THAT(lines(output), ElementsAre(Not(HasSubstr("repeated")), HasSubstr("\"repeated\":1")));
}

TEST_F(LogTest, PlainInformationIsNotHeldBack) {
  Output output(options());
  for (int i = 0; i < 3; ++i) info("namespace ready", {{"namespace", "a"}});
  EXPECT_THAT(lines(output), SizeIs(3));
  for (int i = 0; i < 3; ++i) info("retrying", {{"reason", "X"}});
  EXPECT_THAT(lines(output), SizeIs(1));
}

TEST_F(LogTest, TheLastRepeatsAreWrittenAtTheEnd) {
  std::vector<std::string> out;
  {
    auto kept = options();
    kept.sink = [&](std::string_view line) { out.emplace_back(line); };
    const Output output(kept);
    warn("w");
    warn("w");
    warn("w");
  }
  ASSERT_THAT(out, SizeIs(2));
  EXPECT_THAT(out[1], HasSubstr("\"message\":\"w\",\"repeated\":2"));
  warn("to stderr, with no output in place");
}

TEST_F(LogTest, ManyDifferentLinesAreBounded) {
  Output output(options());
  for (int i = 0; i < 1500; ++i) warn("w", {{"reason", "R" + std::to_string(i)}});
  EXPECT_THAT(lines(output), SizeIs(1500));
}

TEST_F(LogTest, ThreadsDoNotMixLines) {
  Output output(options());
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([t] {
        for (int i = 0; i < 500; ++i) info("line", {{"thread", std::to_string(t)}, {"count", i}});
      });
    }
  }
  const auto out = lines(output);
  EXPECT_THAT(out, SizeIs(2000));
  for (const auto& line : out) EXPECT_TRUE(line.starts_with("{\"time\"") && line.ends_with("}")) << line;
}

TEST_F(LogTest, ASlowOutputDropsTheOldestAndSaysSo) {
  std::latch entered(1);
  std::latch go(1);
  bool first = true;
  std::vector<std::string> out;
  auto slow = options();
  slow.sink = [&](std::string_view line) {
    if (std::exchange(first, false)) {
      entered.count_down();
      go.wait();
    }
    out.emplace_back(line);
  };
  Output output(slow);
  info("first");
  entered.wait();
  for (int i = 0; i < 5000; ++i) info("line", {{"count", i}});  // none of these waits
  go.count_down();
  output.flush();
  info("afterwards");
  output.flush();
  EXPECT_LT(out.size(), 4200U);
  EXPECT_THAT(out[out.size() - 3], HasSubstr("\"count\":4999"));
  EXPECT_THAT(out[out.size() - 2], HasSubstr("afterwards"));
  EXPECT_THAT(out.back(), HasSubstr("log lines were dropped"));
}

TEST_F(LogTest, ASinkThatThrowsLosesItsLineOnly) {
  std::vector<std::string> out;
  auto bad = options();
  bad.sink = [&](std::string_view line) {
    if (line.find("bad") != std::string_view::npos) throw std::runtime_error("x");
    out.emplace_back(line);
  };
  Output output(bad);
  info("bad");
  info("good");
  output.flush();
  EXPECT_THAT(out, ElementsAre(HasSubstr("good")));
}

}  // namespace
}  // namespace prism::log
