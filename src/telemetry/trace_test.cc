#include "telemetry/trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mutex>

namespace prism::trace {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::SizeIs;

class Kept final : public Sink {
 public:
  void take(Finished span) noexcept override {
    const std::lock_guard lock(mutex_);
    spans_.push_back(std::move(span));
  }
  std::vector<Finished> spans() {
    const std::lock_guard lock(mutex_);
    return spans_;
  }

 private:
  std::mutex mutex_;
  std::vector<Finished> spans_;
};

constexpr std::string_view kCaller = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
constexpr std::string_view kUnsampledCaller = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

Context in(TraceContext trace) { return Context().with_trace(std::move(trace)); }

// proves: M-24
TEST(Trace, WithoutATracerNothingIsRecordedAndTheCallersContextIsPassedOn) {
  const auto caller = TraceContext::parse(kCaller, "vendor=1");
  const TraceContext trace = begin_trace(&*caller);
  EXPECT_FALSE(trace.recorded);
  EXPECT_EQ(trace.traceparent(), kCaller);
  EXPECT_EQ(trace.tracestate, "vendor=1");
  EXPECT_FALSE(Span::begin(in(trace), "Publish", Layer::request));

  EXPECT_FALSE(begin_trace(nullptr).valid());
  EXPECT_EQ(begin_trace(nullptr).trace_id_text(), "");
  EXPECT_FALSE(active());
}

TEST(Trace, SpansFormATreeOfOneTrace) {
  Kept kept;
  const Tracer tracer({}, kept);
  const auto caller = TraceContext::parse(kCaller, "vendor=1");
  {
    const Context request = in(begin_trace(&*caller));
    Span outer = Span::begin(request, "PubSubService.Publish", Layer::request, Kind::server);
    ASSERT_TRUE(outer);
    const Context inside = outer.context(request);
    EXPECT_EQ(inside.trace().tracestate, "vendor=1");
    Span inner = Span::begin(inside, "OutboxPattern.process_publish", Layer::pattern);
    inner.set("prism.pattern", "outbox");
    inner.set("count", 3);
    inner.set("share", 0.5);
    inner.set("good", true);
    inner.end();
    EXPECT_FALSE(inner);
    outer.fail(Error{Code::unavailable, "LOG_DOWN", "the log is down", {}, Retry::safe, {}, {}});
  }
  const auto spans = kept.spans();
  ASSERT_THAT(spans, SizeIs(2));
  EXPECT_EQ(spans[0].name, "OutboxPattern.process_publish");
  EXPECT_EQ(spans[0].parent, spans[1].context.span_id);
  EXPECT_THAT(spans[0].attributes,
              ElementsAre(Pair("prism.pattern", Value("outbox")), Pair("count", Value(std::int64_t{3})),
                          Pair("share", Value(0.5)), Pair("good", Value(true))));
  EXPECT_FALSE(spans[0].failed);
  EXPECT_EQ(spans[1].parent, caller->span_id);
  EXPECT_EQ(spans[1].kind, Kind::server);
  EXPECT_TRUE(spans[1].failed);
  EXPECT_EQ(spans[1].error, "the log is down");
  EXPECT_THAT(spans[1].attributes, ElementsAre(Pair("error.type", Value("LOG_DOWN"))));
  for (const auto& span : spans) {
    EXPECT_EQ(span.context.trace_id, caller->trace_id);
    EXPECT_LE(span.begun, span.ended);
  }
}

TEST(Trace, ARequestWithoutACallerIsTheRootOfATrace) {
  Kept kept;
  const Tracer tracer({}, kept);
  Span::begin(in(begin_trace(nullptr)), "PubSubService.Publish", Layer::request).end();
  ASSERT_THAT(kept.spans(), SizeIs(1));
  EXPECT_EQ(kept.spans()[0].parent, (std::array<std::byte, 8>{}));
  EXPECT_TRUE(kept.spans()[0].context.valid());
  EXPECT_TRUE(kept.spans()[0].context.sampled());
}

TEST(Trace, TheCallersDecisionCountsBeforeTheRatio) {
  Kept kept;
  const auto yes = TraceContext::parse(kCaller);
  const auto no = TraceContext::parse(kUnsampledCaller);
  {
    const Tracer tracer({.sampling = Sampling::parent_based, .ratio = 0}, kept);
    EXPECT_TRUE(begin_trace(&*yes).recorded);
    EXPECT_FALSE(begin_trace(&*no).recorded);
    EXPECT_EQ(begin_trace(&*no).traceparent(), kUnsampledCaller);
    EXPECT_FALSE(begin_trace(nullptr).recorded);
    EXPECT_FALSE(begin_trace(nullptr).valid());  // there is nothing to pass on
    EXPECT_THAT(begin_trace(nullptr).trace_id_text(), SizeIs(32));
    EXPECT_TRUE(recording(*yes));
    EXPECT_FALSE(recording(*no));
  }
  {
    const Tracer tracer({.sampling = Sampling::ratio, .ratio = 0}, kept);
    const TraceContext taken_back = begin_trace(&*yes);
    EXPECT_FALSE(taken_back.recorded);
    EXPECT_FALSE(taken_back.sampled());
    EXPECT_EQ(taken_back.trace_id, yes->trace_id);
    EXPECT_NE(taken_back.span_id, yes->span_id);
    EXPECT_FALSE(recording(*yes));
  }
  {
    const Tracer tracer({.sampling = Sampling::ratio, .ratio = 1}, kept);
    EXPECT_TRUE(begin_trace(&*no).recorded);
    EXPECT_TRUE(begin_trace(&*no).sampled());
  }
  EXPECT_FALSE(recording(*yes));
}

TEST(Trace, TheRatioIsKept) {
  Kept kept;
  const Tracer tracer({.sampling = Sampling::parent_based, .ratio = 0.1}, kept);
  constexpr int kTraces = 20'000;
  int sampled = 0;
  for (int i = 0; i < kTraces; ++i) sampled += begin_trace(nullptr).recorded ? 1 : 0;
  EXPECT_NEAR(sampled, 0.1 * kTraces, 300);  // seven standard deviations
}

// proves: M-25
TEST(Trace, PatternsCanBeLeftOut) {
  Kept kept;
  const Tracer tracer({}, kept);
  const Context request = in(begin_trace(nullptr));
  Span outer = Span::begin(request, "PubSubService.Publish", Layer::request);
  outer.leave_out_patterns();
  const Context inside = outer.context(request);
  EXPECT_FALSE(Span::begin(inside, "OutboxPattern.process_publish", Layer::pattern));
  EXPECT_TRUE(Span::begin(inside, "db.insert_outbox", Layer::backend));
  Span below = Span::begin(inside, "db.insert_outbox", Layer::backend);
  EXPECT_FALSE(Span::begin(below.context(inside), "generate_claim_check_id", Layer::pattern));
}

TEST(Trace, ASpanMayGoOnBelowAStoredContext) {
  Kept kept;
  const Tracer tracer({}, kept);
  Span::resume(*TraceContext::parse(kCaller), "kafka.produce", Kind::producer).end();
  EXPECT_FALSE(Span::resume(*TraceContext::parse(kUnsampledCaller), "kafka.produce", Kind::producer));
  EXPECT_FALSE(Span::resume(TraceContext(), "kafka.produce", Kind::producer));
  ASSERT_THAT(kept.spans(), SizeIs(1));
  EXPECT_EQ(kept.spans()[0].parent, TraceContext::parse(kCaller)->span_id);
}

TEST(Trace, StepsThatABackendMeasuredKeepTheirTimes) {
  Kept kept;
  const Tracer tracer({}, kept);
  const auto from = Clock::now() - std::chrono::milliseconds(50);
  Span span = Span::begin(in(begin_trace(nullptr)), "db.insert_outbox", Layer::backend);
  span.begin_at(from);
  span.end_at(from + std::chrono::milliseconds(20));
  ASSERT_THAT(kept.spans(), SizeIs(1));
  EXPECT_EQ(kept.spans()[0].ended - kept.spans()[0].begun, std::chrono::milliseconds(20));
}

// proves: M-23
TEST(Trace, AnInvalidTraceStateIsLeftOut) {
  EXPECT_EQ(TraceContext::parse(kCaller, std::string(513, 'a'))->tracestate, "");
  EXPECT_EQ(TraceContext::parse(kCaller, "a=1\n")->tracestate, "");
  EXPECT_EQ(TraceContext::parse(kCaller, "a=1,b=2")->tracestate, "a=1,b=2");
  EXPECT_FALSE(TraceContext::parse("00-xyz", "a=1"));
}

}  // namespace
}  // namespace prism::trace
