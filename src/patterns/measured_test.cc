// proves: M-19
#include "patterns/measured.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/loop.h"
#include "runtime/scope.h"

namespace prism {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using testing::Not;

Batch<Result<Appended>> done(std::size_t n) {
  Batch<Result<Appended>> out;
  for (std::size_t i = 0; i < n; ++i) out.emplace_back(Appended{});
  return out;
}

// Takes a time, then passes on to what is inside of it, if there is something; then takes it again.
class Slow final : public Publisher {
 public:
  Slow(EventLoop& loop, Clock::duration time, std::unique_ptr<Publisher> next = nullptr)
      : loop_(loop), time_(time), next_(std::move(next)) {}
  Task<Batch<Result<Appended>>> publish(Context context, Batch<Message> messages) override {
    co_await sleep_for(loop_, context, time_);
    if (next_ == nullptr) co_return done(messages.size());
    auto results = co_await next_->publish(context, std::move(messages));
    co_await sleep_for(loop_, context, time_);
    co_return results;
  }

 private:
  EventLoop& loop_;
  Clock::duration time_;
  std::unique_ptr<Publisher> next_;
};

class Handing final : public Subscription, public Subscriber {
 public:
  explicit Handing(bool serves = false) : serves_(serves) {}
  Task<Result<std::unique_ptr<Subscription>>> subscribe(Context /*context*/, GroupSpec /*spec*/) override {
    if (!serves_) co_return fail(Code::unavailable, "DOWN", "down");
    co_return std::make_unique<Handing>(true);
  }
  Task<Result<Batch<Received>>> receive(Context /*context*/, std::size_t /*max*/, std::size_t /*bytes*/) override {
    Batch<Received> batch(3);
    batch[0].time = batch[1].time = batch[2].time = wall_now() - 20s;
    batch[2].attempt = 2;
    co_return batch;
  }
  Task<Batch<Settled>> settle(Context /*context*/, Batch<Settle> settles) override {
    Batch<Settled> out(settles.size(), Settled::ok);
    out.back() = Settled::stale;
    co_return out;
  }
  Task<void> close(Context /*context*/) override { co_return; }

 private:
  bool serves_;
};

struct MeasuredTest : testing::Test {
  Runtime runtime;
  EventLoop& loop = runtime.next_loop();
  Metrics metrics;

  double value(const std::string& series) const {
    const std::string text = "\n" + metrics.expose();
    const auto at = text.find("\n" + series + " ");
    return at == std::string::npos ? -1.0 : std::stod(text.substr(at + series.size() + 2));
  }
  Ports ports(bool patterns) {
    const ChainMetrics chain(metrics, "media", patterns);
    auto log = chain.step(std::make_unique<Slow>(loop, 40ms), 0, {});
    auto inner = chain.step(std::make_unique<Slow>(loop, 10ms, std::move(log)), 1, "outbox");
    auto outer = chain.step(std::make_unique<Slow>(loop, 5ms, std::move(inner)), 2, "claim-check");
    return chain.chain({.publish = std::move(outer), .subscribe = std::make_unique<Handing>(true)}, 3);
  }
};

TEST_F(MeasuredTest, EachStepKnowsItsOwnTimeAlsoAmongOverlappingPublishes) {
  auto chain = ports(true);
  std::vector<Task<Batch<Result<Appended>>>> publishes;
  for (int i = 0; i < 4; ++i) publishes.push_back(chain.publish->publish(Context(), Batch<Message>(1)));
  run_blocking(when_all(std::move(publishes)));
  const std::string outbox = R"({namespace="media",pattern="outbox"})";
  const std::string claim_check = R"({namespace="media",pattern="claim-check"})";
  EXPECT_EQ(value("prism_pattern_chain_duration_seconds_count" + outbox), 4);
  const double own_outer = value("prism_pattern_chain_duration_seconds_sum" + claim_check);
  const double own_inner = value("prism_pattern_chain_duration_seconds_sum" + outbox);
  const double from_inner = value("prism_pattern_inclusive_duration_seconds_sum" + outbox);
  const double from_outer = value("prism_pattern_inclusive_duration_seconds_sum" + claim_check);
  const double all = value("prism_publish_duration_seconds_sum{namespace=\"media\"}");
  EXPECT_GE(own_outer, 4 * 0.010);
  EXPECT_GE(own_inner, 4 * 0.020);
  // The parts add up: nothing is counted twice, whatever else the machine does.
  EXPECT_NEAR(from_outer, own_outer + from_inner, 1e-6);
  EXPECT_GE(from_inner - own_inner, 4 * 0.040);
  EXPECT_NEAR(from_outer, all, 1e-6);
}

// proves: M-26
TEST_F(MeasuredTest, PatternsAreLeftOutWhereTheNamespaceSaysSo) {
  auto chain = ports(false);
  run_blocking(chain.publish->publish(Context(), Batch<Message>(1)));
  EXPECT_THAT(metrics.expose(), Not(HasSubstr("prism_pattern")));
  EXPECT_EQ(value("prism_publish_duration_seconds_count{namespace=\"media\"}"), 1);
}

TEST_F(MeasuredTest, DeliveriesAndWhatBecomesOfThem) {
  auto chain = ports(true);
  {
    auto subscription = run_blocking(chain.subscribe->subscribe(Context(), {}));
    ASSERT_TRUE(subscription);
    EXPECT_EQ(value("prism_subscriptions{namespace=\"media\"}"), 1);
    EXPECT_TRUE(run_blocking((*subscription)->receive(Context(), 10, 1000)));
    Batch<Settle> settles;
    settles.push_back({"a", Settle::Do::ack, {}, {}});
    settles.push_back({"b", Settle::Do::nack, {}, {}});
    settles.push_back({"c", Settle::Do::extend, {}, {}});
    settles.push_back({"d", Settle::Do::ack, {}, {}});
    EXPECT_EQ(run_blocking((*subscription)->settle(Context(), std::move(settles))).size(), 4U);
  }
  EXPECT_EQ(value("prism_subscriptions{namespace=\"media\"}"), 0);
  EXPECT_EQ(value("prism_messages_redelivered_total{namespace=\"media\"}"), 1);
  EXPECT_EQ(value("prism_messages_acked_total{namespace=\"media\"}"), 1);
  EXPECT_EQ(value("prism_messages_nacked_total{namespace=\"media\"}"), 1);
  EXPECT_EQ(value("prism_settles_rejected_total{namespace=\"media\"}"), 1);
  EXPECT_EQ(value("prism_delivery_delay_seconds_count{namespace=\"media\"}"), 2);
  EXPECT_NEAR(value("prism_delivery_delay_seconds_sum{namespace=\"media\"}"), 40, 5);
}

}  // namespace
}  // namespace prism
