// Spans of a chain's end, and the trace that a record carries, over a real log.
#include "patterns/traced.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <mutex>

#include "backends/sqlite/engine.h"
#include "backends/sqlite/event_log.h"
#include "patterns/log_ports.h"
#include "runtime/scope.h"

namespace prism {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

constexpr std::string_view kParent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
constexpr std::string_view kUnsampled = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

class OneTopic final : public Topics {
 public:
  explicit OneTopic(std::shared_ptr<EventLog> log) : log_(std::move(log)) {}
  Task<Result<TopicInfo>> ensure(Context context, std::string topic) override {
    return log_->ensure_topic(std::move(context), {.name = std::move(topic), .partitions = 1});
  }
  Task<Result<std::vector<std::string>>> known(Context /*context*/) override { co_return std::vector<std::string>(); }

 private:
  std::shared_ptr<EventLog> log_;
};

class Kept final : public trace::Sink {
 public:
  void take(trace::Finished span) noexcept override {
    const std::lock_guard lock(mutex_);
    spans_.push_back(std::move(span));
  }
  std::vector<trace::Finished> spans() {
    const std::lock_guard lock(mutex_);
    return spans_;
  }

 private:
  std::mutex mutex_;
  std::vector<trace::Finished> spans_;
};

struct TracedChain : testing::Test {
  TracedChain() {
    std::string pattern = testing::TempDir() + "prism-traced-XXXXXX";
    dir = mkdtemp(pattern.data());
    engine = std::move(*run_blocking(sqlite::Engine::open(runtime, dir + "/log.db")));
    log = std::move(*run_blocking(sqlite::open_event_log(engine)));
    topics = std::make_shared<OneTopic>(log);
    publisher = make_log_publisher(log, topics, {.system = "kafka", .backend = "main", .twin = "sqlite"});
  }
  ~TracedChain() override {
    run_blocking(log->close(Context()));
    run_blocking(engine->close());
    std::filesystem::remove_all(dir);
  }

  static Message message(std::string id, std::string_view traceparent = {}) {
    Message m;
    m.topic = "t";
    m.id = std::move(id);
    m.payload = Payload(Bytes(std::string("x")));
    if (!traceparent.empty()) m.set_attribute("traceparent", std::string(traceparent));
    return m;
  }
  void publish(const Context& context, Batch<Message> messages) {
    for (const auto& result : run_blocking(publisher->publish(context, std::move(messages))))
      ASSERT_TRUE(result) << result.error().describe();
  }
  // The traceparent headers of all records, in order; "": none.
  std::vector<std::string> headers() {
    auto reader = std::move(*run_blocking(log->read(Context(), "t", 0, Start{})));
    auto records = run_blocking(reader->next(Context().with_timeout(std::chrono::seconds(30)), 1'000'000));
    std::vector<std::string> out;
    for (const auto& [record, at] : *records) {
      std::string found;
      for (const auto& [name, value] : record.headers) {
        if (name == "traceparent") found += value.str();
      }
      out.push_back(found);
    }
    run_blocking(reader->close(Context()));
    return out;
  }

  Runtime runtime;
  std::string dir;
  std::shared_ptr<sqlite::Engine> engine;
  std::shared_ptr<EventLog> log;
  std::shared_ptr<Topics> topics;
  std::unique_ptr<Publisher> publisher;
};

// proves: M-23
TEST_F(TracedChain, ARecordGoesOnBelowItsProduceSpan) {
  Kept kept;
  {
    const trace::Tracer tracer({}, kept);
    const auto parent = TraceContext::parse(kParent);
    Batch<Message> batch;
    batch.push_back(message("own", kParent));
    batch.push_back(message("of-the-request"));
    publish(Context().with_trace(trace::Span::resume(*parent, "request", trace::Kind::server).trace_or({})),
            std::move(batch));
  }
  std::vector<trace::Finished> produced;
  for (auto& span : kept.spans()) {
    if (span.name == "kafka.produce") produced.push_back(std::move(span));
  }
  ASSERT_THAT(produced, SizeIs(2));  // each message is of one trace
  EXPECT_THAT(headers(), ElementsAre(produced[0].context.traceparent(), produced[1].context.traceparent()));
  EXPECT_EQ(produced[0].parent, TraceContext::parse(kParent)->span_id);
  EXPECT_EQ(produced[0].kind, trace::Kind::producer);
}

// proves: M-23
TEST_F(TracedChain, WhatNobodyRecordsIsPassedOnAsItCameAndWhatIsNotValidIsLeftOut) {
  Batch<Message> batch;
  batch.push_back(message("sampled", kParent));
  batch.push_back(message("unsampled", kUnsampled));
  batch.push_back(message("invalid", "garbage"));
  batch.push_back(message("none"));
  publish(Context(), std::move(batch));
  EXPECT_THAT(headers(), ElementsAre(std::string(kParent), std::string(kUnsampled), "", ""));
}

TEST_F(TracedChain, AnotherProgramsInvalidContextDoesNotReachSubscribers) {
  ASSERT_TRUE(run_blocking(topics->ensure(Context(), "t")));
  Batch<Record> records;
  for (const std::string_view header : {std::string_view("garbage"), kParent}) {
    Record record;
    record.id = std::string(header);
    record.headers.emplace_back("traceparent", Bytes(std::string(header)));
    record.headers.emplace_back("tracestate", Bytes(std::string("a=1")));
    records.push_back(std::move(record));
  }
  for (const auto& appended : run_blocking(log->append(Context(), "t", std::move(records)))) ASSERT_TRUE(appended);
  auto subscriber = make_log_subscriber(log, topics, {});
  auto subscription = std::move(*run_blocking(subscriber->subscribe(Context(), {.topic = "t", .group = "g"})));
  std::vector<std::size_t> attributes;
  while (attributes.size() < 2) {
    auto batch = run_blocking(subscription->receive(Context().with_timeout(std::chrono::seconds(30)), 10, 1'000'000));
    ASSERT_TRUE(batch && !batch->empty());
    for (const auto& received : *batch) attributes.push_back(received.message.attributes.size());
  }
  EXPECT_THAT(attributes, ElementsAre(0, 2));
  run_blocking(subscription->close(Context()));
}

// proves: M-21
TEST_F(TracedChain, APatternMayEncloseTheWholeChain) {
  Kept kept;
  {
    const trace::Tracer tracer({}, kept);
    publisher = make_enclosing(std::move(publisher), "outbox");
    const Context request = Context().with_trace(trace::begin_trace(nullptr));
    const trace::Span span = trace::Span::begin(request, "request", trace::Layer::request);
    Batch<Message> batch;
    batch.push_back(message("a"));
    publish(span.context(request), std::move(batch));
  }
  const auto spans = kept.spans();
  ASSERT_THAT(spans, SizeIs(3));
  EXPECT_EQ(spans[0].name, "kafka.produce");
  EXPECT_EQ(spans[1].name, "OutboxPattern.process_publish");
  EXPECT_EQ(spans[0].parent, spans[1].context.span_id);
  EXPECT_EQ(spans[1].parent, spans[2].context.span_id);
}

TEST(PatternSpans, AreNamedAsInTheRfc) {
  EXPECT_EQ(pattern_span_name("outbox", "process_publish"), "OutboxPattern.process_publish");
  EXPECT_EQ(pattern_span_name("claim-check", "process_publish"), "ClaimCheckPattern.process_publish");
  EXPECT_EQ(pattern_span_name("write-ahead-log", "process_consume"), "WriteAheadLogPattern.process_consume");
}

}  // namespace
}  // namespace prism
